"""What the Snakefile is given with `--config`: which tier, and where its miniature models and its results come from."""

from collections.abc import Mapping
from pathlib import Path

from progrpo.config import Config, tier_files
from progrpo.errors import UserError
from progrpo.typed import read_yaml

DEFAULTS = {
    "tier": "paper",  # config/<tier>.yaml
    "miniature": "stored",  # "stored": from the DVC remote in this repository; "trained": made anew
    "results": "made",  # "made": trained and evaluated here; "weights": published weights evaluated here; "stored": published
}


def choose(given: Mapping[str, str]) -> dict[str, str]:
    """Every option with its value; UserError for an unknown option or value, or without tiers. Tiers are the files of `config/`."""
    if not tier_files():
        raise UserError("config/: no tiers in it; call Snakemake in the repository's root, or with `--directory`")
    choices = {
        "tier": [path.stem for path in tier_files()],
        "miniature": ["stored", "trained"],
        "results": ["made", "weights", "stored"],
    }
    for option in given:
        if option not in DEFAULTS:
            raise UserError(f"--config {option}: no such option; known: {', '.join(DEFAULTS)}")
    chosen = {**DEFAULTS, **given}
    for option, known in choices.items():
        if chosen[option] not in known:
            raise UserError(f"--config {option}={chosen[option]}: use one of {', '.join(known)}")
    return chosen


def config_file(chosen: Mapping[str, str]) -> str:
    """The file of the chosen tier."""
    return f"config/{chosen['tier']}.yaml"


def require_own_place(path: Path | str, config: Config) -> None:
    """UserError where a tier's file is a copy that kept another's name or folder of results, which one of the two would lose."""
    path = Path(path)
    if config.tier != path.stem:
        raise UserError(f"{path}: is of tier {config.tier}; give it its own `tier: {path.stem}`, and its own `results`")
    for other in tier_files(path.parent):
        results = _results(other) if other.name != path.name else None
        if results is not None and Path(results) == Path(config.results):
            raise UserError(
                f"{path}: its results are those of {other.name} ({config.results}); give it its own `results`"
            )


def _results(path: Path) -> str | None:
    """Where the results of another tier's file lie; None where it does not say."""
    try:
        data = read_yaml(path)
    except UserError:
        return None  # what is wrong with it is its own tier's to say
    results = data.get("results") if isinstance(data, dict) else None
    return results if isinstance(results, str) else None
