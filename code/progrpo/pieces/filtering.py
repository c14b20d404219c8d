"""Optimal variance filtering of one group, for callers whose rewards are no batch of tensors."""

from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from progrpo.grpo import ovf


def optimal_variance_filter(rewards: Sequence[float] | np.ndarray | Tensor, keep: int) -> list[int]:
    """The ascending indices of the `keep` of N rewards (N,) whose variance is largest.

    Ties as in `progrpo.grpo.ovf.optimal_variance_filter`, which does the work, for many groups in one call. ValueError: rewards that
    are not those of one group, or not finite; `keep` outside 1..N.
    """
    plain = rewards.tolist() if isinstance(rewards, np.ndarray | Tensor) else list(rewards)
    values = torch.tensor(plain, dtype=torch.float64)
    if not isinstance(keep, Integral):
        raise ValueError(f"keep must be a whole number from 1 to {len(values)}, not {keep!r}")
    if values.ndim != 1:
        raise ValueError(f"rewards must be those of one group, (N,), not {tuple(values.shape)}")
    return ovf.optimal_variance_filter(values[None], int(keep))[0].tolist()
