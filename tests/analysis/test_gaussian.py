"""The Gaussian predictions against exact laws, brute force and the published pilot."""

from itertools import combinations

import numpy as np
import pytest

from progrpo.analysis import gaussian


@pytest.mark.parametrize(
    ("group", "keep", "subset", "full"), [(24, 12, 1.755, 0.960), (48, 12, 2.764, 0.979), (48, 8, 3.336, 0.978)]
)
def test_filtered_variance(group, keep, subset, full):
    result = gaussian.simulate_filter(group, keep)
    assert result["subset"]["variance"] == pytest.approx(subset, rel=0.01)
    assert result["full"]["variance"] == pytest.approx(full, rel=0.01)


def test_filter_rows_beats_every_subset():
    rewards = np.random.default_rng(0).normal(size=(20, 8))
    kept = np.take_along_axis(rewards, gaussian.filter_rows(rewards, 3), 1).var(axis=1)
    best = [max(row[list(subset)].var() for subset in combinations(range(8), 3)) for row in rewards]
    np.testing.assert_allclose(kept, best)


def test_standardised_groups_follow_their_exact_law():
    standardised = gaussian.standardise(np.random.default_rng(0).normal(3, 5, size=(40_000, 12)))
    assert (np.abs(standardised) <= 0.5).mean() == pytest.approx(gaussian.group_share(12, 0.5), abs=0.003)
    assert (standardised**4).mean() - 3 == pytest.approx(gaussian.group_excess_kurtosis(12), abs=0.02)
    assert np.abs(standardised).max() <= np.sqrt(11)
    assert gaussian.group_share(12, np.sqrt(11)) == 1
    np.testing.assert_allclose(gaussian.group_cdf(12, np.array([-4.0, 0.0, 4.0])), [0, 0.5, 1])


def test_of_two_rewards_one_lies_a_deviation_above_and_one_below():
    assert [gaussian.group_share(2, delta) for delta in (0.1, 0.99, 1.0)] == [0, 0, 1]
    np.testing.assert_array_equal(gaussian.group_cdf(2, np.array([-2.0, -0.5, 0.5, 1.0])), [0, 0.5, 0.5, 1])


def test_equal_rewards_standardise_to_zero():
    assert (gaussian.standardise(np.full((2, 4), 7.0)) == 0).all()


def test_two_stage_pruning_with_perfect_and_published_proxies():
    assert gaussian.simulate_pruning((48, 24, 12), (1, 1)) == pytest.approx(2.762, rel=0.01)
    assert gaussian.simulate_pruning((48, 32, 8), (1, 1)) == pytest.approx(3.330, rel=0.01)
    assert gaussian.simulate_pruning((48, 24, 12), (0.7922, 0.8957)) == pytest.approx(2.404, rel=0.01)


def test_a_useless_proxy_keeps_a_random_subset():
    assert gaussian.simulate_pruning((48, 24, 12), (0, 0)) == pytest.approx(11 / 12, rel=0.02)


def test_table9_variance_fits_one_reward_variance_for_48_24_12_only():
    rows = gaussian.table9_implied_variance()
    assert all(0.00076 <= row["implied_reward_variance"] <= 0.00081 for row in rows)
    assert gaussian.coefficient_of_variation(rows) < 0.02
    assert gaussian.coefficient_of_variation(gaussian.table9_implied_variance((24, 16, 12))) > 0.05
