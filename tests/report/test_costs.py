"""Calls and seconds of a training, counted from its logs."""

import pytest

from checkout import ROOT
from progrpo.config import load_config
from progrpo.cost.budget import phases_of
from progrpo.cost.flops import POLICY_CALLS, sampling_calls
from progrpo.errors import UserError
from progrpo.files import read_json, read_jsonl, write_json, write_jsonl
from progrpo.provenance import decisive_hash
from progrpo.report.costs import run_costs

CONFIG = load_config(ROOT / "config" / "smoke.yaml")


def write_run(folder, run, iterations):
    write_jsonl(folder / "metrics.jsonl", [{"iteration": k + 1, "denoiser_calls": 720} for k in range(iterations)])
    times = [{"iteration": k + 1, "rollout": 1.0 + 50 * (k == 0), "update": 2.0} for k in range(iterations)]
    write_jsonl(folder / "timings.jsonl", times)
    (folder / "final").mkdir()
    write_json(folder / "final" / "provenance.json", {"config": "abc", "seed": 3, "device": "cpu"})


@pytest.mark.parametrize(("name", "per_pair"), [("flowgrpo_sd35m", 4), ("dancegrpo_sd14", 3)])
def test_an_update_costs_four_calls_per_pair_with_a_reference_and_three_without(tmp_path, name, per_pair):
    run = CONFIG.runs[name].model_copy(update={"iterations": 5})
    write_run(tmp_path, run, 5)
    costs = run_costs(tmp_path, run)
    assert costs["sampling_calls"] == 720
    assert costs["update_calls"] == run.prompts_per_iteration * run.group.survivors * run.trained_steps * per_pair
    assert (costs["rollout_seconds"], costs["update_seconds"]) == (1.0, 2.0)  # one slow iteration does not count
    assert (costs["config"], costs["seed"], costs["device"]) == ("abc", 3, "cpu")


def test_a_run_of_other_settings_has_no_costs(tmp_path):
    """Calls are counted from the settings, and the weights' hash would vouch for them."""
    run = CONFIG.runs["flowgrpo_sd35m"].model_copy(update={"iterations": 5})
    write_run(tmp_path, run, 5)
    path = tmp_path / "final" / "provenance.json"
    write_json(path, {**read_json(path), "decides": decisive_hash(run)})
    assert run_costs(tmp_path, run)["iterations"] == 5
    other = run.model_copy(update={"prompts_per_iteration": 2 * run.prompts_per_iteration})
    with pytest.raises(UserError, match="trained with other settings than the configuration's"):
        run_costs(tmp_path, other)


@pytest.mark.parametrize(
    ("file", "line", "told"),
    [
        ("timings.jsonl", {}, "timings.jsonl:3: rollout: "),
        ("timings.jsonl", {"rollout": None, "update": 1.0}, "timings.jsonl:3: rollout: "),
        ("timings.jsonl", {"rollout": "1", "update": 1.0}, "timings.jsonl:3: rollout: "),
        ("metrics.jsonl", {"iteration": 3}, "metrics.jsonl: an iteration without its denoiser_calls"),
        ("final/provenance.json", {"config": "abc", "device": "cpu"}, "provenance.json: seed: "),
        ("final/provenance.json", {"config": "abc", "device": "cpu", "seed": "x"}, "provenance.json: seed: "),
    ],
)
def test_a_damaged_folder_is_one_line(tmp_path, file, line, told):
    run = CONFIG.runs["flowgrpo_sd35m"].model_copy(update={"iterations": 5})
    write_run(tmp_path, run, 5)
    path = tmp_path / file
    if path.suffix == ".json":
        write_json(path, line)
    else:
        lines = [whole for _, whole in read_jsonl(path)]
        write_jsonl(path, [*lines[:2], line, *lines[3:]])
    with pytest.raises(UserError, match=told):
        run_costs(tmp_path, run)


def test_a_run_that_has_not_ended_has_no_costs(tmp_path):
    run = CONFIG.runs["flowgrpo_sd35m"].model_copy(update={"iterations": 5})
    write_run(tmp_path, run, 4)
    with pytest.raises(UserError, match="4 of 5 iterations"):
        run_costs(tmp_path, run)


def test_what_is_said_to_have_equal_calls_has():
    """The control's iterations and README's numbers of tier mini are those that the counters of its runs come to."""

    def calls(run) -> int:
        return sampling_calls(phases_of(run)) + POLICY_CALLS * run.group.survivors * run.trained_steps

    runs = load_config(ROOT / "config" / "mini.yaml").runs
    pro, flow, control = (runs[f"{name}_sd35m"] for name in ("progrpo", "flowgrpo", "plain12_equal_calls"))
    assert control.iterations * calls(control) == pytest.approx(pro.iterations * calls(pro), abs=calls(control) / 2)
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"Pro-GRPO has {calls(pro)} for Flow-GRPO's {calls(flow)} per prompt" in text
