"""What is optimised: group-relative advantages, the clipped surrogate, and the KL to the reference policy."""

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from progrpo.grpo.ovf import check_finite
from progrpo.grpo.samplers import StepTable, coefficient, require_noise


def advantages(
    rewards: Tensor,
    *,
    std: Literal["group", "global"],
    unbiased: bool,
    eps: float,
    clamp: float | None = None,
    population: Tensor | None = None,
) -> Tensor:
    """A = (r - group mean) / (std + eps), for K trajectories of P prompts: (P, K) -> (P, K), same dtype.

    std is taken over each group, or ("global") over `population`: the rewards of all ranks, any shape;
    rewards itself when None. unbiased divides by n - 1, else by n. The result is clamped to [-clamp, clamp].
    Flow-GRPO: global, biased, eps 1e-4 (flow_grpo/stat_tracking.py:11-31); DanceGRPO: group, unbiased, eps
    1e-8 (train_grpo_sd.py:537-547); both clamp at 5. A group of equal rewards gets exactly 0. ValueError for
    non-finite or integer rewards, or other than (P, K), an unknown std, eps <= 0, or an unbiased std of fewer than two.
    """
    if std not in ("group", "global"):
        raise ValueError(f"std must be 'group' or 'global', not {std!r}")
    if not rewards.is_floating_point() or not eps > 0:
        raise ValueError(f"need floating-point rewards and eps > 0, not {rewards.dtype} and {eps}")
    if rewards.ndim != 2:
        raise ValueError(f"rewards must be (P, K), K of each of P prompts, not {tuple(rewards.shape)}")
    check_finite(rewards)
    exact = rewards.to(torch.float64)
    # Relative to the first of its group a group of equal rewards is exactly 0; its rounded mean need not be
    # its value.
    shifted = exact - exact[:, :1]
    sample = shifted  # (P, K), or (1, n) for the global std
    if std == "global":
        sample = (exact if population is None else population.to(exact)).reshape(1, -1)
        check_finite(sample)
    if unbiased and sample.shape[1] < 2:
        raise ValueError("an unbiased std needs at least two rewards")
    spread = sample.std(dim=1, correction=int(unbiased), keepdim=True)
    result = (shifted - shifted.mean(dim=1, keepdim=True)) / (spread + eps)
    if clamp is not None:
        result = result.clamp(-clamp, clamp)
    return result.to(rewards.dtype)


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """`clipped_surrogate`'s result, each (B,): loss, likelihood ratio, and whether the clip range excludes it."""

    loss: Tensor
    ratio: Tensor
    clipped: Tensor


def clipped_surrogate(log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, clip_range: float) -> Surrogate:
    """PPO's max(-A r, -A clip(r, 1 - c, 1 + c)), r = exp(log_prob - old_log_prob); all tensors (B,).

    The gradient flows to log_prob only. It is exactly 0 where r > 1 + c and A > 0, where r < 1 - c and A < 0,
    and where A = 0, also where r is beyond all numbers: it is bounded by e^80. `clipped` is |r - 1| > c whatever
    the sign of A, the clip fraction that the public code logs. Source: train_sd3.py:880-893 of Flow-GRPO, equal
    in DanceGRPO.
    """
    advantages = advantages.detach()
    ratio = torch.exp((log_prob - old_log_prob.detach()).clamp(max=80))
    loss = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip_range, 1 + clip_range))
    return Surrogate(loss=loss, ratio=ratio.detach(), clipped=(ratio.detach() - 1).abs() > clip_range)


def gaussian_kl(mean: Tensor, mean_ref: Tensor, std: Tensor) -> Tensor:
    """KL of two Gaussians of equal std: the average over dimensions of (mean - mean_ref)^2 / (2 std^2), (B,).

    Means (B, ...); std is anything that broadcasts over mean; no gradient flows to mean_ref.
    """
    return ((mean - mean_ref.detach()) ** 2 / (2 * std**2)).flatten(1).mean(dim=1)


def step_kl(
    table: StepTable, i: int | Tensor, mean: Tensor, mean_ref: Tensor, form: Literal["code", "paper"] = "code"
) -> Tensor:
    """KL of step i (int or LongTensor (B,)) to the reference policy's step, (B,), from the means (B, ...).

    "paper" divides by the variance of the transition; "code" is Flow-GRPO's train_sd3.py:895, whose std_dev_t
    lacks sqrt(h), so that code = h paper. For DDIM the two agree. ValueError for a deterministic table or an
    unknown form.
    """
    require_noise(table, i)
    if form not in ("code", "paper"):
        raise ValueError(f"the form of the KL must be 'code' or 'paper', not {form!r}")
    std = table.kl_std if form == "code" else table.std
    return gaussian_kl(mean, mean_ref, coefficient(std, i, mean))
