"""Intervals and paired tests over seeds or prompts. Pure functions of arrays."""

from collections.abc import Callable

import numpy as np
from scipy import stats


def finite_array(values, dimensions: int, name: str) -> np.ndarray:
    """`values` as float64 of so many dimensions; ValueError names an array that is empty, ragged or not finite."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is not a rectangular array of numbers") from None
    if array.ndim != dimensions or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}; expected {dimensions} non-empty dimensions")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds {int((~np.isfinite(array)).sum())} values that are not finite")
    return array


def mean_interval(values) -> dict[str, float | int | None]:
    """Mean of (n,) values with Student's t interval of 95 %; low, high and std (unbiased) are None for a single value."""
    array = finite_array(values, 1, "values")
    mean, n = float(array.mean()), len(array)
    if n == 1:
        return {"mean": mean, "low": None, "high": None, "std": None, "n": 1}
    std = float(array.std(ddof=1))
    half = float(stats.t.ppf(0.975, n - 1)) * std / np.sqrt(n)
    return {"mean": mean, "low": mean - half, "high": mean + half, "std": std, "n": n}


def bootstrap_interval(
    units: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray] = lambda sample: sample.mean(axis=1),
) -> dict[str, float]:
    """Percentile bootstrap over the first axis of `units` (n, ...), 95 %, from 2,000 resamples.

    `statistic` maps resamples (b, n, ...) to (b,); the default is the mean of (n,) units. Returns value, low, high.
    """
    units = np.asarray(units, dtype=np.float64)
    draws = np.random.default_rng(0).integers(len(units), size=(2000, len(units)))
    replicas = statistic(units[draws])
    low, high = np.quantile(replicas, [0.025, 0.975])
    return {"value": float(statistic(units[None])[0]), "low": float(low), "high": float(high)}


def paired_test(first, second) -> dict[str, float | int | None]:
    """Paired t test of first - second, both (n,) in the same order: difference, interval, two-sided p.

    p is None for one pair. Equal differences leave no variance: p is 1 where they are zero and 0 otherwise.
    Raises ValueError when the lengths differ.
    """
    first, second = finite_array(first, 1, "first"), finite_array(second, 1, "second")
    if len(first) != len(second):
        raise ValueError(f"a paired test needs equal lengths, not {len(first)} and {len(second)}")
    difference = first - second
    interval = mean_interval(difference)
    p_value = None
    mean, std = float(difference.mean()), interval["std"]
    if std == 0.0:
        p_value = 1.0 if mean == 0.0 else 0.0
    elif std is not None:
        p_value = float(2 * stats.t.sf(abs(mean / (std / np.sqrt(len(difference)))), len(difference) - 1))
    return {
        "difference": interval["mean"],
        "low": interval["low"],
        "high": interval["high"],
        "n": interval["n"],
        "p_value": p_value,
    }


def holm(p_values) -> list[float]:
    """Holm's step-down adjustment of m p-values, in their own order; at most 1, monotone in the sorted order.

    ValueError for one that lies outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must be a list of numbers within [0, 1], not {p.tolist()}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted.tolist()


def paired_tests(comparisons: dict[str, tuple]) -> dict[str, dict]:
    """`paired_test` of each named (first, second), with `p_holm` over those that have a p-value (else None)."""
    results = {name: paired_test(*pair) for name, pair in comparisons.items()}
    tested = [name for name, result in results.items() if result["p_value"] is not None]
    adjusted = dict(zip(tested, holm([results[name]["p_value"] for name in tested]), strict=True))
    return {name: {**result, "p_holm": adjusted.get(name)} for name, result in results.items()}
