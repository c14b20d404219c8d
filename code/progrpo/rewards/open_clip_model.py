"""open_clip models from a folder: the network, its tokenizer and its unnormalised embeddings."""

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progrpo.errors import UserError
from progrpo.model_files import reading_model, require_tokens
from progrpo.rewards.base import freeze, load_state, load_weights, require_file, unique_prompts

CONFIG = "open_clip_config.json"
VIT_H = "ViT-H-14"  # of HPS-v2.1 and of the CLIP score


class OpenClipModel:
    """An open_clip network, frozen on its device, and its tokenizer."""

    def __init__(self, model: Any, tokenize: Callable[[list[str]], Tensor], device: torch.device):
        self.model, self.tokenize = freeze(model, device), tokenize
        size = model.visual.image_size
        self.image_size = size[0] if isinstance(size, tuple | list) else size

    def image_features(self, pixels: Tensor) -> Tensor:
        """Unnormalised image embeddings (B, D) of pixels (B, 3, S, S)."""
        return self.model.encode_image(pixels)

    def text_features(self, prompts: list[str]) -> Tensor:
        """Unnormalised text embeddings (B, D); a prompt that occurs several times is encoded once."""
        distinct, index = unique_prompts(prompts)
        device = self.model.logit_scale.device
        return self.model.encode_text(self.tokenize(distinct).to(device))[index.to(device)]


def build_open_clip(scorer: str, source: str) -> tuple[nn.Module, Callable[[list[str]], Tensor]]:
    """(network with random weights, tokenizer) of a built-in architecture's name or `local-dir:FOLDER`."""
    import open_clip

    quiet = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns that no weights were loaded: they follow
    try:
        return open_clip.create_model(source, load_weights=False), open_clip.get_tokenizer(source)
    except (ValueError, RuntimeError, OSError, TypeError, KeyError) as error:
        raise UserError(f"{scorer}: open_clip cannot build {source} ({error}); check {CONFIG}") from None
    finally:
        logging.getLogger().setLevel(quiet)


def load_open_clip(scorer: str, weights: Path, architecture: str, device: torch.device) -> OpenClipModel:
    """The model of a weights file (.safetensors, .pt or .bin).

    The architecture is the one in `open_clip_config.json` beside the file (open_clip's own hub layout) or, without
    that file, `architecture`, a name built into open_clip. An `hf_tokenizer_name` in the config means tokenizer
    files in the same folder. UserError: a file is missing or does not fit.
    """
    require_file(scorer, weights)
    local = (weights.parent / CONFIG).is_file()
    model, tokenize = build_open_clip(scorer, f"local-dir:{weights.parent}" if local else architecture)
    if (of_folder := getattr(tokenize, "tokenizer", None)) is not None:  # not open_clip's own
        with reading_model(f"{weights.parent}: the tokenizer"):
            require_tokens(of_folder, SimpleNamespace(vocab_size=model.vocab_size, model_type="open_clip"))
    load_state(scorer, weights, model, read_weights(scorer, weights))
    return OpenClipModel(model, tokenize, device)


def read_weights(scorer: str, path: Path) -> dict[str, Tensor]:
    """An open_clip state dict from a .safetensors, .pt or .bin file."""
    if path.suffix != ".safetensors":
        return load_weights(scorer, path)
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise UserError(f"{scorer}: {path}: cannot be read ({error}); fetch it again") from None


def cosine(image: Tensor, text: Tensor) -> Tensor:
    """Row-wise cosine similarity (B,) in float32 of two (B, D) embeddings."""
    return (F.normalize(image.float(), dim=-1) * F.normalize(text.float(), dim=-1)).sum(-1)
