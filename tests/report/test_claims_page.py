"""Verdicts as words and pictures: what stands on the page, in README's outcome column and in the figures."""

from dataclasses import replace

import numpy as np
import pytest
from stored_curves import ARMS, write_curves, write_tier

from checkout import ROOT
from progrpo.analysis.contrasts import Estimate
from progrpo.errors import UserError
from progrpo.report.arms_page import arm_tables
from progrpo.report.claims_figures import BANDS_FROM, SHOWN, draw_all, draw_held_out, observed
from progrpo.report.claims_file import load_claims
from progrpo.report.claims_page import ARMS as ARM_MARKS
from progrpo.report.claims_page import BEGIN, END, VERDICTS, as_json, page, with_outcomes, with_tables
from progrpo.report.evidence import Evidence
from progrpo.report.verdicts import Verdict, judge

CLAIMS = load_claims(ROOT / "config" / "claims.yaml")
GAINS = {
    "prompts": 9,
    "noise": {"value": 1.1, "low": 1.0, "high": 1.2},
    "signal": {"value": 3.0, "low": 2.0, "high": 5.0},
}


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    config = write_tier(folder)
    write_curves(folder, seeds=3)
    evidence = Evidence(
        config, folder, {"gradient_signal": {**GAINS, "arms": {arm: gain for arm, (gain, _) in ARMS.items()}}}
    )
    return evidence, judge(CLAIMS, evidence)


TABLE = f"""before
{BEGIN}
| claim | where | judged as | outcome in tier `mini` |
|---|---|---|---|
| one | Table 1 | `pro_equal_calls` | old words |
| two | Table 2 | `diffusion`, `flash` | -- |
| none | Table 7 | | old |
| unjudged | Table 3 | no rule: `pro - flow: geneval.overall`, `pro - flow: geneval.colors` | -- |
{END}
after `diffusion` | old |
"""


EVALUATIONS = {
    "pro": {"geneval.overall": {"seeds": {"0": 0.3, "1": 0.5, "3": 0.0}}},
    "flow": {"geneval.overall": {"seeds": {"0": 0.7, "1": 0.7, "2": 0.1}}},
}


def test_the_outcome_column_is_made_from_the_verdicts_and_the_rest_stays():
    verdicts = [
        Verdict(
            "pro_equal_calls", "supported", estimate=Estimate(0.31, 0.2, 0.42, 0.3, 8, ""), runs={"a": {"seeds": [0]}}
        ),
        Verdict("diffusion", "not run"),
        Verdict("flash", "inconclusive", estimate=Estimate(-0.1, -0.3, 0.1, -0.1, 8, ""), runs={"a": {"seeds": [0]}}),
    ]
    text = with_outcomes(TABLE, verdicts, "mini", EVALUATIONS)
    assert "| one | Table 1 | `pro_equal_calls` | supported (+0.31 [0.20, 0.42], n = 8) |" in text
    assert "| `diffusion`, `flash` | diffusion: not run; flash: inconclusive (-0.10 [-0.30, 0.10], n = 8) |" in text
    assert "| none | Table 7 | | -- |" in text
    said = "measured, not judged: geneval.overall -0.30 [-1.57, 0.97], n = 2; geneval.colors not run"
    assert f"`pro - flow: geneval.colors` | {said} |" in text
    assert text.startswith("before\n")
    assert text.endswith("after `diffusion` | old |\n")
    assert with_outcomes(text, verdicts, "mini", EVALUATIONS) == text
    assert with_outcomes(TABLE, [], "paper", {}) == TABLE


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (TABLE.replace(END, ""), "must stand once each"),
        (TABLE.replace("flash", "flush"), "the claim flush is not judged"),
    ],
)
def test_a_table_that_cannot_be_filled_is_one_line(text, complaint):
    with pytest.raises(UserError, match=complaint):
        with_outcomes(text, [Verdict("pro_equal_calls", "not run"), Verdict("diffusion", "not run")], "mini", {})


def test_the_first_screen_has_the_guards_and_the_primary_claims(judged):
    begin, end = (marker.format(tier="mini") for marker in VERDICTS)
    text = with_tables(f"before\n{begin}\nold\n{end}\nafter", CLAIMS, judged[1], [], "mini")
    rows = text.split(begin)[1].split(end)[0].strip().splitlines()
    found = {verdict.id: verdict for verdict in judged[1]}
    assert text.startswith("before\n")
    assert text.endswith("\nafter")
    assert "old" not in text
    primary = [claim for claim in CLAIMS.claims if claim.family == "primary"]
    assert [row.split(" | ")[0] for row in rows[-len(primary) :]] == [f"| {claim.statement}" for claim in primary]
    calls = rows[[claim.id for claim in primary].index("pro_equal_calls") - len(primary)]
    verdict = found["pro_equal_calls"]
    assert f"| equal calls | {verdict.estimate.effect:+.2f} [" in calls
    assert calls.endswith(f"| {verdict.p_holm:.4f} | 3 | **{verdict.verdict}** |")
    assert (
        f"does `flowgrpo_sd35m` learn? (`validity_flow`) | | | | 3 | **{found['validity_flow'].verdict}** |"
        in "\n".join(rows)
    )
    assert with_tables(text, CLAIMS, judged[1], [], "mini") == text
    assert with_tables(text, CLAIMS, judged[1], [], "paper") == text
    with pytest.raises(UserError, match="must stand once each"):
        with_tables(text.replace(end, ""), CLAIMS, judged[1], [], "mini")


def test_arms_of_a_guard_that_holds_are_ranked_by_their_gain_in_the_baselines(judged):
    evidence, verdicts = judged
    head, _, *rows = arm_tables(CLAIMS, verdicts, evidence)
    cells = {row.split("`")[1]: [cell.strip() for cell in row.split("|")[2:-1]] for row in rows}
    assert len(head.split("|")) == 9
    gains = [float(values[2]) for values in cells.values()]
    assert gains == sorted(gains, reverse=True)
    flow = evidence.config.runs["flowgrpo_sd35m"]
    assert cells["flowgrpo_sd35m"][:3] == [str(flow.group.size), "3", "1.00"]
    size, *stages = (
        evidence.config.runs["progrpo_sd35m"].group.size,
        *evidence.config.runs["progrpo_sd35m"].group.pruning,
    )
    kept = "".join(f", {stage.keep} after {stage.step}" for stage in stages)
    unit = np.mean([evidence.gain("flowgrpo_sd35m", "pickscore", seed)[1][-1].mean() for seed in range(3)])
    shares = [evidence.gain("progrpo_sd35m", "pickscore", seed)[1][-1].mean() / unit for seed in range(3)]
    law = f"{ARMS['progrpo_sd35m'][0]:.2f}"
    assert cells["progrpo_sd35m"] == [
        *(f"{size}{kept}", "3", f"{np.mean(shares):.2f}"),
        *(f"{min(shares):.2f} to {max(shares):.2f}", "1.00", law),
    ]
    runs = evidence.config.runs | {
        "progrpo_sd35m": evidence.config.runs["progrpo_sd35m"].model_copy(update={"iterations": 308})
    }
    longer = Evidence(evidence.config.model_copy(update={"runs": runs}), evidence.source, evidence.analyses)
    assert f"| {size}{kept}; 308 iterations | 3 |" in "\n".join(arm_tables(CLAIMS, verdicts, longer))


def test_arms_of_a_guard_that_fails_have_no_unit_and_no_row(judged):
    evidence, verdicts = judged
    failed = [replace(v, verdict="not supported") if v.id.startswith("validity") else v for v in verdicts]
    assert arm_tables(CLAIMS, failed, evidence) == []


def test_the_table_of_arms_stands_between_its_markers_and_on_the_page(judged):
    evidence, verdicts = judged
    arms = arm_tables(CLAIMS, verdicts, evidence)
    begin, end = (marker.format(tier="mini") for marker in ARM_MARKS)
    text = with_tables(f"before\n{begin}\nold\n{end}\nafter", CLAIMS, verdicts, arms, "mini")
    assert text == "\n".join(["before", begin, *arms, end, "after"])
    assert "\n".join(arms) in page(CLAIMS, verdicts, arms, "mini")
    with pytest.raises(UserError, match="must stand once each"):
        with_tables(text + end, CLAIMS, verdicts, arms, "mini")


def test_the_page_names_every_claim_its_runs_and_their_configurations(judged):
    evidence, verdicts = judged
    text = page(CLAIMS, verdicts, [], "mini")
    for claim in CLAIMS.of_tier("mini"):
        assert f"(`{claim.id}`)" in text
    assert "| `pro_equal_calls` | `progrpo_sd35m` | 0, 1, 2 | `hash-of-progrpo_sd35m` |" in text
    rows = [line for line in text.splitlines() if line.startswith("| ") and "`clustering_share`" in line]
    assert rows[0].replace("\\|", "").count("|") == 10  # the bars of |A| are no columns


def test_an_interval_that_leaves_out_the_papers_number_says_so(judged):
    found = {record["id"]: record for record in as_json(CLAIMS, judged[1], "mini")["verdicts"]}
    assert found["pro_equal_iterations"]["excludes_paper"] is True
    assert found["pro_equal_calls"]["excludes_paper"] is None


def test_every_figure_is_drawn_with_results_and_without(judged, tmp_path):
    evidence, verdicts = judged
    paths = draw_all(CLAIMS, verdicts, evidence, tmp_path / "some")
    names = {"forest", "predicted", "pairs", *(f"curves_{guard}" for guard in CLAIMS.guards)}
    assert {path.name for path in paths} == {f"claims_{name}.{end}" for name in names for end in ("pdf", "png")}
    nothing = Evidence(evidence.config, tmp_path, {})
    empty = draw_all(CLAIMS, judge(CLAIMS, nothing), nothing, tmp_path / "none")
    assert all(path.stat().st_size > 1000 for path in (*paths, *empty))
    forest = tmp_path / "some" / "claims_forest.pdf"
    first = forest.read_bytes()
    draw_all(CLAIMS, verdicts, evidence, tmp_path / "some")
    assert forest.read_bytes() == first


@pytest.mark.parametrize("seeds", [BANDS_FROM - 1, BANDS_FROM])
def test_few_seeds_are_thin_lines_and_more_a_band(tmp_path, seeds):
    config = write_tier(tmp_path)
    write_curves(tmp_path, seeds=seeds)
    axis = draw_held_out(CLAIMS, "flow", Evidence(config, tmp_path, {})).axes[0]
    few = seeds < BANDS_FROM
    assert len(axis.lines) == SHOWN * (1 + seeds if few else 1)
    assert len(axis.collections) == (0 if few else SHOWN)


def test_the_error_of_a_prediction_is_that_of_the_difference_in_each_seed(judged):
    """An arm that gains half of what the baseline gains, seed by seed, is known to do so, however much that varies."""
    evidence, _ = judged
    guard = CLAIMS.guards["flow"]
    found = observed("progrpo_sd35m", 0.5, guard, evidence)
    gains, baseline = (
        np.array([evidence.final_gains(arm, "pickscore", [seed]).mean() for seed in range(3)])
        for arm in ("progrpo_sd35m", guard.baseline)
    )
    assert found.mean() == pytest.approx(gains.mean() / baseline.mean())
    assert found.std() == pytest.approx((gains - 0.5 * baseline).std() / baseline.mean())
    assert observed(guard.baseline, 1.0, guard, evidence) == pytest.approx([1.0] * 3)


def test_curves_of_a_baseline_that_does_not_learn_say_that_they_are_void(judged):
    evidence, _ = judged
    for verdict, titles in (
        ("not supported", ["", "void: validity_flow is not supported", ""]),
        ("supported", [""] * 3),
    ):
        figure = draw_held_out(CLAIMS, "flow", evidence, Verdict("validity_flow", verdict))
        assert [axis.get_title() for axis in figure.axes] == titles
