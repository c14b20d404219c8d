"""Scorers: images in [0, 1] and prompts to float32 scores."""

from progrpo.rewards.base import Scorer
from progrpo.rewards.registry import WeightedSum, load_scorer

__all__ = ["Scorer", "WeightedSum", "load_scorer"]
