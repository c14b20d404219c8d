"""Scorers: images in [0, 1] and prompts to float32 scores."""

from progrpo.rewards.base import Scorer
from progrpo.rewards.registry import KINDS, WeightedSum, load_scorer

__all__ = ["KINDS", "Scorer", "WeightedSum", "load_scorer"]
