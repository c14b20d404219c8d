"""The LAION aesthetic predictor (public code christophschuhmann/improved-aesthetic-predictor) on transformers' CLIP."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progrpo.errors import UserError
from progrpo.plugins import SCORER_FILES
from progrpo.rewards.base import BatchedScorer, freeze, load_weights
from progrpo.rewards.hf_clip_model import HFClipModel, load_hf_clip
from progrpo.rewards.linear_head import load_linear_head
from progrpo.rewards.preprocess import check_mode, clip_pixels

(HEAD,) = SCORER_FILES["aesthetic"]


class Aesthetic(BatchedScorer):
    """An affine map of the normalised CLIP L/14 image embedding, nominally 1 to 10, about 4 to 7 for generated images.

    The folder holds openai/clip-vit-large-patch14 and the head's file. The prompts are not used.
    """

    files = (HEAD,)

    def __init__(
        self,
        clip: HFClipModel,
        head: nn.Module,
        device: torch.device | str,
        precision: str = "fp32",
        batch_size: int = 16,
        *,
        preprocess: str = "pil",
    ):
        super().__init__("aesthetic", device, precision, batch_size)
        self.preprocess = check_mode(self.name, preprocess)
        self.clip, self.head = clip, freeze(head, self.device)

    @classmethod
    def load(
        cls, path: Path, device: torch.device | str, *, head: str | None = None, preprocess: str = "pil", **common
    ) -> "Aesthetic":
        """From the folder of openai/clip-vit-large-patch14 and the head's file, by default in the same folder."""
        clip = load_hf_clip("aesthetic", path, torch.device(device), with_text=False)
        assert_quick_gelu(clip.model, path)
        file = Path(head) if head else path / HEAD
        layers = load_linear_head("aesthetic", file, load_weights("aesthetic", file))
        features, width = layers[0].in_features, clip.model.config.projection_dim
        if features != width:
            raise UserError(f"aesthetic: {file} reads {features} features, the CLIP model in {path} gives {width}")
        return cls(clip, layers, device, preprocess=preprocess, **common)

    def score_batch(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores (b,) of images (b, 3, H, W)."""
        pixels = clip_pixels(images.to(self.device), self.clip.image_size, self.preprocess, rounding="floor")
        with self.autocast():
            embedding = self.clip.image_features(pixels)
        return self.head(F.normalize(embedding.float(), dim=-1))[:, 0]


def assert_quick_gelu(model: Any, path: Path) -> None:
    """UserError unless the vision tower computes x * sigmoid(1.702 x): plain GELU loads silently and scores wrongly."""
    probe = torch.linspace(-3, 3, 7, device=model.device)
    for layer in model.vision_model.encoder.layers:
        if not torch.allclose(layer.mlp.activation_fn(probe), probe * torch.sigmoid(1.702 * probe)):
            raise UserError(
                f"aesthetic: {path}: the vision tower's activation is {model.config.vision_config.hidden_act!r}, but"
                " OpenAI's CLIP L/14 has 'quick_gelu'; use openai/clip-vit-large-patch14"
            )
