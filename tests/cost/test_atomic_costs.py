"""Counted operations against hand-computed ones and against the published atomic costs."""

import pytest
import torch
import torch.nn.functional as functional

from progrpo.cost import atomic_costs, flops

pytestmark = pytest.mark.xdist_group("atomic_costs")  # its fixture is made once, by one worker


@pytest.fixture(scope="module")
def measured():
    return atomic_costs.measure()


def test_a_linear_layer_and_attention_by_hand():
    layer = torch.nn.Linear(30, 50, device="meta")
    x = torch.empty(7, 30, device="meta")
    assert atomic_costs.tflop(lambda: layer(x)) == pytest.approx(2 * 7 * 30 * 50 / 1e12)
    q = torch.empty(1, 2, 5, 8, device="meta")

    def attend():
        return functional.scaled_dot_product_attention(q, q, q)

    assert atomic_costs.tflop(attend) == pytest.approx(2 * 2 * (2 * 5 * 5 * 8) / 1e12)
    assert atomic_costs.tflop(attend, attention=False) == 0


@pytest.mark.parametrize(
    ("backbone", "cost", "expected"),
    [
        ("sd35m", "denoiser_without_lora", 4.447),
        ("sd35m", "denoiser_without_lora_without_attention", 3.834),
        ("sd35m", "denoiser_without_attention", 3.881),
        ("sd14", "denoiser", 1.607),
        ("sd14", "denoiser_without_attention", 1.354),
        ("sd14", "decoder", 2.515),
        ("sd35m", "decoder_without_attention", 2.480),
        ("sd14", "taesd", 0.141),
        ("sd14", "reward_without_attention", 0.370),
        ("sd35m", "reward_without_attention", 0.340),
    ],
)
def test_official_architectures(measured, backbone, cost, expected):
    assert measured[backbone][cost] == pytest.approx(expected, abs=1.2e-3)


def test_counting_without_attention_reproduces_the_printed_costs(measured):
    for backbone, printed in flops.PRINTED.items():
        for cost in ("denoiser", "decoder", "reward"):
            value = measured[backbone][f"{cost}_without_attention"]
            assert value == pytest.approx(getattr(printed, cost), abs=0.011)


def test_backward_passes_cost_one_forward_with_adapters_and_two_without(measured):
    lora, full = (measured[name]["denoiser_backward"] / measured[name]["denoiser"] for name in ("sd35m", "sd14"))
    assert 1.0 < lora < 1.2
    assert full == pytest.approx(2, abs=0.02)


def test_the_report_is_json_and_orders_the_accountings(measured):
    import json

    report = flops.report(measured)
    json.dumps(report, allow_nan=False)
    totals = {name: rows["runs"]["progrpo_sd35m"]["tflop"]["total"] for name, rows in report["accountings"].items()}
    assert totals["published"] < totals["equation_22_as_written"] < totals["with_attention"]
    assert totals["measured_taesd_previews"] < totals["measured"]
