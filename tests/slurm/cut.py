"""The tier `cut`: one short run, one prompt set, the exact checker as reward; everything that a job does, in seconds."""

import shutil
from pathlib import Path

import yaml

from checkout import make_checkout
from progrpo.files import sha256

RUN = "results/cut/runs/progrpo_sd35m-seed0"


def make_cut(folder: Path) -> Path:
    """A checkout that has the tier `cut`."""
    make_checkout(folder)
    shutil.copy(Path(__file__).with_name("cut.yaml"), folder / "config")
    return folder


def change(checkout: Path, **run: object) -> None:
    """Change settings of the cut's run."""
    path = checkout / "config" / "cut.yaml"
    config = yaml.safe_load(path.read_text())
    config["runs"]["progrpo_sd35m"].update(run)
    path.write_text(yaml.safe_dump(config))


def outcome(checkout: Path) -> tuple[str, bytes]:
    """Hash of the trained weights, and the metrics."""
    weights = next((checkout / RUN / "final").rglob("*.safetensors"))
    return sha256(weights), (checkout / RUN / "metrics.jsonl").read_bytes()
