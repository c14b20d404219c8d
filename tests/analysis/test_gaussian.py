"""The Gaussian predictions against exact laws, brute force and the published pilot."""

from itertools import combinations

import numpy as np
import pytest

from progrpo.analysis import gaussian


@pytest.mark.parametrize("group", [24, 48])
def test_a_simulated_group_varies_as_a_gaussian_one(group):
    variance = gaussian.simulate_filter(group, 12, ())["full"]["variance"]
    assert variance == pytest.approx(1 - 1 / group, rel=0.01)


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


def test_survivors_of_stages_are_told_in_the_places_of_the_whole_group():
    proxies = [np.array([[0.0, 3.0, 2.0, 1.0]]), np.array([[0.0, 1.0, 5.0, 0.0]])]
    stages = []

    def highest(values, keep, stage):
        stages.append((stage, values.tolist()))
        return np.argsort(-values, axis=1)[:, :keep]

    assert gaussian.survivors_of(proxies, (3, 2), highest).tolist() == [[2, 1]]
    assert stages == [(0, [[0.0, 3.0, 2.0, 1.0]]), (1, [[1.0, 5.0, 0.0]])]


def test_two_stage_pruning_with_perfect_and_published_proxies():
    assert gaussian.simulate_pruning((48, 24, 12), (1, 1)) == pytest.approx(2.762, rel=0.01)
    assert gaussian.simulate_pruning((48, 32, 8), (1, 1)) == pytest.approx(3.330, rel=0.01)
    assert gaussian.simulate_pruning((48, 24, 12), (0.7922, 0.8957)) == pytest.approx(2.404, rel=0.01)


def test_a_useless_proxy_keeps_a_random_subset():
    assert gaussian.simulate_pruning((48, 24, 12), (0, 0)) == pytest.approx(11 / 12, rel=0.02)


def test_table9_variance_fits_one_reward_variance_for_48_24_12_only():
    implied = np.array([row["implied_reward_variance"] for row in gaussian.table9_implied_variance()])
    assert ((implied >= 0.00076) & (implied <= 0.00081)).all()
    assert implied.std() / implied.mean() < 0.02
    others = []
    for pair, published in gaussian.TABLE9_VARIANCE.items():
        spearman = tuple(gaussian.TABLE9_SPEARMAN[step] for step in pair)
        others.append(published / gaussian.simulate_pruning((24, 16, 12), spearman))
    assert np.std(others) / np.mean(others) > 0.05
