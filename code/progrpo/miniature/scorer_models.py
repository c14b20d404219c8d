"""Untrained CLIP miniatures of scorers, in the architecture and, when saved, the layout of each real one."""

import json
import logging
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
)

from progrpo.miniature.scenes import CELL, SIZE
from progrpo.miniature.text import CLIP_TOKENS, clip_tokenizer
from progrpo.rewards.aesthetic import HEAD
from progrpo.rewards.hpsv2 import WEIGHTS as HPS_WEIGHTS
from progrpo.rewards.linear_head import linear_head
from progrpo.rewards.open_clip_model import CONFIG as OPEN_CLIP_CONFIG

WIDTH, LAYERS, HEADS = 64, 3, 4  # of a vision tower; one patch is one grid cell
TEXT_WIDTH, TEXT_LAYERS = 64, 2
EMBEDDING = 96
SCALE = 20.0  # initial exp(logit_scale)


class DualEncoder(nn.Module):
    """Two towers that meet in a cosine; a sub-class defines `image`, `text`, `text_parameters`, `scale` and `save`."""

    image: Callable[[Tensor], Tensor]
    text: Callable[[Tensor], Tensor]
    scale: Callable[[], Tensor]

    def __init__(self):
        super().__init__()
        self.tokenizer = clip_tokenizer()

    def tokens(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (P, 10)."""
        return self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=CLIP_TOKENS, return_tensors="pt"
        ).input_ids

    def scores(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (P, K), image embeddings (P K, D) and text embeddings (P, D) of pixels and tokens.

        pixels: (P, K, 3, S, S), K images for each of P prompts; tokens: (P, T).
        """
        image, text = self.image(pixels.flatten(0, 1)), self.text(tokens)
        cosine = F.normalize(image, dim=-1).view(*pixels.shape[:2], -1) @ F.normalize(text, dim=-1)[..., None]
        return self.scale() * cosine[..., 0], image, text


class HFClip(DualEncoder):
    """transformers' CLIPModel: PickScore and CLIP score (GELU), the tower of the aesthetic predictor (quick GELU)."""

    def __init__(self, activation: str = "gelu", text_width: int = TEXT_WIDTH, text_layers: int = TEXT_LAYERS):
        super().__init__()
        text = dict(
            hidden_size=text_width,
            intermediate_size=4 * text_width,
            num_hidden_layers=text_layers,
            num_attention_heads=HEADS,
            hidden_act=activation,
            vocab_size=len(self.tokenizer),
            max_position_embeddings=CLIP_TOKENS,
            bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        vision = dict(
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            hidden_act=activation,
            image_size=SIZE,
            patch_size=CELL,
        )
        self.clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=EMBEDDING))
        initialise(self.clip)
        self.clip.logit_scale.data.fill_(math.log(SCALE))

    def image(self, pixels: Tensor) -> Tensor:
        """Unnormalised embeddings (B, D)."""
        return self.clip.get_image_features(pixel_values=pixels).pooler_output

    def text(self, tokens: Tensor) -> Tensor:
        """Unnormalised embeddings (P, D)."""
        return self.clip.get_text_features(input_ids=tokens).pooler_output

    def text_parameters(self) -> list[nn.Parameter]:
        """Of the text tower."""
        return [*self.clip.text_model.parameters(), *self.clip.text_projection.parameters()]

    def scale(self) -> Tensor:
        """exp(logit_scale)."""
        return self.clip.logit_scale.exp()

    def save(self, folder: Path) -> None:
        """The Hugging Face layout in float16: config, weights, image processor and tokenizer."""
        self.clip.half().save_pretrained(folder)
        size = {"height": SIZE, "width": SIZE}
        processor = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=size)
        CLIPProcessor(image_processor=processor, tokenizer=self.tokenizer).save_pretrained(folder)


class AestheticClip(HFClip):
    """The aesthetic predictor: a quick-GELU CLIPModel (its text tower unused) and a linear head on its images."""

    def __init__(self):
        super().__init__("quick_gelu", text_width=16, text_layers=1)
        self.head = linear_head((EMBEDDING, 64, 32, 16, 8, 1))

    def ratings(self, pixels: Tensor) -> Tensor:
        """Ratings (B,) of pixels (B, 3, S, S)."""
        return self.head(F.normalize(self.image(pixels), dim=-1))[:, 0]

    def save(self, folder: Path) -> None:
        """The CLIP folder and the head's .pth, in float16."""
        super().save(folder)
        state = {f"layers.{key}": value for key, value in self.head.half().state_dict().items()}
        torch.save(state, folder / HEAD)


class OpenClip(DualEncoder):
    """open_clip's CLIP: HPS-v2.1."""

    CONFIG = {
        "embed_dim": EMBEDDING,
        "vision_cfg": {
            "image_size": SIZE,
            "patch_size": CELL,
            "layers": LAYERS,
            "width": WIDTH,
            "head_width": WIDTH // HEADS,
        },
        "text_cfg": {
            "context_length": CLIP_TOKENS,
            "width": TEXT_WIDTH,
            "heads": HEADS,
            "layers": TEXT_LAYERS,
            "hf_tokenizer_name": "tokenizer files in this folder",
        },
    }

    def __init__(self):
        import open_clip

        super().__init__()
        text = self.CONFIG["text_cfg"] | {"vocab_size": len(self.tokenizer)}
        self.config = {"model_cfg": self.CONFIG | {"text_cfg": text}, "preprocess_cfg": {}}
        quiet = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)  # open_clip warns that there are no weights yet
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, OPEN_CLIP_CONFIG).write_text(json.dumps(self.config))
            self.clip = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        logging.getLogger().setLevel(quiet)
        initialise(self.clip)
        self.clip.logit_scale.data.fill_(math.log(SCALE))

    def image(self, pixels: Tensor) -> Tensor:
        """Unnormalised embeddings (B, D)."""
        return self.clip.encode_image(pixels)

    def text(self, tokens: Tensor) -> Tensor:
        """Unnormalised embeddings (P, D)."""
        return self.clip.encode_text(tokens)

    def text_parameters(self) -> list[nn.Parameter]:
        """Of the text tower."""
        return [p for name, p in self.clip.named_parameters() if not name.startswith(("visual.", "logit_scale"))]

    def scale(self) -> Tensor:
        """exp(logit_scale)."""
        return self.clip.logit_scale.exp()

    def save(self, folder: Path) -> None:
        """HPS_v2.1_compressed.pt in float16, open_clip_config.json and the tokenizer."""
        torch.save({"state_dict": self.clip.half().state_dict()}, folder / HPS_WEIGHTS)
        (folder / OPEN_CLIP_CONFIG).write_text(json.dumps(self.config, indent=1))
        self.tokenizer.save_pretrained(folder)


def initialise(module: nn.Module) -> None:
    """Fan-in scaled weights: the towers' own initialisation is meant for widths of a thousand, slow at 64."""
    for name, parameter in module.named_parameters():
        if parameter.ndim == 4:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        elif "embedding" in name or "pos_embed" in name:
            nn.init.normal_(parameter, std=0.5)
        elif parameter.ndim == 2:
            nn.init.xavier_uniform_(parameter)


def save_folder(model: Any, folder: Path) -> None:
    """Save a model by its `save` into a temporary folder that then takes the place of `folder`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        fresh, old = Path(temporary, "new"), Path(temporary, "old")
        fresh.mkdir()
        model.save(fresh)
        for file in fresh.iterdir():
            file.chmod(0o644)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
