"""A Gaussian sample passes, a bimodal one does not; the distance agrees with scipy's and with hand computation."""

import json

import numpy as np
import pytest
from scipy import stats

from progrpo.analysis import reward_clustering as clustering


def gaussian_rewards(prompts=300, n=12, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(prompts, 1)) + generator.uniform(0.5, 2, (prompts, 1)) * generator.normal(
        size=(prompts, n)
    )


def bimodal_rewards(prompts=300, n=12):
    generator = np.random.default_rng(0)
    return np.sign(generator.normal(size=(prompts, n))) + 0.2 * generator.normal(size=(prompts, n))


def test_a_gaussian_sample_passes_and_a_bimodal_one_does_not():
    good, bad = (
        clustering.analyse(rewards, simulations=199)["goodness_of_fit"]["kolmogorov_smirnov"]
        for rewards in (gaussian_rewards(), bimodal_rewards())
    )
    assert good["p_value"] > 0.05
    assert bad["p_value"] == 1 / 200
    assert bad["statistic"] > 5 * good["statistic"]


def test_p_values_of_gaussian_groups_are_not_systematically_small():
    """The textbook p-values of standardised groups would be wrong; the simulated ones are level."""
    p = [
        clustering.goodness_of_fit(clustering.gaussian.standardise(gaussian_rewards(60, 12, seed)), 99)[
            "kolmogorov_smirnov"
        ]["p_value"]
        for seed in range(40)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_the_distance_against_scipy_and_by_hand():
    values = np.random.default_rng(1).normal(size=200)
    assert clustering.kolmogorov_smirnov(values) == pytest.approx(stats.kstest(values, "norm").statistic)
    assert clustering.kolmogorov_smirnov(np.zeros(1)) == pytest.approx(0.5)  # one value at the median


def test_the_distance_is_taken_from_the_law_of_gaussian_groups():
    """Small groups are far from N(0, 1), however Gaussian their rewards; from their own law they are not."""
    for n in (4, 12):
        standardised = clustering.gaussian.standardise(gaussian_rewards(3000, n))
        distance = clustering.distance_to_gaussian_groups(standardised)
        assert 0 <= distance["low"] < distance["value"] < 0.01 < clustering.kolmogorov_smirnov(standardised.ravel())
        assert distance["high"] < 0.02
    assert clustering.kolmogorov_smirnov(clustering.gaussian.standardise(gaussian_rewards(3000, 4)).ravel()) > 0.05


def test_a_uniform_subset_does_not_hang_on_one_draw():
    rewards = bimodal_rewards(300)
    found = []
    for seed in range(5):  # another order of the group is another draw
        ordered = np.random.default_rng(seed).permuted(rewards, axis=1)
        uniform, _ = clustering.subsampling_effects(ordered, 6)
        found.append(uniform["intervals"]["variance_over_expected"]["value"])
    assert max(found) - min(found) < 0.015
    assert np.mean(found) == pytest.approx(1, abs=0.01)


def test_shares_are_counted_inside_each_prompt():
    # Standardised: -1.2247, 0, 1.2247 for each prompt, whatever its scale.
    rows = clustering.analyse([[0.0, 1.0, 2.0], [10.0, 30.0, 50.0]], keeps=(2,), simulations=9)["shares"]
    assert [row["observed"] for row in rows] == pytest.approx([1 / 3] * len(rows))


def test_subsampling_follows_the_gaussian_prediction():
    effects = clustering.subsampling_effects(gaussian_rewards(4000), 6)
    for row in effects:
        assert row["observed"]["variance_ratio"] == pytest.approx(row["gaussian"]["variance_ratio"], rel=0.03)
        for observed, predicted in zip(row["observed"]["shares"], row["gaussian"]["shares"], strict=True):
            assert observed["share"] == pytest.approx(predicted["share"], abs=0.012)
    uniform, ovf = effects
    assert uniform["observed"]["variance_ratio"] < 1 < ovf["observed"]["variance_ratio"]


def test_prompts_without_variance_are_counted_and_left_out():
    equal = np.array([[1.0], [0.1], [0.7]])  # the mean of twelve times .1 is not .1
    rewards = np.vstack([gaussian_rewards(20), np.tile(equal, 12)])
    result = clustering.analyse(rewards, simulations=9)
    assert result["zero_variance_prompts"] == 3
    assert result["moments"]["std"] == pytest.approx(1)
    json.dumps(result, allow_nan=False)
    assert not clustering.gaussian.standardise(rewards[20:]).any()
    with pytest.raises(ValueError, match="every prompt's rewards are equal"):
        clustering.analyse(rewards[20:])


def test_histogram_is_a_density_beside_its_prediction():
    histogram = clustering.analyse(gaussian_rewards(), simulations=9)["histogram"]
    width = np.diff(histogram["edges"])
    assert (histogram["density"] * width).sum() == pytest.approx(1, abs=1e-3)
    assert (histogram["gaussian_groups"] * width).sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ([[1.0, float("nan"), 2.0]], "not finite"),
        ([[1.0, 2.0, 3.0], [1.0, 2.0]], "rectangular"),
        ([[1.0, 2.0]], "cannot be subsampled"),
        ([[1.0, 1.0, 1.0, 1.0]], "equal"),
    ],
)
def test_bad_rewards_are_named(rewards, message):
    with pytest.raises(ValueError, match=message):
        clustering.analyse(rewards)


def test_the_smallest_groups_give_finite_numbers():
    result = clustering.analyse(gaussian_rewards(prompts=4, n=4), simulations=19)
    assert json.loads(json.dumps(result, allow_nan=False))["subsampling"][0]["gaussian"]["shares"][-1]["share"] == 1
