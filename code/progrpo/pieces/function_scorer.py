"""A function as a scorer."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from progrpo.rewards.base import BatchedScorer

RewardFunction = Callable[[Tensor, list[str]], Tensor | Sequence[float]]


class FunctionScorer(BatchedScorer):
    """Scores by reward(images (b, 3, H, W) in [0, 1], b prompts) -> b numbers, and checks them as those of every scorer."""

    def __init__(self, reward: RewardFunction, device: torch.device | str, batch_size: int = 16):
        super().__init__(getattr(reward, "__name__", type(reward).__name__), device, batch_size=batch_size)
        self.reward = reward

    def score_batch(self, images: Tensor, prompts: list[str]) -> Any:
        """What the function returns; `score` checks it."""
        return self.reward(images, prompts)
