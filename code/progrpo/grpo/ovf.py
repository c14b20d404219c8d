"""Which trajectories of a group survive: Optimal Variance Filtering and the rules it is compared with.

A rule takes the rewards (P, N) of N trajectories for each of P prompts, how many to keep, and P seeds for one
that draws; it returns the survivors' indices (P, keep), ascending in each row. `plugins.SELECTION_RULES` names
them. Rewards are few, so the work is done in float64 on the CPU: the same
survivors on every device.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SelectionRule = Callable[[Tensor, int, Sequence[int]], Tensor]

# Variances of rewards scaled to range 1 that differ by less are equal: the rounding of the prefix sums stays
# below it.
EQUAL_VARIANCE = 1e-12


def check_finite(rewards: Tensor) -> None:
    """ValueError that names the (prompt, trajectory) entries of rewards (P, N) that are NaN or infinite."""
    bad = torch.nonzero(~torch.isfinite(rewards)).tolist()
    if bad:
        named = ", ".join(f"({prompt}, {trajectory})" for prompt, trajectory in bad[:8])
        more = f" and {len(bad) - 8} more" if len(bad) > 8 else ""
        raise ValueError(f"non-finite rewards at (prompt, trajectory) {named}{more}")


def _checked(rewards: Tensor, keep: int) -> Tensor:
    if rewards.ndim != 2:
        raise ValueError(f"rewards must have the shape (prompts, trajectories), not {tuple(rewards.shape)}")
    if not 1 <= keep <= rewards.shape[1]:
        raise ValueError(f"keep must lie in 1..{rewards.shape[1]} (the trajectories of a prompt), not {keep}")
    check_finite(rewards)
    return rewards.detach().to("cpu", torch.float64)


def optimal_variance_filter(rewards: Tensor, keep: int, seeds: Sequence[int] = ()) -> Tensor:
    """The `keep` trajectories of each prompt whose rewards vary most; (P, N) -> LongTensor (P, keep).

    Some subset of largest variance consists of the a lowest and keep - a highest rewards (PODS, arXiv
    2504.13818, theorem 1), so scanning a = 0..keep with prefix sums is exact, in O(N log N) per prompt.

    Ties: equal rewards are ordered by index, and of equal variances the smallest a wins; variances equal up
    to rounding (1e-12 of the squared range) count as equal, so that neither an added constant nor a factor
    changes the answer. In particular a group of equal rewards keeps its last `keep` trajectories, and
    keep = 1 the highest reward. ValueError for keep outside 1..N or rewards that are not finite. Paper, section 4.2.
    """
    values = _checked(rewards, keep)
    count = values.shape[1]
    values, order = torch.sort(values, dim=1, stable=True)
    # Centring and scaling first: the difference of squares below would cancel for rewards with a large
    # offset. The middle of the range, unlike the mean, is exact for equal rewards.
    low, high = values[:, :1] / 2, values[:, -1:] / 2  # halved, so that no difference overflows
    values = (values / 2 - (low / 2 + high / 2)) / torch.where(high > low, high - low, 1)

    lowest = torch.arange(keep + 1)  # a, how many of the lowest are kept
    first_high = count - keep + lowest  # where the keep - a highest begin
    totals, squares = _prefix_sums(values), _prefix_sums(values**2)
    total = totals[:, lowest] + totals[:, -1:] - totals[:, first_high]
    square = squares[:, lowest] + squares[:, -1:] - squares[:, first_high]
    variance = square / keep - (total / keep) ** 2  # (P, keep + 1)
    best = variance >= variance.amax(dim=1, keepdim=True) - EQUAL_VARIANCE
    split = best.to(torch.uint8).argmax(dim=1, keepdim=True)  # (P, 1): the first True

    position = torch.arange(count)
    kept = (position < split) | (position >= count - keep + split)
    return order[kept].view(-1, keep).sort(dim=1).values.to(rewards.device)


def _prefix_sums(values: Tensor) -> Tensor:
    return torch.nn.functional.pad(values.cumsum(dim=1), (1, 0))  # (P, N + 1), beginning with 0


def best_of_n(rewards: Tensor, keep: int, seeds: Sequence[int] = ()) -> Tensor:
    """The keep // 2 lowest and the rest highest rewards (the odd one is a high one); (P, N) -> (P, keep).

    The fixed halves of DanceGRPO's HunyuanVideo script (`--bestofn`, train_grpo_hunyuan.py:394-409). Ties and
    errors as in `optimal_variance_filter`.
    """
    order = torch.argsort(_checked(rewards, keep), dim=1, stable=True)
    lowest = keep // 2
    kept = torch.cat([order[:, :lowest], order[:, order.shape[1] - (keep - lowest) :]], dim=1)
    return kept.sort(dim=1).values.to(rewards.device)


def uniform(rewards: Tensor, keep: int, seeds: Sequence[int]) -> Tensor:
    """A random subset for each prompt, whatever the rewards; (P, N), P seeds -> LongTensor (P, keep).

    The same seed gives the same subset. ValueError as in `optimal_variance_filter`, and when the seeds are
    not P.
    """
    prompts, count = _checked(rewards, keep).shape
    if len(seeds) != prompts:
        raise ValueError(f"uniform selection needs one seed for each of {prompts} prompts, not {len(seeds)}")
    orders = [torch.randperm(count, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    kept = torch.stack(orders)[:, :keep] if orders else torch.empty(0, keep, dtype=torch.long)
    return kept.sort(dim=1).values.to(rewards.device)


def check_kept(kept: Tensor, rewards: Tensor, keep: int) -> None:
    """ValueError unless kept is a LongTensor (P, keep) of ascending indices into rewards (P, N): what every rule promises."""
    if kept.dtype != torch.long or kept.shape != (len(rewards), keep):
        raise ValueError(f"kept {kept.dtype} {tuple(kept.shape)}, not torch.int64 {(len(rewards), keep)}")
    bounds = torch.nn.functional.pad(kept, (1, 0), value=-1)
    bounds = torch.nn.functional.pad(bounds, (0, 1), value=rewards.shape[1])
    if not bool((bounds.diff() > 0).all()):
        raise ValueError(f"kept {kept.tolist()}: each row must ascend within 0..{rewards.shape[1] - 1}")
