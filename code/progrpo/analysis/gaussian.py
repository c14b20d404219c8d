"""What selection does to Gaussian rewards: the prediction that measured groups are held against.

Standardising a group by its own n-sample mean and deviation is not harmless: A^2 / (n - 1) then follows
Beta(1/2, (n - 2)/2) (Thompson 1935), which is flatter than the Gaussian and bounded by sqrt(n - 1).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy import stats

from progrpo.cost.flops import TABLE9_COUNTS
from progrpo.grpo.ovf import optimal_variance_filter

# The published pilot, Table 9: completed steps -> Spearman correlation; pair -> variance of the survivors' rewards.
TABLE9_SPEARMAN = {2: 0.3354, 4: 0.6954, 5: 0.7922, 6: 0.8579, 7: 0.8957, 9: 0.9984}
TABLE9_VARIANCE = {(2, 4): 0.0012, (4, 6): 0.0017, (5, 7): 0.0019, (7, 9): 0.0021}
GROUPS = 20_000  # that a simulation draws


def differ(rewards: np.ndarray) -> np.ndarray:
    """Whether not all rewards of a row of (P, n) are equal, (P,); of equal ones a rounded mean leaves a deviation."""
    return rewards.max(axis=1) > rewards.min(axis=1)


def standardise(rewards: np.ndarray) -> np.ndarray:
    """(R - mean) / std of each row of (P, n), population deviation; rows of equal rewards become 0."""
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    std = centred.std(axis=1, keepdims=True)
    return np.divide(centred, std, out=np.zeros_like(centred), where=differ(rewards)[:, None] & (std > 0))


def group_share(n: int, delta: float) -> float:
    """Exact P(|A| <= delta) of n Gaussian rewards standardised by their own mean and population deviation."""
    return float(_within(n, np.array(delta)))


def group_cdf(n: int, values: np.ndarray) -> np.ndarray:
    """Exact P(A <= value) of n Gaussian rewards standardised by their own mean and population deviation."""
    return 0.5 + 0.5 * np.sign(values) * _within(n, values)


def _within(n: int, values: np.ndarray) -> np.ndarray:
    """P(|A| <= |value|): of two rewards one is 1 and the other -1; of more, A^2 / (n - 1) is a Beta variable."""
    if n == 2:
        return (np.abs(values) >= 1).astype(float)
    return stats.beta.cdf(np.minimum(values**2 / (n - 1), 1.0), 0.5, (n - 2) / 2)


def group_excess_kurtosis(n: int) -> float:
    """Exact excess kurtosis of n Gaussian rewards standardised by their own mean and deviation: 3(n-1)/(n+1) - 3."""
    return 3 * (n - 1) / (n + 1) - 3


def pearson_of_spearman(spearman: float) -> float:
    """Correlation of the bivariate Gaussian whose rank correlation is `spearman`: 2 sin(pi s / 6)."""
    return float(2 * np.sin(np.pi * spearman / 6))


def filter_rows(rewards: np.ndarray, keep: int) -> np.ndarray:
    """Indices (P, keep) of the variance-maximising subset of each row of (P, N)."""
    return optimal_variance_filter(torch.from_numpy(np.ascontiguousarray(rewards)), keep).numpy()


def survivors_of(
    proxies: Sequence[np.ndarray], keeps: Sequence[int], rule: Callable[[np.ndarray, int, int], np.ndarray]
) -> np.ndarray:
    """Indices (P, keeps[-1]) of the survivors of successive filtering of P groups of N trajectories.

    `proxies[k]` (P, N) ranks the trajectories at stage k, which keeps keeps[k]: `rule` has the proxies (P, n) of those that are left,
    the number to keep and k, and gives indices (P, keeps[k]) into them.
    """
    prompts, size = proxies[0].shape
    survivors = np.tile(np.arange(size), (prompts, 1))
    for stage, (proxy, keep) in enumerate(zip(proxies, keeps, strict=True)):
        chosen = rule(np.take_along_axis(proxy, survivors, 1), keep, stage)
        survivors = np.take_along_axis(survivors, chosen, 1)
    return survivors


def subset_summary(rewards: np.ndarray, deltas: tuple[float, ...]) -> dict:
    """Mean population variance of the rows of (P, n), and mean |A| and shares P(|A| <= delta) inside each row."""
    magnitude = np.abs(standardise(rewards))
    return {
        "variance": float(rewards.var(axis=1).mean()),
        "mean_magnitude": float(magnitude.mean()),
        "shares": [{"delta": delta, "share": float((magnitude <= delta).mean())} for delta in deltas],
    }


def simulate_filter(group: int, keep: int, deltas: tuple[float, ...]) -> dict:
    """One filtering of `GROUPS` sets of N(0,1) rewards: `subset_summary` of the full groups and of the kept subsets."""
    rewards = np.random.default_rng(0).standard_normal((GROUPS, group))
    kept = np.take_along_axis(rewards, filter_rows(rewards, keep), 1)
    return {
        "group": group,
        "keep": keep,
        "full": subset_summary(rewards, deltas),
        "subset": subset_summary(kept, deltas),
    }


def simulate_pruning(counts: tuple[int, ...], spearman: tuple[float, ...]) -> float:
    """Variance of the survivors' N(0,1) terminal rewards when stage k ranks by a proxy of rank correlation spearman[k].

    Proxies are Gaussian given the reward, with independent errors (a Gaussian copula).
    """
    generator = np.random.default_rng(0)
    rewards = generator.standard_normal((GROUPS, counts[0]))
    proxies = []
    for value in spearman:
        rho = pearson_of_spearman(value)
        noise = generator.standard_normal(rewards.shape)
        proxies.append(rho * rewards + np.sqrt(max(0.0, 1 - rho**2)) * noise)
    kept = survivors_of(proxies, counts[1:], lambda proxy, keep, _: filter_rows(proxy, keep))
    return float(np.take_along_axis(rewards, kept, 1).var(axis=1).mean())


def table9_implied_variance(counts: tuple[int, ...] = TABLE9_COUNTS) -> list[dict]:
    """For each row of Table 9: simulated variance in units of the reward variance, and the reward variance it implies.

    With the right counts the implied variance is the same for all rows.
    """
    rows = []
    for pair, published in TABLE9_VARIANCE.items():
        simulated = simulate_pruning(counts, tuple(TABLE9_SPEARMAN[step] for step in pair))
        rows.append(
            {
                "pruning_steps": list(pair),
                "published_variance": published,
                "simulated_variance": simulated,
                "implied_reward_variance": published / simulated,
            }
        )
    return rows
