"""Reward clustering (Fig. 6, appendix B): how Gaussian standardised rewards are, and what subsampling does to that."""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy import special, stats

from progrpo.analysis import gaussian
from progrpo.analysis.statistics import bootstrap_interval, finite_array

DELTAS = (0.1, 0.25, 0.5, 1.0)
HISTOGRAM_EDGES = np.linspace(-3.5, 3.5, 57)
QQ_POINTS = 199
DRAWS = 16  # of a random subset, averaged: one draw moves the variance ratio of 300 groups by .03


def kolmogorov_smirnov(values: np.ndarray, distribution: Callable = special.ndtr) -> float:
    """Largest distance of the empirical distribution of (m,) values, or of each row of (b, m), from another, N(0, 1) by default."""
    ordered = np.sort(values, axis=-1)
    m = ordered.shape[-1]
    cdf, rank = distribution(ordered), np.arange(1, m + 1)
    return np.maximum(rank / m - cdf, cdf - (rank - 1) / m).max(axis=-1)


def goodness_of_fit(standardised: np.ndarray, simulations: int = 499) -> dict[str, dict]:
    """Kolmogorov-Smirnov of (P, n) standardised rewards, with a p-value from Gaussian groups standardised the same way.

    The textbook p-value would be wrong: the values of a prompt are dependent and flatter than a Gaussian. The smallest
    possible p is 1 / (simulations + 1).
    """
    generator = np.random.default_rng(0)
    observed = float(kolmogorov_smirnov(standardised.ravel()))
    samples = (generator.standard_normal(standardised.shape) for _ in range(simulations))
    null = [float(kolmogorov_smirnov(gaussian.standardise(sample).ravel())) for sample in samples]
    return {
        "kolmogorov_smirnov": {
            "statistic": observed,
            **_basic_interval(standardised, kolmogorov_smirnov, generator),
            "gaussian_median": float(np.median(null)),
            "p_value": (1 + sum(value >= observed for value in null)) / (simulations + 1),
        }
    }


def distance_to_gaussian_groups(standardised: np.ndarray) -> dict[str, float]:
    """Kolmogorov distance of (P, n) standardised rewards from the law that Gaussian groups of n have, with its interval.

    The distance from N(0, 1) would be at least .013 for groups of 12 and .058 for groups of 4, however Gaussian the rewards.
    """
    distance = partial(kolmogorov_smirnov, distribution=partial(gaussian.group_cdf, standardised.shape[1]))
    interval = _basic_interval(standardised, distance, np.random.default_rng(0))
    return {"value": float(distance(standardised.ravel())), **interval}


def _basic_interval(standardised: np.ndarray, test, generator, resamples: int = 300) -> dict[str, float]:
    """95 % interval of a distance from (P, n), bootstrapped over prompts.

    Mirrored at the observed value, because a distance grows with the roughness of a resample.
    """
    draws = generator.integers(len(standardised), size=(resamples, len(standardised)))
    replicas = [test(standardised[rows].ravel()) for rows in draws]
    low, high = np.quantile(replicas, [0.025, 0.975])
    value = float(test(standardised.ravel()))
    return {"low": max(0.0, 2 * value - float(high)), "high": max(0.0, 2 * value - float(low))}


def moments(standardised: np.ndarray) -> dict[str, float]:
    """Pooled mean, std, skewness and excess kurtosis of (P, n), and the kurtosis that Gaussian rewards would show."""
    values = standardised.ravel()
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "skewness": float(stats.skew(values)),
        "excess_kurtosis": float(stats.kurtosis(values)),
        "excess_kurtosis_of_gaussian_groups": gaussian.group_excess_kurtosis(standardised.shape[1]),
    }


def clustered_shares(standardised: np.ndarray) -> list[dict]:
    """Share |A| <= delta of (P, n) for `DELTAS`, bootstrapped over prompts, beside N(0,1)'s and that of Gaussian groups of n."""
    rows = []
    for delta in DELTAS:
        interval = bootstrap_interval((np.abs(standardised) <= delta).mean(axis=1))
        rows.append(
            {
                "delta": delta,
                "observed": interval["value"],
                "low": interval["low"],
                "high": interval["high"],
                "gaussian": float(2 * stats.norm.cdf(delta) - 1),
                "gaussian_groups": gaussian.group_share(standardised.shape[1], delta),
            }
        )
    return rows


def subsampling_effects(rewards: np.ndarray, keep: int) -> list[dict]:
    """Uniform subsampling (the mean of `DRAWS` draws) and OVF of (P, n) rewards to `keep`: variance relative to the group's, mean
    |A|, shares.

    Each measured number stands beside its Gaussian prediction: exact for the uniform subset, Monte Carlo for OVF.
    """
    n = rewards.shape[1]
    generator = np.random.default_rng(0)
    rows_of = np.tile(np.arange(n), (len(rewards), 1))
    simulated = gaussian.simulate_filter(n, keep, DELTAS)
    predictions = {
        "uniform": {
            "variance_ratio": (1 - 1 / keep) / (1 - 1 / n),
            "shares": [{"delta": delta, "share": gaussian.group_share(keep, delta)} for delta in DELTAS],
        },
        "ovf": {
            "variance_ratio": simulated["subset"]["variance"] / simulated["full"]["variance"],
            "mean_magnitude": simulated["subset"]["mean_magnitude"],
            "shares": simulated["subset"]["shares"],
        },
    }
    chosen = {
        "uniform": [generator.permuted(rows_of, axis=1)[:, :keep] for _ in range(DRAWS)],
        "ovf": [gaussian.filter_rows(rewards, keep)],
    }
    rows = []
    for rule, draws in chosen.items():
        subsets = np.stack([np.take_along_axis(rewards, indices, 1) for indices in draws])  # (draws, P, keep)
        measured = gaussian.subset_summary(subsets.reshape(-1, keep), DELTAS)
        measured["variance_ratio"] = measured["variance"] / float(rewards.var(axis=1).mean())
        intervals = _subset_intervals(rewards, subsets, predictions[rule]["variance_ratio"])
        rows.append(
            {"rule": rule, "keep": keep, "observed": measured, "gaussian": predictions[rule], "intervals": intervals}
        )
    return rows


def _subset_intervals(rewards: np.ndarray, subsets: np.ndarray, expected: float, delta: float = 0.5) -> dict[str, dict]:
    """Of subsets (draws, P, keep), bootstrapped over prompts: the variance ratio over its Gaussian expectation, and the share
    |A| <= delta in the subset."""
    variances = np.stack([subsets.var(axis=2).mean(axis=0), rewards.var(axis=1)], axis=1)
    standardised = gaussian.standardise(subsets.reshape(-1, subsets.shape[2])).reshape(subsets.shape)
    near = (np.abs(standardised) <= delta).mean(axis=(0, 2))
    return {
        "variance_over_expected": bootstrap_interval(
            variances, lambda s: s[..., 0].mean(axis=1) / s[..., 1].mean(axis=1) / expected
        ),
        "share": bootstrap_interval(near),
    }


def analyse(rewards, keeps: tuple[int, ...] | None = None, simulations: int = 499) -> dict:
    """The whole study of (P, n) rewards of P prompts under the reference policy; JSON-ready.

    Prompts whose rewards are all equal carry no shape: they are counted and left out. `keeps` defaults to n // 2.
    Raises ValueError for rewards that are not finite, n < 3, a keep outside 2..n-1, or no prompt with any variance.
    """
    rewards = finite_array(rewards, 2, "rewards")
    n = rewards.shape[1]
    keeps = keeps or (n // 2,)
    if n < 3 or any(not 2 <= keep < n for keep in keeps):
        raise ValueError(f"{n} rewards per prompt cannot be subsampled to {list(keeps)}; keep 2..{n - 1} of at least 3")
    varied = rewards[gaussian.differ(rewards)]
    if not len(varied):
        raise ValueError("every prompt's rewards are equal; nothing can be standardised")
    standardised = gaussian.standardise(varied)
    density, edges = np.histogram(standardised.ravel(), bins=HISTOGRAM_EDGES)
    probability = (np.arange(QQ_POINTS) + 0.5) / QQ_POINTS
    return {
        "prompts": len(rewards),
        "group": n,
        "trajectories": int(rewards.size),
        "zero_variance_prompts": len(rewards) - len(varied),
        "moments": moments(standardised),
        "goodness_of_fit": goodness_of_fit(standardised, simulations),
        "distance_to_gaussian_groups": distance_to_gaussian_groups(standardised),
        "shares": clustered_shares(standardised),
        "subsampling": [row for keep in keeps for row in subsampling_effects(varied, keep)],
        "histogram": {
            "edges": edges.tolist(),
            "density": (density / (standardised.size * np.diff(edges))).tolist(),
            "gaussian_groups": (np.diff(gaussian.group_cdf(n, edges)) / np.diff(edges)).tolist(),
        },
        "qq": {
            "theoretical": stats.norm.ppf(probability).tolist(),
            "observed": np.quantile(standardised, probability).tolist(),
        },
    }
