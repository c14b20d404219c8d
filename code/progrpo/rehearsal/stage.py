"""Where tier paper is rehearsed: a folder that holds the repository, as links, a smaller config/paper.yaml, and random weights."""

from pathlib import Path
from typing import Any

import yaml

from progrpo.config import Config, load_config
from progrpo.errors import UserError
from progrpo.files import write_text
from progrpo.rehearsal.build import build
from progrpo.typed import read_yaml

TIER = Path("config/paper.yaml")
OVERLAY = Path("config/overlays/rehearsal.yaml")
OWN = {"build", "config", "data", "results"}  # of the stage; all else is the repository's


def laid_over(base: Any, overlay: Any) -> Any:
    """`base` with `overlay` on it: mappings merge, None removes an entry, anything else replaces what is there."""
    if not (isinstance(base, dict) and isinstance(overlay, dict)):
        return overlay
    changed = {key: laid_over(base[key], value) if key in base else value for key, value in overlay.items()}
    return {key: value for key, value in {**base, **changed}.items() if value is not None}


def rehearsed() -> dict[str, Any]:
    """Tier paper's configuration with the overlay on it, as data."""
    layers = [read_yaml(path) for path in (TIER, OVERLAY)]
    for layer in layers:
        layer.pop("templates", None)
    return laid_over(*layers)


def set_stage(folder: Path) -> Config:
    """Make the folder, from the root of the repository: links, configuration, `data/` of everything that the configuration reads.

    What is there already stays, so that a second rehearsal goes on. UserError outside the repository's root.
    """
    if not TIER.is_file():
        raise UserError(f"{TIER}: not here; start the rehearsal from the root of the repository")
    (folder / "results").mkdir(parents=True, exist_ok=True)
    write_text(folder / TIER, yaml.safe_dump(rehearsed(), sort_keys=False))
    linked = [path for path in Path().iterdir() if path.name not in OWN and not path.name.startswith(".")]
    linked += [path for path in TIER.parent.iterdir() if path.name not in (TIER.name, "site.yaml")]
    for path in linked:
        link = folder / path
        if link.is_symlink() and link.readlink() != path.resolve():  # of the clone that this one was copied from
            link.unlink()
        if not link.is_symlink():
            link.symlink_to(path.resolve())
    build(folder / "data")
    return load_config(folder / TIER)
