"""From sections of the configuration to loaded parts: prompts and scorers."""

import torch

from progrpo.benchmarks.prompt_sets import PromptRecord, load_prompts
from progrpo.config import PromptSet, Scorer
from progrpo.rewards import base
from progrpo.rewards.registry import load_scorer


def prompts_of(section: PromptSet) -> list[PromptRecord]:
    """The prompts of a prompt set, limited and made distinct as configured."""
    return load_prompts(section.path, section.limit, distinct=section.distinct, limit_per_style=section.limit_per_style)


def scorer_of(section: Scorer, device: torch.device) -> base.Scorer:
    """The configured scorer on a device."""
    return load_scorer(section.kind, section.path, device, section.precision, section.batch_size, **section.options)
