"""Contrasts of arms over paired seeds and common prompts: estimates, intervals and one-sided p-values. Pure functions of arrays.

The seed is the unit. With few seeds Student's t is used, on the residuals of the seed x arm table where it has several arms; with
enough of them a bootstrap crossed over prompts and seeds gives the interval, and the exact sign-flip test the p-value.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from progrpo.analysis.statistics import finite_array

RESAMPLES, AT_ONCE = 50_000, 2_000  # the tails of 8 seeds lie at .006: 280 replicas below them, not 11


@dataclass(frozen=True)
class Estimate:
    """A contrast: its mean, its interval (None for one seed), interquartile mean over seeds, number of seeds and method.

    sd: standard deviation of one seed's contrast that gives the interval by Student's t; None for one seed.
    """

    effect: float
    low: float | None
    high: float | None
    iqm: float
    n: int
    method: str
    sd: float | None = None


def pooled_error(table: np.ndarray) -> tuple[float, int]:
    """Residual standard deviation and degrees of freedom of a (seeds, arms) table, seeds and arms as additive effects.

    It takes all arms to be equally noisy, and is less uncertain than the spread of a few paired differences.
    ValueError for one seed or one arm.
    """
    table = finite_array(table, 2, "table")
    if min(table.shape) < 2:
        raise ValueError(f"a table of {table.shape[0]} seeds and {table.shape[1]} arms leaves no residuals")
    residual = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    return float(np.sqrt((residual**2).sum() / freedom)), freedom


def sign_flip(values) -> float:
    """Exact one-sided p of (n,) values for a mean above 0: the share of all 2^n sign patterns whose sum is as large.

    Valid for values that are symmetric around 0 under the hypothesis, whatever their law; the least p is 2^-n.
    ValueError above n = 22.
    """
    values = finite_array(values, 1, "values")
    if len(values) > 22:
        raise ValueError(f"{len(values)} values have too many sign patterns")
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    rounding = 1e-12 * np.abs(values).sum()
    return float((sums >= values.sum() - rounding).mean())


def crossed_replicas(units: np.ndarray) -> np.ndarray:
    """Means (RESAMPLES, ...) of units (seeds, prompts, ...) with seeds and prompts drawn anew, independently of each other.

    A prompt is drawn for all seeds at once, as all seeds were evaluated on it (Owen's pigeonhole bootstrap).
    """
    generator = np.random.default_rng(0)
    parts = []
    for start in range(0, RESAMPLES, AT_ONCE):
        by_seed, by_prompt = (_drawn(generator, n, min(AT_ONCE, RESAMPLES - start)) for n in units.shape[:2])
        parts.append(np.einsum("bs,bp,sp...->b...", by_seed, by_prompt, units, optimize=True))
    return np.concatenate(parts)


def _drawn(generator: np.random.Generator, n: int, times: int) -> np.ndarray:
    """Shares (times, n) that each of n has among n drawn with replacement."""
    places = generator.integers(n, size=(times, n)) + n * np.arange(times)[:, None]
    return np.bincount(places.ravel(), minlength=times * n).reshape(times, n) / n


def expanded_quantiles(replicas: np.ndarray, n: int, confidence: float) -> tuple[float, float]:
    """Percentile interval with the tails of Student's t and the n / (n - 1) that resampling n units leaves out (Hesterberg 2015)."""
    tail = stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf(0.5 - confidence / 2, n - 1))
    low, high = np.quantile(replicas, [tail, 1 - tail])
    return float(low), float(high)


def estimate(units, exact_from: int, confidence: float = 0.95, error: tuple[float, int] | None = None) -> Estimate:
    """Mean of a contrast's units (seeds, prompts) with its interval.

    error: standard deviation of a seed's contrast and its degrees of freedom, where it is known better than from these seeds
    (`pooled_error` times the norm of the contrast's weights); used below `exact_from` seeds.
    """
    units = finite_array(units, 2, "units")
    by_seed = units.mean(axis=1)
    n, effect, iqm = len(by_seed), float(by_seed.mean()), float(stats.trim_mean(by_seed, 0.25))
    if n >= exact_from:
        low, high = expanded_quantiles(crossed_replicas(units), n, confidence)
        sd = (high - low) / 2 * np.sqrt(n) / stats.t.ppf(0.5 + confidence / 2, n - 1)  # with what the prompts add
        return Estimate(effect, low, high, iqm, n, "crossed bootstrap", float(sd))
    if n == 1:
        return Estimate(effect, None, None, iqm, n, "one seed")
    sd, freedom = error or (float(by_seed.std(ddof=1)), n - 1)
    half = float(stats.t.ppf(0.5 + confidence / 2, freedom)) * sd / np.sqrt(n)
    return Estimate(effect, effect - half, effect + half, iqm, n, "pooled t" if error else "paired t", sd)


def p_above(units, threshold: float, exact_from: int, error: tuple[float, int] | None = None) -> float | None:
    """One-sided p for a contrast above a threshold, from units (seeds, prompts); None for one seed. `error` as in `estimate`."""
    by_seed = finite_array(units, 2, "units").mean(axis=1) - threshold
    n, mean = len(by_seed), float(by_seed.mean())
    if n >= exact_from:
        return sign_flip(by_seed)
    if n == 1:
        return None
    sd, freedom = error or (float(by_seed.std(ddof=1)), n - 1)
    if sd == 0:
        return float(mean <= 0)
    return float(stats.t.sf(mean * np.sqrt(n) / sd, freedom))


def seeds_needed(sd: float | None, distance: float | None, alpha: float, power: float = 0.8) -> int | None:
    """Seeds with which a one-sided test finds an effect `distance` above its threshold; None where there is none above it.

    From the normal law, as sd is known only roughly.
    """
    if not sd or distance is None or distance <= 0:
        return None
    return int(np.ceil(((stats.norm.ppf(1 - alpha) + stats.norm.ppf(power)) * sd / distance) ** 2))


def share(part, whole, exact_from: int) -> tuple[float, float | None, float | None, int]:
    """part / whole, two contrasts of units (seeds, prompts), with its 95 % crossed bootstrap interval, and the number of seeds.

    Seeds and prompts are drawn for both at once. Below `exact_from` seeds there are no bounds, as too few differ; nor where
    replicas of the whole reach 0.
    """
    part, whole = finite_array(part, 2, "part"), finite_array(whole, 2, "whole")
    value = float(part.mean() / whole.mean())
    n = len(part)
    if n < exact_from:
        return value, None, None, n
    replicas = crossed_replicas(np.stack([part, whole], axis=-1))
    if (replicas[:, 1] * np.sign(whole.mean()) <= 0).any():
        return value, None, None, n
    return value, *expanded_quantiles(replicas[:, 0] / replicas[:, 1], n, 0.95), n
