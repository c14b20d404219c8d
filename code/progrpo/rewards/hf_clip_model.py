"""transformers' CLIPModel from a folder in the Hugging Face layout, and its unnormalised embeddings."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from progrpo.model_files import open_network, open_tokenizer
from progrpo.rewards.base import freeze, require_file, unique_prompts


class HFClipModel:
    """A CLIPModel, frozen on its device, and its tokenizer (None where no text is read)."""

    def __init__(self, model: Any, tokenizer, device: torch.device):
        self.model, self.tokenizer = freeze(model, device), tokenizer
        self.image_size = model.config.vision_config.image_size
        self.context = min(77, model.config.text_config.max_position_embeddings)

    def image_features(self, pixels: Tensor) -> Tensor:
        """Unnormalised image embeddings (B, D) of pixels (B, 3, S, S)."""
        return self.model.get_image_features(pixel_values=pixels).pooler_output

    def text_features(self, prompts: list[str]) -> Tensor:
        """Unnormalised text embeddings (B, D); a prompt that occurs several times is encoded once."""
        distinct, index = unique_prompts(prompts)
        tokens = self.tokenizer(
            distinct, padding=True, truncation=True, max_length=self.context, return_tensors="pt"
        ).to(self.model.device)
        features = self.model.get_text_features(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
        ).pooler_output
        return features[index.to(features.device)]


def load_hf_clip(
    scorer: str, folder: Path, device: torch.device, tokenizer: Path | None = None, with_text: bool = True
) -> HFClipModel:
    """The model of a folder in the Hugging Face layout and its tokenizer, from `tokenizer` or the same folder.

    UserError: a file is missing or does not fit.
    """
    from transformers import CLIPModel

    require_file(scorer, folder / "config.json")
    model = open_network(CLIPModel, folder)
    return HFClipModel(model, open_tokenizer(tokenizer or folder, model) if with_text else None, device)
