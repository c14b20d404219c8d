"""What a training leaves: its weights and snapshots, each put in place by one rename, and the record by which they are known again."""

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from progrpo.config import Run
from progrpo.errors import UserError
from progrpo.files import CANNOT_WRITE, read_json, sha256, write_json, write_text
from progrpo.grpo.trainer import Trainer
from progrpo.identity import Folder, Start, hash_results, spoilt_file
from progrpo.jobs.model_card import model_card
from progrpo.names import snapshot_folder
from progrpo.provenance import provenance

OWNS = (
    "state",
    "final",
    "final.incoming",
    "snapshots",
    "published.json",
    "metrics.jsonl",
    "timings.jsonl",
    "tensorboard",
    "wandb",
)  # what a training writes


def is_complete(folder: Folder, run: Run, identity: dict[str, Any], start: Start) -> bool:
    """Claim the folder for this training; whether it holds its weights, whole."""
    folder.claim(identity, start)
    final = folder.path / "final"
    if not final.is_dir() or not any(final.iterdir()):  # Snakemake makes the folder of an output before the job begins
        return False
    if spoilt := spoilt_file(final) or _spoilt_record(folder.path):
        print(f"{spoilt}; going on from the last state to publish again", flush=True)
        return False
    print(f"{folder.path}: already trained, {run.iterations} iterations; delete the folder to train anew")
    return True


def _spoilt_record(out: Path) -> str | None:
    """What is wrong with the metrics or the provenance of trained weights; None when they are as `publish` left them."""
    record = out / "published.json"
    if not record.is_file():
        return None
    try:
        published = read_json(record)
    except UserError as error:
        return str(error)
    found = _records(out, out / "final")
    return None if published == found else f"{out}: metrics.jsonl or provenance.json is not the one that was published"


def _records(out: Path, final: Path) -> dict[str, str | None]:
    """SHA-256 of what a training leaves beside its weights, None for what is gone; times, which differ each time, are left out."""
    files = {"metrics.jsonl": out / "metrics.jsonl", "provenance.json": final / "provenance.json"}
    return {name: sha256(path) if path.is_file() else None for name, path in files.items()}


def publish(trainer: Trainer, run: Run, seed: int, out: Path) -> None:
    """Write `final/`, and beside it the record of what a training leaves there; the trainer then holds the published weights.

    For every rank to call; the first writes.
    """
    trainer.load_average()
    weights = trainer.tuning.weights()
    if trainer.accelerator.is_main_process:
        if run.ema and not trainer.moved_average:
            print(
                f"{out}: fewer updates than ema.every ({run.ema.every}): no average yet, the last weights are published"
            )
        incoming = _write_weights(trainer, weights, run, seed, out / "final")
        write_json(out / "published.json", _records(out, incoming))
        incoming.rename(out / "final")


def publish_snapshot(trainer: Trainer, run: Run, seed: int, out: Path) -> None:
    """Write `snapshots/<iteration>/` as `final/` would be; on every rank, and none goes on before it is there."""
    folder = snapshot_folder(out, trainer.iteration)
    average = trainer.moved_average
    with average.in_place_of(trainer.tuning.parameters) if average else nullcontext():
        weights = trainer.tuning.weights()
        if trainer.accelerator.is_main_process and spoilt_file(folder):
            _write_weights(trainer, weights, run, seed, folder).rename(folder)
    trainer.accelerator.wait_for_everyone()


def _write_weights(trainer: Trainer, weights: dict[str, Tensor], run: Run, seed: int, folder: Path) -> Path:
    """The trained weights, whole, in a folder that one rename puts in the place of `folder`, which is removed."""
    incoming = folder.with_name(folder.name + ".incoming")
    shutil.rmtree(incoming, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        trainer.tuning.save(incoming, weights)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{incoming}: {CANNOT_WRITE.format(error)}") from error
    for file in incoming.rglob("*.safetensors"):
        file.chmod(0o644)  # safetensors writes files that only their owner can read
    backbone = trainer.tuning.backbone
    part = (backbone.denoiser_name, trainer.tuning.kind.__name__)
    card = model_card(run, backbone.model, seed, trainer.reward.name, *part)
    write_text(incoming / "README.md", card)
    write_json(
        incoming / "provenance.json", {**provenance(run, seed, backbone.device), "files": hash_results(incoming)}
    )
    return incoming
