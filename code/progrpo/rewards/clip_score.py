"""CLIP score: the cosine of CLIP's image and text embeddings (second objective of the paper's SD-v1.4 runs)."""

from pathlib import Path

import torch
from torch import Tensor

from progrpo.errors import UserError
from progrpo.plugins import SCORER_FILES
from progrpo.rewards.base import BatchedScorer
from progrpo.rewards.hf_clip_model import HFClipModel, load_hf_clip
from progrpo.rewards.open_clip_model import VIT_H, OpenClipModel, cosine, load_open_clip
from progrpo.rewards.preprocess import check_mode, clip_pixels

HF_WEIGHTS = (
    *SCORER_FILES["clip_score"],
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class ClipScore(BatchedScorer):
    """The raw cosine, neither scaled nor clipped at 0.

    The paper does not name its CLIP. Its baseline DanceGRPO scores with an open_clip ViT-H-14, so the default is
    laion/CLIP-ViT-H-14-laion2B-s32B-b79K. That hub folder holds the model twice. A folder with Hugging Face weights is
    read with transformers (OpenAI's models included, whose config says quick_gelu); else its open_clip file is read
    with open_clip, where only `open_clip_config.json` or `architecture` decides the activation (name
    ViT-L-14-quickgelu for OpenAI's weights).
    """

    files = SCORER_FILES["clip_score"]

    def __init__(
        self,
        clip: HFClipModel | OpenClipModel,
        device: torch.device | str,
        precision: str = "fp32",
        batch_size: int = 16,
        *,
        preprocess: str = "pil",
    ):
        super().__init__("clip_score", device, precision, batch_size)
        self.preprocess = check_mode(self.name, preprocess)
        self.clip = clip
        self.rounding = "floor" if isinstance(clip, HFClipModel) else "round"

    @classmethod
    def load(
        cls, path: Path, device: torch.device | str, *, architecture: str = VIT_H, preprocess: str = "pil", **common
    ) -> "ClipScore":
        """From a folder in the Hugging Face layout or, without its weights, in open_clip's."""
        if any((path / name).is_file() for name in HF_WEIGHTS):
            return cls(load_hf_clip("clip_score", path, torch.device(device)), device, preprocess=preprocess, **common)
        for name in OPEN_CLIP_WEIGHTS:
            if (path / name).is_file():
                clip = load_open_clip("clip_score", path / name, architecture, torch.device(device))
                return cls(clip, device, preprocess=preprocess, **common)
        raise UserError(
            f"clip_score: {path}: neither model.safetensors nor {' nor '.join(OPEN_CLIP_WEIGHTS)} there; fetch the"
            " weights (progrpo fetch) or set the scorer's `path`"
        )

    def score_batch(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Cosines (b,) of images (b, 3, H, W) and prompts."""
        pixels = clip_pixels(images.to(self.device), self.clip.image_size, self.preprocess, rounding=self.rounding)
        with self.autocast():
            image, text = self.clip.image_features(pixels), self.clip.text_features(prompts)
        return cosine(image, text)
