"""Intervals and tests against hand computation."""

import numpy as np
import pytest

from progrpo.analysis import statistics


def test_mean_interval_by_hand():
    interval = statistics.mean_interval([1.0, 2.0, 3.0])
    assert interval["mean"] == 2
    assert interval["std"] == 1
    assert interval["high"] - 2 == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)
    assert statistics.mean_interval([5.0]) == {"mean": 5.0, "low": None, "high": None, "std": None, "n": 1}


def test_mean_interval_covers_its_mean_95_times_of_100():
    samples = np.random.default_rng(0).normal(size=(2000, 5))
    covered = [row["low"] <= 0 <= row["high"] for row in map(statistics.mean_interval, samples)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_bootstrap_is_deterministic_and_about_as_wide_as_the_normal_interval():
    values = np.random.default_rng(0).normal(size=400)
    first, second = statistics.bootstrap_interval(values), statistics.bootstrap_interval(values)
    assert first == second
    assert first["value"] == pytest.approx(values.mean())
    assert first["high"] - first["low"] == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_paired_test_removes_what_the_pairs_share():
    shared = np.array([0.0, 10.0, 20.0, 30.0])
    result = statistics.paired_test(shared + [1.0, 1.2, 0.8, 1.0], shared)
    assert result["difference"] == pytest.approx(1.0)
    assert result["low"] > 0
    assert result["p_value"] < 0.01


def test_paired_test_of_one_pair_and_of_equal_differences():
    assert statistics.paired_test([1.0], [0.0])["p_value"] is None
    assert statistics.paired_test([1.0, 2.0], [1.0, 2.0])["p_value"] == 1.0
    assert statistics.paired_test([2.0, 3.0], [1.0, 2.0])["p_value"] == 0.0
    with pytest.raises(ValueError, match="equal lengths"):
        statistics.paired_test([1.0, 2.0], [1.0])


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    for wrong in ([0.1, float("nan")], [1.1], [-0.1], [[0.1, 0.2]]):
        with pytest.raises(ValueError, match="p-values must be"):
            statistics.holm(wrong)


def test_paired_tests_adjust_only_what_was_tested():
    results = statistics.paired_tests(
        {"a": ([1.0, 2.1, 2.9], [0.0, 1.0, 2.0]), "b": ([1.0], [0.0]), "c": ([0.0, 1.0, 0.5], [0.1, 0.8, 0.6])}
    )
    assert results["b"]["p_holm"] is None
    assert results["a"]["p_holm"] == pytest.approx(2 * results["a"]["p_value"])
