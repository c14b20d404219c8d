"""The groups of an iteration's prompts: how they are pruned, and their rollout, some prompts at a time.

Shape letters: P prompts, K survivors per prompt.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from progrpo import plugins
from progrpo.config import Group
from progrpo.grpo.backbone import Backbone, Text
from progrpo.grpo.rollout import Counters, Policy, PruningPlan, Rollout, Stage, TrajectoryNoise, expand_and_prune
from progrpo.grpo.samplers import StepTable
from progrpo.rewards.base import Scorer


def plan_of(group: Group) -> PruningPlan:
    """The configured group as a plan of selections; UserError for a rule that cannot be loaded."""
    stages = tuple((stage.step, stage.keep) for stage in group.pruning)
    return PruningPlan(group.size, stages, plugins.load(group.rule, plugins.SELECTION_RULES), group.preview)


def policy_of(
    backbone: Backbone,
    table: StepTable,
    text: Text,
    guidance_scale: float,
    score: Callable[[Tensor, Tensor], Tensor],
    preview: Callable[[Tensor], Tensor] | None = None,
    one_call: bool = False,
) -> Policy:
    """A backbone that samples P prompts, whose texts are `text`, by the steps of a table; `score` and `preview` as `Policy` has them.

    one_call: both branches of guidance in one model call.
    """

    def predict(x: Tensor, step: int, prompt: Tensor) -> Tensor:
        return backbone.predict(x, table.timesteps[step], text.rows(prompt), guidance_scale, one_call=one_call)

    return Policy(predict, backbone.decode, score, preview)


def scoring(scorer: Scorer, prompts: list[str]) -> Callable[[Tensor, Tensor], Tensor]:
    """`Policy.score` of a scorer and P prompts: rewards (B,) of images (B, 3, H, W), each of the prompt of its index (B,)."""
    return lambda images, prompt: scorer.score(images, [prompts[k] for k in prompt.tolist()])


@dataclass(frozen=True)
class Cut:
    """How the work of a rollout is cut, which decides no number beyond rounding.

    batch: rows of a denoiser call; decode_batch: rows of a decoder call, as many when None; prompts: whose groups are sampled at a
    time, all when None; host: keep the survivors' states in the host's memory.
    """

    batch: int
    decode_batch: int | None = None
    prompts: int | None = None
    host: bool = False


def roll_out(
    policy: Policy, table: StepTable, plan: PruningPlan, noise: TrajectoryNoise, cut: Cut, check_previews: bool = False
) -> Rollout:
    """`expand_and_prune` for all prompts of `noise`, some at a time: only their survivors' states stay beside those of a part."""
    count, whole = len(noise.prompts), None
    at_once, keep = cut.prompts or count, plan.stages[-1][1] if plan.stages else plan.size
    parts: list[Rollout] = []
    for first in range(0, count, at_once):
        of_part = _shifted(policy, first), table, plan, noise.of(slice(first, first + at_once))
        part = expand_and_prune(*of_part, cut.batch, cut.decode_batch, check_previews)
        if at_once < count or cut.host:
            if whole is None:
                device = torch.device("cpu") if cut.host else part.states.device
                whole = torch.empty(count * keep, *part.states.shape[1:], device=device)
            rows = slice(first * keep, first * keep + len(part.states))
            whole[rows] = part.states
            part.states = whole[rows]  # the part's own memory is free for the next one
        parts.append(part)
    return parts[0] if whole is None else _joined(parts, whole)


def _shifted(policy: Policy, first: int) -> Policy:
    """The policy of a part whose prompt 0 is number `first`."""
    if first == 0:
        return policy
    return replace(
        policy,
        predict=lambda x, step, prompt: policy.predict(x, step, prompt + first),
        score=lambda images, prompt: policy.score(images, prompt + first),
    )


def _joined(parts: list[Rollout], states: Tensor) -> Rollout:
    """The rollouts of consecutive prompts as one."""
    seconds = {name: sum(part.seconds[name] for part in parts) for name in parts[0].seconds}
    counters = [vars(part.counters) for part in parts]
    return Rollout(
        states=states,
        log_probs=torch.cat([part.log_probs for part in parts]),
        rewards=torch.cat([part.rewards for part in parts]),
        trajectories=torch.cat([part.trajectories for part in parts]),
        stages=[_joined_stage(stages) for stages in zip(*(part.stages for part in parts), strict=True)],
        counters=Counters(**{name: sum(counter[name] for counter in counters) for name in counters[0]}),
        seconds=seconds,
    )


def _joined_stage(stages: tuple[Stage, ...]) -> Stage:
    plain = [stage.plain for stage in stages if stage.plain is not None]
    return Stage(
        stages[0].step,
        torch.cat([stage.rewards for stage in stages]),
        torch.cat([stage.kept for stage in stages]),
        torch.cat(plain) if plain else None,
    )
