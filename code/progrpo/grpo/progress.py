"""What an iteration reports: the line of metrics.jsonl, and the line that a person reads while it trains."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from progrpo.config import Run
from progrpo.files import to_json
from progrpo.grpo.previews import preview_agreement
from progrpo.grpo.rollout import Rollout


@dataclass
class UpdateStatistics:
    """What the micro-batches of one iteration saw, a value per (sample, step) pair, on the device until the iteration ends."""

    ratio: list[Tensor] = field(default_factory=list)
    clipped: list[Tensor] = field(default_factory=list)
    kl: list[Tensor] = field(default_factory=list)
    loss: list[Tensor] = field(default_factory=list)
    grad_norm: list[Tensor] = field(default_factory=list)  # 0-d, of updates that were made
    first_ratio_error: Tensor = field(default_factory=lambda: torch.tensor(math.nan))  # of the first update


def measure(rollout: Rollout, statistics: UpdateStatistics, gather: Callable[[Tensor], Tensor]) -> dict:
    """Numbers of one iteration over all ranks; no times, so that a resumed run writes the same lines.

    gather: a tensor of every rank, concatenated along its first axis (accelerate's).
    """

    def average(values: list[Tensor]) -> float:
        return gather(torch.cat(values).mean()[None]).mean().item()

    rewards, candidates = gather(rollout.rewards), gather(first_rewards(rollout))
    counters = gather(torch.tensor([list(vars(rollout.counters).values())], device=rewards.device)).sum(0).tolist()
    return {
        "reward_mean": rewards.mean().item(),
        "reward_std": rewards.std(1, correction=0).mean().item(),
        "candidates_mean": candidates.mean().item(),
        "candidates_std": candidates.std(1, correction=0).mean().item(),
        "zero_variance_groups": int((rewards.amax(1) == rewards.amin(1)).sum()),
        "groups": len(rewards),
        "ratio_mean": gather(torch.cat(statistics.ratio)).mean().item(),
        "first_ratio_error": statistics.first_ratio_error.item(),
        "clip_fraction": average(statistics.clipped),
        "kl": average(statistics.kl) if statistics.kl else None,
        "loss": average(statistics.loss),
        "grad_norm": torch.stack(statistics.grad_norm).mean().item() if statistics.grad_norm else None,
        "denoiser_calls": counters[0],
        "decoder_calls": counters[1],
        "reward_calls": counters[2],
        **preview_agreement(rollout, gather),
    }


def batch_arithmetic(run: Run, ranks: int, micro_batch: int) -> str:
    """What an iteration trains on, in numbers that a person can check: samples, steps, updates, and passes on each rank."""
    prompts, updates, survivors = run.prompts_per_iteration, run.updates_per_iteration, run.group.survivors
    passes = math.ceil(run.trained_pairs / (updates * ranks * micro_batch))
    return (
        f"{run.method}: {prompts} prompts x {survivors} survivors x {run.trained_steps} steps = {run.trained_pairs:,} pairs"
        f" in {updates} update{'s' * (updates > 1)} of {passes} passes of {micro_batch}"
        f" on {'each of ' * (ranks > 1)}{ranks} rank{'s' * (ranks > 1)}"
    )


def first_rewards(rollout: Rollout) -> Tensor:
    """Rewards (P, G) of all trajectories at the first selection: previews, or terminal rewards where nothing is pruned earlier."""
    return rollout.stages[0].rewards.to(rollout.rewards.device) if rollout.stages else rollout.rewards


def metrics_text(line: dict) -> str:
    """An iteration's numbers as a line of metrics.jsonl; UserError names those that are not finite."""
    bad = [name for name, value in line.items() if isinstance(value, float) and not math.isfinite(value)]
    return to_json(line, f"iteration {line['iteration']}: {', '.join(bad)}")


def progress_line(line: dict, seconds: dict, iterations: int) -> str:
    """One line for a person: reward, ratio, clipping, KL, zero-variance groups, seconds for rollout and update."""
    kl = "-" if line["kl"] is None else f"{line['kl']:.2e}"
    grad = "-" if line["grad_norm"] is None else f"{line['grad_norm']:.3f}"
    return (
        f"iteration {line['iteration']}/{iterations} reward {line['reward_mean']:.4f} std {line['reward_std']:.4f}"
        f" ratio {line['ratio_mean']:.6f} clip {line['clip_fraction']:.3f} kl {kl} grad {grad}"
        f" zero-variance {line['zero_variance_groups']}/{line['groups']}"
        f" rollout {seconds['rollout']:.1f} s update {seconds['update']:.1f} s"
    )
