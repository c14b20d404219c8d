"""Contrasts of arms on synthetic data whose answers are known: exact cases, coverage, error rate and power."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from progrpo.analysis import contrasts
from progrpo.analysis.contrasts import (
    RESAMPLES,
    crossed_replicas,
    estimate,
    p_above,
    pooled_error,
    seeds_needed,
    share,
    sign_flip,
)

SEEDS, PROMPTS = 8, 40


def draw(generator, effect: float, seeds: int = SEEDS) -> np.ndarray:
    """Units (seeds, prompts) of a contrast with effects of seeds (sd .13), of prompts (.3) and noise (.6)."""
    parts = generator.normal(0, 0.13, (seeds, 1)), generator.normal(0, 0.3, (1, PROMPTS))
    return effect + sum(parts) + generator.normal(0, 0.6, (seeds, PROMPTS))


def test_the_sign_flip_test_counts_patterns():
    values = np.array([0.3, -0.1, 0.7, 0.2])
    by_hand = np.mean([np.dot(signs, values) >= values.sum() - 1e-12 for signs in product([1, -1], repeat=4)])
    assert sign_flip(values) == by_hand == 2 / 16
    assert sign_flip(np.ones(8)) == 2**-8
    assert sign_flip(-np.ones(8)) == 1


def test_the_pooled_error_of_two_arms_is_that_of_the_pairs():
    table = np.random.default_rng(0).normal(size=(5, 2))
    sd, freedom = pooled_error(table)
    difference = table[:, 0] - table[:, 1]
    assert freedom == 4
    assert sd * np.sqrt(2) == pytest.approx(difference.std(ddof=1))
    for single in (table[:1], table[:, :1]):
        with pytest.raises(ValueError, match="leaves no residuals"):
            pooled_error(single)


def test_few_seeds_are_scipys_paired_t_test():
    units = draw(np.random.default_rng(1), 0.2, seeds=5)
    result, test = estimate(units, 8), stats.ttest_1samp(units.mean(1), 0, alternative="greater")
    interval = stats.ttest_1samp(units.mean(1), 0).confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))
    assert p_above(units, 0, 8) == pytest.approx(test.pvalue)
    assert result.method == "paired t"


def test_one_seed_has_no_interval_and_no_p():
    units = draw(np.random.default_rng(1), 0.2, seeds=1)
    assert estimate(units, 8).low is None
    assert p_above(units, 0, 8) is None


def test_the_pooled_interval_is_narrower_than_that_of_three_pairs():
    generator = np.random.default_rng(2)
    tables = [generator.normal(0, 0.1, (3, 8)) for _ in range(200)]
    widths = []
    for table in tables:
        sd, freedom = pooled_error(table)
        units = (table[:, 0] - table[:, 1])[:, None]
        pooled, paired = estimate(units, 8, error=(sd * np.sqrt(2), freedom)), estimate(units, 8)
        widths.append((pooled.high - pooled.low, paired.high - paired.low))
    pooled, paired = np.median(widths, axis=0)
    assert pooled < 0.65 * paired


@pytest.mark.parametrize("seeds", [5, SEEDS])
def test_intervals_cover_and_errors_are_rare(seeds, monkeypatch):
    """95 % intervals of a true .2 hold it; a one-sided test at .025 errs at most so often. Prompts vary, too."""
    monkeypatch.setattr(contrasts, "RESAMPLES", 5_000)  # of 400 trials
    generator = np.random.default_rng(3)
    covered, errors, trials = 0, 0, 400
    for _ in range(trials):
        result = estimate(draw(generator, 0.2, seeds), 8)
        covered += result.low <= 0.2 <= result.high
        fixed = draw(generator, 0, seeds)
        fixed -= fixed.mean(0)  # the prompts' own effects are no error of a test on these prompts
        errors += p_above(fixed + generator.normal(0, 0.13, (seeds, 1)), 0, 8) < 0.025
    assert covered / trials > 0.92 - 0.02 * (seeds == 5)
    assert errors / trials < 0.05


def test_eight_seeds_find_a_quarter_of_the_gain():
    generator = np.random.default_rng(4)
    found = [p_above(draw(generator, 0.25)[:, :], 0, 8) < 0.025 for _ in range(200)]
    assert np.mean(found) > 0.8


def test_the_crossed_bootstrap_sees_the_prompts():
    """An effect that differs from prompt to prompt and is equal in all seeds has an uncertainty that seeds do not show."""
    units = np.tile(np.random.default_rng(5).normal(0, 1, (1, 25)), (8, 1))
    assert units.mean(1).std() < 1e-12
    assert crossed_replicas(units).std() == pytest.approx(units[0].std() / 5, rel=0.1)
    assert len(crossed_replicas(units)) == RESAMPLES


def test_the_share_of_equal_contrasts_is_one_and_of_nothing_has_no_bound():
    units = draw(np.random.default_rng(6), 0.5)
    assert share(0.7 * units, units, SEEDS) == pytest.approx((0.7, 0.7, 0.7, SEEDS))
    assert share(units, units - units.mean() + 0.01, SEEDS)[1:] == (None, None, SEEDS)


def test_a_share_of_few_seeds_has_no_bounds():
    """Of three seeds the bootstrap's expanded tails are its least and largest replica, which is no interval of 95 %."""
    units = draw(np.random.default_rng(6), 0.5, seeds=3)
    assert share(0.7 * units, units, SEEDS) == (pytest.approx(0.7), None, None, 3)


def test_the_seeds_needed_find_the_effect_with_power_four_fifths():
    generator = np.random.default_rng(7)
    n = seeds_needed(0.3, 0.25, 0.025)
    assert n == 12  # (1.960 + 0.842)^2 x (.3 / .25)^2 = 11.3
    found = generator.normal(0.25, 0.3, (4000, n)).mean(1) * np.sqrt(n) / 0.3 > stats.norm.ppf(0.975)
    assert 0.8 < found.mean() < 0.85
    assert seeds_needed(0.3, -0.05, 0.025) is seeds_needed(0.3, None, 0.025) is seeds_needed(None, 0.2, 0.025) is None
