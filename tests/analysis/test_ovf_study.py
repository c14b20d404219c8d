"""Curves and paired comparisons of the three arms."""

import numpy as np
import pytest

from progrpo.analysis import ovf_study


def arms(seeds=4, iterations=50):
    noise = np.random.default_rng(0).normal(scale=0.01, size=(seeds, 1))
    ramp = np.linspace(0, 1, iterations)
    return {
        "full": {"reward": noise + ramp, "reward_std": noise + 0.1 + 0 * ramp},
        "uniform": {"reward": noise + ramp, "reward_std": noise + 0.1 + 0 * ramp},
        "ovf": {"reward": noise + 1.5 * ramp, "reward_std": noise + 0.2 + 0 * ramp},
    }


def test_trailing_mean_by_hand():
    np.testing.assert_allclose(ovf_study.smooth(np.array([1.0, 3.0, 5.0, 7.0]), 2), [1, 2, 4, 6])


def test_the_higher_arm_is_found_and_the_equal_one_is_not():
    result = ovf_study.analyse(arms())
    comparisons = result["comparisons"]
    assert comparisons["ovf - full: reward_std"]["difference"] == pytest.approx(0.1)
    assert comparisons["ovf - full: reward"]["p_holm"] < 0.01
    assert comparisons["uniform - full: reward"]["p_holm"] == 1.0
    assert comparisons["ovf - uniform: reward"]["p_holm"] < 0.01
    assert len(result["curves"]["ovf"]["reward"]["mean"]) == result["iterations"] == 50


def test_one_seed_has_curves_and_no_intervals():
    result = ovf_study.analyse(arms(seeds=1))
    assert result["curves"]["full"]["reward"]["low"][0] is None
    assert result["comparisons"]["ovf - full: reward"]["p_value"] is None


def test_arms_that_do_not_match_are_refused():
    data = arms()
    with pytest.raises(ValueError, match="missing: ovf"):
        ovf_study.analyse({"full": data["full"], "uniform": data["uniform"]})
    data["ovf"] = {key: values[:, :40] for key, values in data["ovf"].items()}
    with pytest.raises(ValueError, match="differ"):
        ovf_study.analyse(data)
