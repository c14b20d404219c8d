"""What a result was made from: configuration, code, seed, library versions, device. No dates, hosts or paths."""

import functools
import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from progrpo.errors import UserError
from progrpo.files import read_object

if TYPE_CHECKING:
    import torch

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate")
# What decides no iteration's time.
TIMELESS = {"method", "evaluations", "seeds", "save_every", "snapshots", "iterations", "hardware"}

# Of a section, what decides no number of its result: labels, and how the same work is cut into processes and batches, where only the
# rounding of sums differs. Of the model and the prompts the content counts, not the name.
LABELS = {"method", "model", "prompts", "evaluations", "save_every", "seeds"}
CUTS = {"hardware", "speed", "micro_batch", "sampling_batch", "gradient_checkpointing", "batch", "batch_size"}


@functools.cache
def code_hash() -> str:
    """First 16 digits of the SHA-256 over all Python files of this package, in path order."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def config_hash(section: BaseModel, without: set[str] | None = None) -> str:
    """First 16 digits of the SHA-256 over the canonical JSON of a part of the configuration, `without` some of its keys."""
    return _hash(section.model_dump(mode="json", exclude=without))


def decisive(section: BaseModel, without: Iterable[str] = ()) -> dict[str, Any]:
    """The keys of a section that decide a number of its result, `without` some more, as values of JSON.

    Of a run's previews `agreement` is left out: it only ends a training.
    """
    left_out: dict[str, Any] = {**dict.fromkeys(LABELS | CUTS | {*without}, True), "previews": {"agreement"}}
    return section.model_dump(mode="json", exclude=left_out)


def decisive_hash(section: BaseModel) -> str:
    """Hash of what of a section decides a number of its result."""
    return _hash(decisive(section))


def _hash(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]


def require_training_of(folder: Path, run: BaseModel, seed: int) -> None:
    """UserError unless trained weights come from these settings, as far as they decide a number, and this seed."""
    made = read_object(folder / "provenance.json")
    if made.get("seed") != seed:
        raise UserError(f"{folder}: trained with seed {made.get('seed')}, not {seed}; give the seed of these weights")
    if made.get("decides", decisive_hash(run)) != decisive_hash(run):  # it was not always recorded
        raise UserError(
            f"{folder}: trained with other settings than the configuration's; train the run anew, or take them back"
        )


def timing_hash(run: BaseModel, model: BaseModel) -> str:
    """Hash of what of a run and its model decides an iteration's time: seconds stand for the run while it has the same."""
    return config_hash(run, TIMELESS)[:8] + config_hash(model, {"path", "source"})[:8]


def device_name(device: "torch.device") -> str:
    """Name of the GPU that a device is, or cpu."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def provenance(section: BaseModel, seed: int | None, device: "torch.device") -> dict:
    """Provenance of a result made on a device with this part of the configuration and this seed, None where it draws nothing."""
    return {
        "config": config_hash(section),
        "decides": decisive_hash(section),
        "code": code_hash(),
        **({} if seed is None else {"seed": seed}),
        "versions": _versions(),
        "device": device_name(device),
    }


def computed_from(made_from: object = None) -> dict:
    """Provenance of a result that is computed from stored ones, whose own is `made_from`, as far as they have one."""
    return {"code": code_hash(), "versions": _versions(), **({"made_from": made_from} if made_from else {})}


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("progrpo", *LIBRARIES)}
