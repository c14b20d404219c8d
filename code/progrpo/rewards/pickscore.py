"""PickScore v1 (Kirstain et al., arXiv 2305.01569; public code yuvalkirstain/PickScore) on transformers' CLIPModel."""

from pathlib import Path

import torch
from torch import Tensor

from progrpo.plugins import SCORER_FILES
from progrpo.rewards.base import BatchedScorer
from progrpo.rewards.hf_clip_model import HFClipModel, load_hf_clip
from progrpo.rewards.open_clip_model import cosine
from progrpo.rewards.preprocess import check_mode, clip_pixels


class PickScore(BatchedScorer):
    """exp(logit_scale) times the cosine of image and prompt, typically 18 to 25.

    scale multiplies it: 1 for the reported metric, 1/26 for Flow-GRPO's reward (flow_grpo/pickscore_scorer.py).
    preprocess: "pil", or "device" without the host. tokenizer: a folder with the tokenizer of
    laion/CLIP-ViT-H-14-laion2B-s32B-b79K when the model's folder has none.
    """

    files = SCORER_FILES["pickscore"]

    def __init__(
        self,
        clip: HFClipModel,
        device: torch.device | str,
        precision: str = "fp32",
        batch_size: int = 16,
        *,
        scale: float = 1.0,
        preprocess: str = "pil",
    ):
        super().__init__("pickscore", device, precision, batch_size)
        self.clip, self.scale, self.preprocess = clip, scale, check_mode(self.name, preprocess)

    @classmethod
    def load(
        cls,
        path: Path,
        device: torch.device | str,
        *,
        scale: float = 1.0,
        preprocess: str = "pil",
        tokenizer: str | None = None,
        **common,
    ) -> "PickScore":
        """From the folder of yuvalkirstain/PickScore_v1."""
        clip = load_hf_clip("pickscore", path, torch.device(device), Path(tokenizer) if tokenizer else None)
        return cls(clip, device, scale=scale, preprocess=preprocess, **common)

    def score_batch(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scaled scores (b,) of images (b, 3, H, W) and prompts."""
        pixels = clip_pixels(images.to(self.device), self.clip.image_size, self.preprocess, rounding="floor")
        with self.autocast():
            image, text = self.clip.image_features(pixels), self.clip.text_features(prompts)
        return self.scale * self.clip.model.logit_scale.exp() * cosine(image, text)
