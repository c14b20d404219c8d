"""config/claims.yaml is well formed, its numbers are possible, and mistakes in it are one line."""

from copy import deepcopy

import numpy as np
import pytest

from checkout import ROOT
from progrpo.analysis.statistics import holm
from progrpo.config import load_config, tier_files
from progrpo.errors import UserError
from progrpo.report.claims_file import Claims, Contrast, Rule, load_claims
from progrpo.typed import check, read_yaml

FILE = ROOT / "config" / "claims.yaml"


@pytest.fixture(scope="module")
def claims() -> Claims:
    return load_claims(FILE)


def test_the_primary_family_can_be_shown_with_exact_from_seeds(claims):
    """The smallest p of the sign-flip test, 2^-n, survives Holm's factor for the whole family."""
    family = [claim for claim in claims.claims if claim.family == "primary"]
    p = [0.5**claims.exact_from] + [1.0] * (len(family) - 1)
    assert holm(p)[0] < claims.alpha


def test_the_contrast_of_group_sizes_is_the_slope_per_doubling(claims):
    weights = next(claim for claim in claims.claims if claim.id == "group_size").comparison.contrast
    at = np.log2([32, 48, 64])
    slope = (at - at.mean()) / ((at - at.mean()) ** 2).sum()
    assert list(weights.values()) == pytest.approx(slope, abs=1e-3)


def test_a_range_is_ordered():
    with pytest.raises(UserError, match="low must be less than high"):
        check(Rule, {"kind": "within", "low": 2.0, "high": 1.0}, "rule")


def test_every_claim_can_be_judged_in_its_tiers(claims):
    """The arms of a contrast are runs of the tier, and its metrics are measured along the learning curves: else it stays `not run`."""
    tiers = {path.stem: load_config(path) for path in tier_files(ROOT / "config")}
    assert "claims" not in tiers
    for claim in claims.claims:
        assert set(claim.tiers) <= set(tiers)
        for tier in map(tiers.get, claim.tiers):
            if isinstance(claim.comparison, Contrast):
                assert {*claim.comparison.contrast, *(claim.comparison.share_of or {})} <= set(tier.runs), claim.id
                assert set(claim.metrics) <= set(tier.evaluations[tier.learning_curve].scorers), claim.id
    for guard in claims.guards.values():
        assert {*guard.every_seed, *guard.one_of} <= set(
            tiers["mini"].evaluations[tiers["mini"].learning_curve].scorers
        )
        assert guard.baseline in tiers["mini"].runs


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda c: c["comparison"]["contrast"].update(ovf_sd35m=2), "must sum to 0"),
        (lambda c: c.update(guard="none"), "guard 'none' is not defined"),
        (lambda c: c["comparison"].update(contrast={"ovf_sd35m": 0, "uniform_sd35m": 0}), "none be 0"),
        (lambda c: c.update(metrics=["pickscore", "pickscore"]), "a metric stands twice"),
        (lambda c: c.update(id="validity_flow"), "validity_flow stand twice"),
        (lambda c: c.update(rule={"kind": "at_least", "threshold": 1.0}), "does not fit what is compared"),
        (lambda c: c.update(rule={"kind": "equivalence", "margin": 0.2}), "of two arms with a p-value"),
        (lambda c: c.update(id="diffusion"), "claims diffusion stand twice"),
        (lambda c: c.update(metrics=[]), "has guard and metrics"),
        (lambda c: c.update(powr=1), "unknown key"),
    ],
)
def test_a_mistake_is_one_line(edit, complaint):
    data = deepcopy(read_yaml(FILE))
    edit(data["claims"][0])
    with pytest.raises(UserError, match=complaint):
        check(Claims, data, FILE)
