"""Rank correlations, survivors, and the decision rule on the paper's own numbers."""

import json

import numpy as np
import pytest
from scipy import stats

from progrpo.analysis import gaussian
from progrpo.analysis import pruning_pilot as pilot
from progrpo.cost.flops import Phases, cost_ratio
from progrpo.rank_correlation import rank_correlations


def pool(correlations, prompts=80, n=48, seed=0):
    """Terminal rewards and previews whose Pearson correlation with them is given per step."""
    generator = np.random.default_rng(seed)
    terminal = generator.normal(size=(prompts, n))
    rho = np.asarray(correlations)
    noise = generator.normal(size=(prompts, n, len(rho)))
    return rho * terminal[:, :, None] + np.sqrt(1 - rho**2) * noise, terminal


def test_a_perfect_proxy_has_spearman_one_and_a_reversed_one_minus_one():
    _, terminal = pool([0])
    previews = np.stack([terminal, np.exp(terminal), -terminal], axis=2)
    np.testing.assert_allclose(rank_correlations(previews, terminal), [[1, 1, -1]] * len(terminal))


def test_rank_correlations_agree_with_scipy_under_ties():
    generator = np.random.default_rng(0)
    previews, terminal = generator.integers(0, 4, (5, 12, 3)), generator.integers(0, 3, (5, 12))
    expected = [
        [stats.spearmanr(previews[p, :, t], terminal[p]).statistic for t in range(3)] for p in range(len(terminal))
    ]
    np.testing.assert_allclose(rank_correlations(previews, terminal), expected)


def test_groups_without_a_ranking_are_left_out():
    previews, terminal = pool([0.9, 0.9], prompts=4)
    previews[0] = 1.0
    rows = pilot.reliability(previews, terminal)
    assert [row["prompts"] for row in rows] == [3, 3]
    assert rows[0]["spearman"] > 0.7
    assert pilot.reliability(np.ones((2, 6, 1)), terminal[:2, :6])[0]["spearman"] == 0


def test_perfect_previews_keep_what_the_oracle_keeps():
    _, terminal = pool([0])
    previews = np.repeat(terminal[:, :, None], 4, axis=2)
    kept = pilot.survivors_variance(previews, terminal, (1, 2), (48, 12, 12))
    assert kept.mean() == pytest.approx(pilot.reference_variances(terminal, 12)["oracle"])


def test_survivors_by_hand():
    # Step 1 keeps 0, 1, 4, 5 of six rewards 0..5; step 2 reverses the order, so the extremes 0 and 5 stay.
    terminal = np.arange(6.0)[None]
    previews = np.stack([np.zeros((1, 6)), terminal, -terminal], axis=2)
    assert pilot.survivors_variance(previews, terminal, (1, 2), (6, 4, 2)) == pytest.approx([6.25])


def published_candidates():
    """Table 9."""
    return [
        pilot.Candidate(
            pair,
            (gaussian.TABLE9_SPEARMAN[pair[0]], gaussian.TABLE9_SPEARMAN[pair[1]]),
            variance,
            cost_ratio(Phases((48, 24, 12), pair, 10)),
        )
        for pair, variance in gaussian.TABLE9_VARIANCE.items()
    ]


def test_the_rule_reproduces_the_four_published_decisions():
    assert pilot.decide(published_candidates()) == {
        (2, 4): "unreliable",
        (4, 6): "borderline",
        (5, 7): "selected",
        (7, 9): "inefficient",
    }


def test_without_tolerance_only_the_best_is_selected_and_with_much_the_cheapest():
    candidates = published_candidates()
    assert pilot.decide(candidates, 0.0)[(7, 9)] == "selected"
    assert pilot.decide(candidates, 0.7)[(2, 4)] == "selected"


def test_low_variance_alone_is_inseparable():
    cheap = pilot.Candidate((1, 2), (0.9, 0.9), 0.1, 0.4)
    dear = pilot.Candidate((3, 4), (0.9, 0.9), 1.0, 0.8)
    assert pilot.decide([dear, cheap])[(1, 2)] == "inseparable"


def test_the_published_correlations_lead_to_the_published_pair():
    """Previews with Table 9's correlations, 48 -> 24 -> 12: the pilot selects (5, 7) and CostRatio .675."""
    spearman = [0.05, 0.1, 0.3354, 0.55, 0.6954, 0.7922, 0.8579, 0.8957, 0.95, 0.9984]
    previews, terminal = pool([gaussian.pearson_of_spearman(s) for s in spearman], prompts=200)
    result = pilot.analyse(previews, terminal)
    assert result["selected"] == {"pruning_steps": [5, 7], "fractions": [0.5, 0.7], "in_paper_region": True}
    assert [row["cost_ratio"] for row in result["candidates"]] == [0.45, 0.6, 0.675, 0.825]
    for row in result["candidates"]:
        assert row["variance_low"] < row["variance"] < row["variance_high"]
    variances = result["reference_variances"]
    assert variances["random"] < variances["pool"] < result["candidates"][2]["variance"] < variances["oracle"]
    json.dumps(result, allow_nan=False)


def test_candidates_scale_with_the_number_of_steps():
    assert pilot.candidate_pairs(10) == ((2, 4), (4, 6), (5, 7), (7, 9))
    assert pilot.candidate_pairs(50) == ((10, 20), (20, 30), (25, 35), (35, 45))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"counts": (24, 12, 6)}, "pool"), ({"pairs": ((7, 5),)}, "t1 < t2"), ({"pairs": ((5, 10),)}, "t1 < t2")],
)
def test_impossible_options_are_refused(options, message):
    previews, terminal = pool([0.5] * 10, prompts=3)
    with pytest.raises(ValueError, match=message):
        pilot.analyse(previews, terminal, **options)


def test_shapes_must_agree():
    previews, terminal = pool([0.5] * 10, prompts=3)
    with pytest.raises(ValueError, match="disagree"):
        pilot.analyse(previews, terminal[:2])
