"""Encoded prompts on disk: a training needs its text encoders once, and then not on the device."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from progrpo.errors import UserError
from progrpo.files import write_atomic
from progrpo.grpo.backbone import Backbone, Text


class TextCache:
    """The text of prompts under a backbone's encoders, a file per prompt; jobs that train one model share it.

    Each prompt is encoded alone, so that its bits do not depend on which others were missing.
    """

    def __init__(self, backbone: Backbone, root: Path):
        self.backbone, self.folder = backbone, root / encoder_hash(backbone)

    def fill(self, prompts: list[str]) -> None:
        """Encode and store every prompt that is not there yet; UserError when the folder cannot be written."""
        for prompt in dict.fromkeys(prompts):
            if not self._path(prompt).is_file():
                self._store(prompt)

    def read(self, prompts: list[str]) -> Text:
        """The text (P, ...) of prompts that `fill` was given, on the device; UserError for a file that cannot be read."""
        texts = [self._load(prompt) for prompt in prompts]
        device = self.backbone.device
        pooled = [text["pooled"] for text in texts if "pooled" in text]
        embeddings = torch.cat([text["embeddings"] for text in texts]).to(device)
        return Text(embeddings, torch.cat(pooled).to(device) if pooled else None)

    def _path(self, prompt: str) -> Path:
        return self.folder / f"{hashlib.sha256(prompt.encode()).hexdigest()}.safetensors"

    def _store(self, prompt: str) -> None:
        text = self.backbone.encode([prompt])
        tensors = {"embeddings": text.embeddings} | ({} if text.pooled is None else {"pooled": text.pooled})
        data = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
        write_atomic(self._path(prompt), lambda file: file.write(data))

    def _load(self, prompt: str) -> dict[str, torch.Tensor]:
        try:
            return load_file(self._path(prompt))
        except (OSError, SafetensorError) as error:
            raise UserError(f"{self._path(prompt)}: cannot be read ({error}); delete it and start again") from error


def encoder_hash(backbone: Backbone) -> str:
    """16 digits that change with the text encoders' files (name, size, time), the precision, and the length of a text."""
    model, root = backbone.model, Path(backbone.model.path)
    files = sorted(file for file in root.glob("*/*") if file.is_file())
    stats = [
        (str(file.relative_to(root)), file.stat().st_size, file.stat().st_mtime_ns)
        for file in files
        if file.parent.name.startswith(("text_encoder", "tokenizer"))
    ]
    text = json.dumps(
        [
            type(backbone).__name__,
            str(root.resolve()),
            stats,
            model.precision,
            model.max_sequence_length,
            backbone.device.type,
        ]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]
