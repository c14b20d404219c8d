"""The published totals to the cent, the counts behind them, and the CostRatio."""

import pytest

from progrpo.cost import flops
from progrpo.cost.flops import Phases


@pytest.mark.parametrize("name", flops.PUBLISHED)
def test_published_totals_come_out_to_the_cent(name):
    total = flops.run_tflop(name, "published", {})["total"]
    assert f"{total:.2f}" == f"{flops.PUBLISHED[name].tflop:.2f}"


def test_equation_22_as_written_gives_other_totals():
    expected = {"progrpo_sd35m": 349113.60, "progrpo_flash_sd35m": 277843.20, "progrpo_sd14": 20155.52}
    for name, total in expected.items():
        assert flops.run_tflop(name, "equation_22_as_written", {})["total"] == pytest.approx(total, abs=0.005)


@pytest.mark.parametrize(
    ("name", "sampling", "total", "decodes"),
    [
        ("flowgrpo_sd35m", 240, 1200, 24),
        ("progrpo_sd35m", 360, 840, 84),
        ("progrpo_flash_sd35m", 200, 680, 52),
        ("dancegrpo_sd14", 800, 4000, 16),
        ("progrpo_sd14", 1880, 3480, 88),
    ],
)
def test_calls_per_prompt(name, sampling, total, decodes):
    calls = flops.call_counts(flops.PUBLISHED[name].phases)
    assert (calls["denoiser"], calls["total"], calls["decoder"]) == (sampling, total, decodes)


def test_calls_without_preview_recomputed_and_reused():
    """24 -> 18 -> 12 at 4 and 6 of 10: 180 calls without previews, 222 with a call for all, 192 with reuse."""
    phases = Phases((24, 18, 12), (4, 6), 10)
    assert flops.phase_calls(phases) == 180
    assert flops.sampling_calls(phases, "recompute") == 222
    assert flops.sampling_calls(phases, "reuse") == 192


def test_a_static_arm_scores_its_whole_group_once():
    calls = flops.call_counts(Phases((24, 12), (10,), 10))
    assert calls["denoiser"] == 240
    assert calls["decoder"] == 24
    assert calls["update"] == 4 * 10 * 12


def test_cost_ratios_are_exact():
    for pair, paper in flops.TABLE9_COST_RATIOS.items():
        assert flops.cost_ratio(Phases(flops.TABLE9_COUNTS, pair, 10)) == paper


def test_true_ratios_differ_from_the_labels():
    rows = flops._accounting_rows("published", {})
    for name, ratio in {"progrpo_sd35m": 1.351, "progrpo_flash_sd35m": 1.696, "progrpo_sd14": 1.101}.items():
        assert rows[name]["speedup"] == pytest.approx(ratio, abs=5e-4)
        assert round(rows[name]["one_plus_reduction"], 2) == flops.PUBLISHED[name].label


def test_any_two_totals_give_the_same_atomic_costs():
    for pair in (("flowgrpo_sd35m", "progrpo_sd35m"), ("progrpo_sd35m", "progrpo_flash_sd35m")):
        denoiser, image = flops.solve_atomic_costs(*pair)
        assert denoiser == pytest.approx(3.88, abs=1e-6)
        assert image == pytest.approx(2.82039, abs=1e-5)


@pytest.mark.parametrize(
    ("counts", "steps"), [((12, 24), (5,)), ((24, 12), ()), ((24, 12, 6), (7, 5)), ((24, 12), (11,))]
)
def test_impossible_schedules_are_refused(counts, steps):
    with pytest.raises(ValueError, match="counts|pruning steps"):
        Phases(counts, steps, 10)
