"""Expand and prune with a pipeline that is loaded already, outside of any training.

Shape letters: P prompts, K survivors per prompt, H x W pixels.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from progrpo.config import Group, Model, Sampling, require_prunable
from progrpo.devices import DTYPES
from progrpo.errors import UserError
from progrpo.grpo.backbone import FAMILIES, Backbone
from progrpo.grpo.groups import plan_of, policy_of, scoring
from progrpo.grpo.rollout import Stage, TrajectoryNoise, expand_and_prune, in_batches
from progrpo.grpo.schedules import require_schedule
from progrpo.pieces.function_scorer import FunctionScorer, RewardFunction

FORBIDDEN = re.compile(r"^-|[\x00-\x1f\x7f{}<>]")  # in a path of a configuration, but not in a folder's name
T5_TOKENS = 128  # as Flow-GRPO trains SD3.5-M


@dataclass(frozen=True)
class PrunedGroups:
    """The survivors of P prompts: images (P, K, 3, H, W) in [0, 1], terminal rewards (P, K), their numbers (P, K) among the
    trajectories started, and the stages: the step, the rewards, and who was kept, of each selection.
    """

    images: Tensor
    rewards: Tensor
    trajectories: Tensor
    stages: list[Stage]


def sample_pruned(
    pipeline: DiffusionPipeline,
    prompts: list[str],
    reward: RewardFunction,
    group: Group,
    sampling: Sampling,
    seed: int = 0,
    batch: int = 8,
) -> PrunedGroups:
    """Sample a group of trajectories for each of P prompts and prune it on the rewards of its one-step previews; paper, section 4.3.

    reward(images (b, 3, H, W) in [0, 1], b prompts) gives b numbers, for at most `batch` images, as many as a model call has rows.
    The pipeline is used as `taken_apart` says. UserError: a pipeline of another kind, no list of prompts, another seed than a run's,
    a pruning step that no run may have, a reward that is no finite number.
    """
    seed = require_prompts_and_seed(prompts, seed)
    try:
        require_prunable(group, sampling)
    except ValueError as error:
        raise UserError(str(error)) from error
    with taken_apart(pipeline) as backbone:
        table, text = backbone.table(sampling), backbone.encode(prompts)
        score = scoring(FunctionScorer(reward, backbone.device, batch), prompts)
        policy = policy_of(backbone, table, text, sampling.guidance_scale, score)
        positions = list(range(len(prompts)))
        noise = TrajectoryNoise(seed, 0, positions, backbone.latent_shape, sampling.shared_initial_noise)
        rollout = expand_and_prune(policy, table, plan_of(group), noise, batch)
        final = in_batches(batch, rollout.states[:, -1])
        images = torch.cat([backbone.decode(x)[: rows.stop - rows.start] for rows, (x,) in final])
    images = images.unflatten(0, tuple(rollout.rewards.shape))
    return PrunedGroups(images, rollout.rewards, rollout.trajectories, rollout.stages)


def require_prompts_and_seed(prompts: list[str], seed: int) -> int:
    """The seed as an int; UserError for prompts that are no list of at least one text, or a seed that is no whole number of
    0..2^32 - 1, as a run's is."""
    texts = isinstance(prompts, list | tuple) and all(isinstance(prompt, str) for prompt in prompts)
    if not texts or not prompts:
        raise UserError(f"prompts: give a list of at least one text, not {repr(prompts)[:60]}")
    if not isinstance(seed, Integral) or not 0 <= seed < 2**32:
        raise UserError(f"seed {seed}: must be a whole number between 0 and {2**32 - 1}")
    return int(seed)


@contextmanager
def taken_apart(pipeline: DiffusionPipeline) -> Iterator[Backbone]:
    """`backbone_of` a pipeline while entered; afterwards its decoder has its own precision again: the pipeline can be called."""
    precision = getattr(getattr(pipeline, "vae", None), "dtype", None)
    try:
        yield backbone_of(pipeline)
    finally:
        if precision is not None:
            pipeline.vae.to(precision)


def backbone_of(pipeline: DiffusionPipeline) -> Backbone:
    """A loaded Stable Diffusion 1 or 3 pipeline taken apart, on its device, in its denoiser's precision and resolution.

    Its networks are frozen in place, and its decoder becomes float32. UserError for a pipeline of another kind,
    or one whose schedule the sampler does not know.
    """
    family = next((name for name, (_, kind) in FAMILIES.items() if isinstance(pipeline, kind)), None)
    if family is None:
        known = " or ".join(kind.__name__ for _, kind in FAMILIES.values())
        raise UserError(f"{type(pipeline).__name__}: not supported; load a {known}")
    path = str(getattr(pipeline, "name_or_path", None) or "pipeline")
    require_schedule(pipeline.scheduler, family, Path(path))
    backbone_class = FAMILIES[family][0]
    denoiser = getattr(pipeline, backbone_class.denoiser_name)
    precisions = {dtype: name for name, dtype in DTYPES.items()}
    if denoiser.dtype not in precisions:
        raise UserError(
            f"the pipeline's {backbone_class.denoiser_name} is {denoiser.dtype}; use one of {', '.join(DTYPES)}"
        )
    if not isinstance(denoiser.config.sample_size, int):
        raise UserError(f"the pipeline's {backbone_class.denoiser_name} makes no square images; load one that does")
    t5 = getattr(pipeline, "tokenizer_3", None)
    settings = {
        "family": family,
        "path": FORBIDDEN.sub("_", path),  # for messages and to be known again
        "resolution": denoiser.config.sample_size * pipeline.vae_scale_factor,
        "precision": precisions[denoiser.dtype],
        "max_sequence_length": min(T5_TOKENS, t5.model_max_length) if t5 else T5_TOKENS,
    }
    return backbone_class(pipeline, Model.model_validate(settings), pipeline.device)
