"""What a result was made from: configuration, code, seed, library versions, device. No dates, hosts or paths."""

import functools
import hashlib
import json
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate")


@functools.cache
def code_hash() -> str:
    """First 16 digits of the SHA-256 over all Python files of this package, in path order."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def config_hash(section: BaseModel) -> str:
    """First 16 digits of the SHA-256 over the canonical JSON of a part of the configuration."""
    text = json.dumps(section.model_dump(mode="json"), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def device_name() -> str:
    """Name of the GPU, or cpu."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def provenance(section: BaseModel, seed: int) -> dict:
    """Provenance of a result made with this part of the configuration and this seed."""
    return {
        "config": config_hash(section),
        "code": code_hash(),
        "seed": seed,
        "versions": {name: version(name) for name in ("progrpo", *LIBRARIES)},
        "device": device_name(),
    }
