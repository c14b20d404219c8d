"""What selection does to Gaussian rewards: the prediction that measured groups are held against.

Standardising a group by its own n-sample mean and deviation is not harmless: A^2 / (n - 1) then follows
Beta(1/2, (n - 2)/2) (Thompson 1935), which is flatter than the Gaussian and bounded by sqrt(n - 1).
"""

import numpy as np
import torch
from scipy import stats

from progrpo.grpo.ovf import optimal_variance_filter

# The published pilot, Table 9: completed steps -> Spearman correlation; pair -> variance of the survivors' rewards.
TABLE9_SPEARMAN = {2: 0.3354, 4: 0.6954, 5: 0.7922, 6: 0.8579, 7: 0.8957, 9: 0.9984}
TABLE9_VARIANCE = {(2, 4): 0.0012, (4, 6): 0.0017, (5, 7): 0.0019, (7, 9): 0.0021}


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


def select(rewards: np.ndarray, proxies: list[np.ndarray], counts: tuple[int, ...]) -> np.ndarray:
    """Indices (P, counts[-1]) of the survivors of successive filtering.

    `proxies[k]` (P, N) ranks the trajectories at stage k, which keeps counts[k + 1]; `rewards` (P, N) gives the shape.
    """
    survivors = np.tile(np.arange(rewards.shape[1]), (len(rewards), 1))
    for proxy, keep in zip(proxies, counts[1:], strict=True):
        chosen = filter_rows(np.take_along_axis(proxy, survivors, 1), keep)
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


def simulate_filter(group: int, keep: int, deltas=(0.5,), groups: int = 20_000, seed: int = 0) -> dict:
    """One filtering of `groups` sets of N(0,1) rewards: `subset_summary` of the full groups and of the kept subsets."""
    rewards = np.random.default_rng(seed).standard_normal((groups, group))
    kept = np.take_along_axis(rewards, filter_rows(rewards, keep), 1)
    return {
        "group": group,
        "keep": keep,
        "full": subset_summary(rewards, deltas),
        "subset": subset_summary(kept, deltas),
    }


def simulate_pruning(
    counts: tuple[int, ...], spearman: tuple[float, ...], groups: int = 20_000, seed: int = 0
) -> float:
    """Variance of the survivors' N(0,1) terminal rewards when stage k ranks by a proxy of rank correlation spearman[k].

    Proxies are Gaussian given the reward, with independent errors (a Gaussian copula).
    """
    generator = np.random.default_rng(seed)
    rewards = generator.standard_normal((groups, counts[0]))
    proxies = []
    for value in spearman:
        rho = pearson_of_spearman(value)
        noise = generator.standard_normal(rewards.shape)
        proxies.append(rho * rewards + np.sqrt(max(0.0, 1 - rho**2)) * noise)
    return float(np.take_along_axis(rewards, select(rewards, proxies, counts), 1).var(axis=1).mean())


def table9_implied_variance(counts: tuple[int, ...] = (48, 24, 12), groups: int = 20_000) -> list[dict]:
    """For each row of Table 9: simulated variance in units of the reward variance, and the reward variance it implies.

    With the right counts the implied variance is the same for all rows.
    """
    rows = []
    for pair, published in TABLE9_VARIANCE.items():
        simulated = simulate_pruning(counts, tuple(TABLE9_SPEARMAN[step] for step in pair), groups)
        rows.append(
            {
                "pruning_steps": list(pair),
                "published_variance": published,
                "simulated_variance": simulated,
                "implied_reward_variance": published / simulated,
            }
        )
    return rows


def coefficient_of_variation(rows: list[dict]) -> float:
    """Standard deviation over mean of the implied reward variances of `table9_implied_variance`."""
    implied = np.array([row["implied_reward_variance"] for row in rows])
    return float(implied.std() / implied.mean())
