"""The generated page says what the computations show."""

import json

import pytest

from checkout import ROOT
from progrpo.analysis import gaussian
from progrpo.cost import flops
from progrpo.paper_runs import SD14, SD35M
from progrpo.report import discrepancies as claims
from progrpo.report.agreements import agreements
from progrpo.report.discrepancies_page import render
from progrpo.report.tables.layout import load_layout

MEASURED = {
    "sd35m": {"denoiser": 4.494, "denoiser_without_attention": 3.881},
    "sd14": {"denoiser": 1.607, "denoiser_without_attention": 1.354},
}


@pytest.fixture(scope="module")
def found():
    return {claim["id"]: claim for claim in claims.discrepancies(MEASURED)}


def test_the_saving_of_sd14_changes_sign_without_a_reference(found):
    values = found["reference_model"]["values"]
    assert values["passes_4"] == pytest.approx(-0.0914, abs=1e-4)
    assert values["passes_3"] == pytest.approx(0.0097, abs=1e-4)


def test_flow_wall_clock_fits_no_schedule_against_24(found):
    values = found["wall_clock_flow"]["values"]
    assert values["total"] == pytest.approx(2.408, abs=1e-3)
    assert values["denoiser"] < values["progrpo_flash_sd35m_against_24"] < values["progrpo_sd35m_against_24"]


def test_twice_the_prompts_are_more_calls_than_the_baselines(found):
    values = found["prompts_per_batch"]["values"]
    assert values["prompts_64"] == pytest.approx(1.74, abs=1e-3)
    assert values["prompts_32"] == pytest.approx(0.87, abs=1e-3)


def test_prompts_per_epoch(found):
    values = found["epoch_definition"]["values"]
    assert values["flowgrpo_sd35m"] == pytest.approx(96, abs=0.01)
    assert values["dancegrpo_sd14"] == pytest.approx(4, abs=1e-6)


def test_the_page_holds_every_claim_and_its_computation(found):
    agreed = agreements()
    page = render(list(found.values()), agreed)
    for claim in [*found.values(), *agreed]:
        assert f"## {claim['title']}\n" in page
        assert all(f"- {line}\n" in page for line in claim["computation"])
    json.dumps([*found.values(), *agreed], allow_nan=False)


def test_the_papers_numbers_in_code_are_those_of_its_tables():
    """The code computes with numbers that the tables print: each has two places, and the same value at both."""
    cells = {
        name: {row.key: row for row in load_layout(name, ROOT / "paper_tables/expected").rows}
        for name in ("wall_clock", "flops_flow", "flops_diffusion", "pruning_pilot", "group_size", "pruning_steps")
    }
    for run, (vae, denoiser) in claims.TABLE13.items():
        row = cells["wall_clock"][run]
        assert (row.paper_value("vae"), row.paper_value("denoiser")) == (vae, denoiser)
    for run, published in flops.PUBLISHED.items():
        row = cells["flops_diffusion" if run.endswith("sd14") else "flops_flow"][run]
        assert (row.paper_value("tflop"), row.paper_value("label")) == (published.tflop, published.label)
    for model, table in ((SD35M, "flops_flow"), (SD14, "flops_diffusion")):
        printed = flops.PRINTED[model]
        rows = (("noise_prediction", printed.denoiser), ("vae_decoding", printed.decoder), ("reward", printed.reward))
        assert all(cells[table][key].paper_value("tflop") == value for key, value in rows)
    for pair, ratio in flops.TABLE9_COST_RATIOS.items():
        row = cells["pruning_pilot"][",".join(map(str, pair))]
        found = [row.paper_value(key) for key in ("cost_ratio", "variance", "spearman_first", "spearman_second")]
        assert found == [ratio, gaussian.TABLE9_VARIANCE[pair], *(gaussian.TABLE9_SPEARMAN[step] for step in pair)]
    best = "test_diffusion.hpsv2"
    for size, value in claims.TABLE5_HPSV2.items():
        key = "progrpo_sd14" if size == 48 else f"progrpo_sd14_g{size}"
        assert cells["group_size"][key].paper_value(best) == value
    assert cells["pruning_steps"]["progrpo_sd14"].paper_value(best) == claims.TABLE6_HPSV2


def test_with_costs_exchanged_the_flow_schedule_still_saves_more(found):
    """By hand: 1 - (840 c + 84 d) / (1200 c + 24 d) at SD-v1.4's c = 1.36, d = 2.86; the other schedule at c = 3.88, d = 2.83."""
    values = found["savings_by_schedule"]["values"]
    assert values["progrpo_sd35m"] == pytest.approx(1 - (840 * 1.36 + 84 * 2.86) / (1200 * 1.36 + 24 * 2.86))
    assert values["progrpo_sd14"] == pytest.approx(1 - (3480 * 3.88 + 88 * 2.83) / (4000 * 3.88 + 16 * 2.83))
    assert values["progrpo_sd35m"] > values["progrpo_sd14"]
