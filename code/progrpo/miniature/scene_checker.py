"""The miniature world's exact checker as a scorer: what the pixels show against what the prompt asks for."""

from pathlib import Path

import torch
from torch import Tensor

from progrpo.errors import UserError
from progrpo.miniature import checker
from progrpo.miniature.prompts import records_by_prompt
from progrpo.miniature.scenes import SIZE
from progrpo.rewards.base import BatchedScorer

MODES = {"soft": checker.soft, "strict": checker.strict}


class SceneChecker(BatchedScorer):
    """Scores in [0, 1] of miniature images (B, 3, 24, 24): "soft" is continuous in the pixels, "strict" is 0 or 1."""

    def __init__(
        self,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        batch_size: int = 64,
        *,
        mode: str = "soft",
    ):
        super().__init__("scene_checker", device, precision, batch_size)
        if mode not in MODES:
            raise UserError(f"{self.name}: mode {mode!r} is unknown; use one of {', '.join(MODES)}")
        self.mode = mode

    @classmethod
    def load(cls, path: Path | None, device: torch.device | str, *, mode: str = "soft", **common) -> "SceneChecker":
        """Without weights; `path` is not read."""
        return cls(device, mode=mode, **common)

    def score_batch(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores (b,) of images (b, 3, 24, 24); UserError: another size, or a prompt outside the miniature world."""
        if images.shape[-2:] != (SIZE, SIZE):
            raise UserError(
                f"{self.name}: images are {tuple(images.shape[-2:])}; it reads {SIZE} x {SIZE} miniature images"
            )
        records = records_by_prompt()
        for prompt in prompts:
            if prompt not in records:
                raise UserError(f"{self.name}: {prompt!r} is no prompt of the miniature world")
        return MODES[self.mode](images.to(self.device), [records[prompt] for prompt in prompts])
