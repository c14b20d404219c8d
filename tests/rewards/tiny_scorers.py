"""Small random-weight CLIP folders in the official layout, and helpers that several tests share."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor

from progrpo.miniature.text import clip_tokenizer

PROMPTS = ["a red circle", "two blue squares", "a red circle", "a green triangle left of a blue square"]
TINY_OPEN_CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


def spread(model: torch.nn.Module) -> torch.nn.Module:
    """The model with larger random weights, so that scores differ between images and prompts."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1.5 * parameter[0].numel() ** -0.5)
    return model.eval()


def to_tensor(pil: list[Image.Image]) -> torch.Tensor:
    """Images (B, 3, H, W) in [0, 1]."""
    return torch.stack([torch.tensor(np.asarray(image)).permute(2, 0, 1).float() / 255 for image in pil])


def make_clip_folder(folder: Path, activation: str = "gelu") -> Path:
    """A CLIPModel of two layers for 32-pixel images with its processor."""
    tokenizer = clip_tokenizer()
    tower = dict(
        hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, hidden_act=activation
    )
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    text = dict(tower, vocab_size=len(tokenizer), max_position_embeddings=12, **special)
    config = CLIPConfig(text_config=text, vision_config=dict(tower, image_size=32, patch_size=8), projection_dim=16)
    spread(CLIPModel(config)).save_pretrained(folder)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(image_processor=processor, tokenizer=tokenizer).save_pretrained(folder)
    return folder
