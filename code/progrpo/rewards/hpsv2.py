"""Human Preference Score v2.1 (Wu et al., arXiv 2306.09341; public code tgxs002/HPSv2) on open_clip."""

from pathlib import Path

import torch
from torch import Tensor

from progrpo.plugins import SCORER_FILES
from progrpo.rewards.base import BatchedScorer
from progrpo.rewards.open_clip_model import VIT_H, OpenClipModel, cosine, load_open_clip
from progrpo.rewards.preprocess import MODES, check_mode, clip_pixels

(WEIGHTS,) = SCORER_FILES["hpsv2"]


class HPSv2(BatchedScorer):
    """The cosine of image and prompt, about 0.15 to 0.40; hpsv2's README and `evaluate` print 100 times that.

    preprocess: "pil" resizes 8-bit images, as stock open_clip does, and "device" likewise without the host; "tensor_aa" and
    "tensor_noaa" resize the float tensor, as HPSv2's own fork does with torchvision from 0.17 and before (scores of large
    images differ; state the mode with every result).
    """

    files = (WEIGHTS,)

    def __init__(
        self,
        clip: OpenClipModel,
        device: torch.device | str,
        precision: str = "fp32",
        batch_size: int = 16,
        *,
        preprocess: str = "pil",
    ):
        super().__init__("hpsv2", device, precision, batch_size)
        self.clip, self.preprocess = clip, check_mode(self.name, preprocess, MODES)

    @classmethod
    def load(
        cls,
        path: Path,
        device: torch.device | str,
        *,
        preprocess: str = "pil",
        architecture: str | None = None,
        **common,
    ) -> "HPSv2":
        """From a folder with HPS_v2.1_compressed.pt.

        Another size than ViT-H-14 is named by `architecture`, one of open_clip's, or by an open_clip_config.json beside the file.
        """
        clip = load_open_clip("hpsv2", path / WEIGHTS, architecture or VIT_H, torch.device(device))
        return cls(clip, device, preprocess=preprocess, **common)

    def score_batch(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Cosines (b,) of images (b, 3, H, W) and prompts."""
        pixels = clip_pixels(images.to(self.device), self.clip.image_size, self.preprocess)
        with self.autocast():
            image, text = self.clip.image_features(pixels), self.clip.text_features(prompts)
        return cosine(image, text)
