"""Optimal variance filtering against brute force, its invariances, and the rules beside it."""

import itertools
import math

import pytest
import torch

from progrpo import plugins
from progrpo.grpo.ovf import best_of_n, check_finite, optimal_variance_filter, uniform


def kept_variance(rewards, kept):
    return rewards.gather(1, kept).var(dim=1, correction=0)


def best_variance(row, keep):
    return max(row[list(subset)].var(correction=0).item() for subset in itertools.combinations(range(len(row)), keep))


def random_groups(kind, count):
    generator = torch.Generator().manual_seed(count)
    draws = torch.rand(6, count, generator=generator, dtype=torch.float64)
    return {
        "distinct": draws,
        "few values": (draws * 3).floor(),
        "binary": draws.round(),
        "equal": torch.full_like(draws, 0.1),
        "outlier": draws + 100 * (draws > 0.8),
        "large offset": draws + 1e6,
    }[kind]


@pytest.mark.parametrize("kind", ["distinct", "few values", "binary", "equal", "outlier", "large offset"])
@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_no_subset_has_a_larger_variance(kind, count):
    rewards = random_groups(kind, count)
    for keep in range(1, count + 1):
        kept = optimal_variance_filter(rewards, keep)
        assert kept.shape == (6, keep)
        assert kept.dtype == torch.long
        assert (kept.diff(dim=1) > 0).all()  # ascending, hence distinct
        best = torch.tensor([best_variance(row, keep) for row in rewards], dtype=torch.float64)
        torch.testing.assert_close(kept_variance(rewards, kept), best, rtol=1e-9, atol=1e-12)


def test_a_batch_is_its_rows():
    rewards = torch.randn(20, 24, generator=torch.Generator().manual_seed(0))
    rewards[10:] = (rewards[10:] * 2).round()
    together = optimal_variance_filter(rewards, 12)
    for row, kept in zip(rewards, together, strict=True):
        assert torch.equal(optimal_variance_filter(row[None], 12)[0], kept)


def test_a_permutation_of_distinct_rewards_permutes_the_survivors():
    generator = torch.Generator().manual_seed(1)
    rewards = torch.randn(1, 24, generator=generator)
    order = torch.randperm(24, generator=generator)
    moved = optimal_variance_filter(rewards[:, order], 12)
    assert torch.equal(order[moved].sort().values, optimal_variance_filter(rewards, 12))


@pytest.mark.parametrize("keep", [1, 3, 7, 12])
def test_offset_and_factor_change_nothing_even_under_ties(keep):
    # Odd keep on symmetric values: the splits a and keep - a tie exactly, and rounding alone would choose.
    rewards = torch.arange(24, dtype=torch.float64).repeat(4, 1)
    rewards[1] = rewards[1] // 4
    rewards[2] = rewards[2] % 2
    expected = optimal_variance_filter(rewards, keep)
    for offset, factor in [(0.1, 1), (-11.5, 0.1), (1e6, 3), (0, 1e-9), (0, 1e200), (0, 5e306)]:
        assert torch.equal(optimal_variance_filter(rewards * factor + offset, keep), expected)


def test_a_range_beyond_the_largest_number_is_a_range():
    rewards = torch.tensor([[-1.5e308, 0.0, 1.0, 1.5e308]], dtype=torch.float64)
    assert optimal_variance_filter(rewards, 2).tolist() == [[0, 3]]


def test_equal_rewards_keep_the_last_and_one_survivor_is_the_best():
    assert optimal_variance_filter(torch.full((1, 6), 0.3), 2).tolist() == [[4, 5]]
    assert optimal_variance_filter(torch.tensor([[0.2, 0.9, 0.1, 0.5]]), 1).tolist() == [[1]]
    assert optimal_variance_filter(torch.tensor([[0.2, 0.9, 0.1]]), 3).tolist() == [[0, 1, 2]]
    assert optimal_variance_filter(torch.tensor([[5.0, 0.0, 10.0, 0.0, 4.0, 10.0]]), 4).tolist() == [[1, 2, 3, 5]]


@pytest.mark.parametrize("ones", [0, 1, 3, 6, 11, 12])
def test_binary_rewards_keep_as_many_ones_as_zeros(ones):
    """PODS (arXiv 2504.13818), theorem 2: half of each, as far as there are that many."""
    rewards = (torch.randperm(12, generator=torch.Generator().manual_seed(ones)) < ones).float()[None]
    kept = rewards.gather(1, optimal_variance_filter(rewards, 6))
    assert kept.sum().item() == min(max(3, 6 - (12 - ones)), ones)


@pytest.mark.parametrize(("count", "keep", "published"), [(24, 12, 1.755), (48, 12, 2.764), (48, 8, 3.336)])
def test_variance_of_gaussian_survivors(count, keep, published):
    """The mean over 10,000 groups of N(0, 1) lies within 4 standard errors of the published one (rounded)."""
    rewards = torch.randn(10_000, count, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    variance = kept_variance(rewards, optimal_variance_filter(rewards, keep))
    assert variance.mean().item() == pytest.approx(published, abs=0.0005 + 4 * variance.std().item() / 100)


def test_best_of_n_takes_fixed_halves():
    rewards = torch.tensor([[5.0, 1.0, 4.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0, 9.0]])
    assert best_of_n(rewards, 4).tolist() == [[0, 1, 2, 3], [0, 1, 3, 4]]
    assert best_of_n(rewards, 3).tolist() == [[0, 1, 2], [0, 3, 4]]  # the odd one is a high one
    assert best_of_n(rewards, 1).tolist() == [[0], [4]]


def test_best_of_n_never_beats_ovf():
    rewards = torch.rand(200, 24, generator=torch.Generator().manual_seed(3), dtype=torch.float64) ** 4
    halves, optimal = (kept_variance(rewards, rule(rewards, 12)) for rule in (best_of_n, optimal_variance_filter))
    assert (halves <= optimal + 1e-12).all()
    assert (halves < optimal - 1e-6).any()


def test_uniform_depends_on_the_seed_and_not_on_rewards():
    rewards = torch.randn(3, 24, generator=torch.Generator().manual_seed(4))
    kept = uniform(rewards, 12, [7, 8, 7])
    assert torch.equal(kept, uniform(-rewards.abs(), 12, [7, 8, 7]))
    assert torch.equal(kept[0], kept[2])
    assert not torch.equal(kept[0], kept[1])


def test_uniform_is_uniform():
    prompts, count, keep = 4000, 8, 3
    kept = uniform(torch.zeros(prompts, count), keep, list(range(prompts)))
    expected = prompts * keep / count
    deviation = math.sqrt(prompts * keep / count * (1 - keep / count))
    assert (kept.flatten().bincount(minlength=count) - expected).abs().max().item() < 4.5 * deviation


@pytest.mark.parametrize("name", sorted(plugins.SELECTION_RULES))
def test_rules_share_call_shape_and_errors(name):
    rule = plugins.load(name, plugins.SELECTION_RULES)
    rewards = torch.randn(2, 6, generator=torch.Generator().manual_seed(5))
    kept = rule(rewards, 4, [0, 1])
    assert kept.shape == (2, 4)
    assert (kept.diff(dim=1) > 0).all()
    assert kept.min() >= 0
    assert kept.max() < 6
    for keep in (0, 7):
        with pytest.raises(ValueError, match="1..6"):
            rule(rewards, keep, [0, 1])
    with pytest.raises(ValueError, match="shape"):
        rule(rewards[0], 4, [0])
    rewards[1, 3], rewards[0, 2] = math.nan, -math.inf
    with pytest.raises(ValueError, match=r"\(0, 2\), \(1, 3\)$"):
        rule(rewards, 4, [0, 1])


def test_a_long_list_of_bad_rewards_is_shortened():
    with pytest.raises(ValueError, match=r"\(0, 7\) and 12 more$"):
        check_finite(torch.full((2, 10), math.nan))


def test_uniform_needs_a_seed_for_each_prompt():
    with pytest.raises(ValueError, match="each of 2 prompts"):
        uniform(torch.zeros(2, 3), 1, [0])
