"""From sections of the configuration to loaded parts: prompts and scorers."""

import torch

from progrpo.benchmarks.prompt_sets import PromptRecord, load_prompts
from progrpo.config import Config, PromptSet, Scorer
from progrpo.errors import UserError
from progrpo.rewards import base
from progrpo.rewards.registry import load_scorer


def prompts_of(section: PromptSet) -> list[PromptRecord]:
    """The prompts of a prompt set, limited and made distinct as configured."""
    return load_prompts(section.path, section.limit, distinct=section.distinct, limit_per_style=section.limit_per_style)


def scorer_of(section: Scorer, device: torch.device) -> base.Scorer:
    """The configured scorer on a device."""
    return load_scorer(section.kind, section.path, device, section.precision, section.batch_size, **section.options)


def require_sets(config: Config, sets: list[str]) -> None:
    """UserError for a name that is no evaluation of the tier."""
    for name in sets:
        if name not in config.evaluations:
            raise UserError(
                f"--prompts {name}: not an evaluation of tier {config.tier}; known: {', '.join(config.evaluations)}"
            )
