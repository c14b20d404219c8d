"""The summary of a tier: which seeds, which iterations, which part of the seconds, which metric of an evaluation."""

from pathlib import Path

import pytest

from checkout import ROOT
from progrpo.config import Config, load_config
from progrpo.errors import UserError
from progrpo.files import read_json, write_json, write_jsonl
from progrpo.paper_runs import PROGRPO
from progrpo.provenance import timing_hash
from progrpo.report.summary import collect, evaluation_metrics, rounded, training_metrics, wall_clock
from small_results import analyses

SECONDS = {"decoder": 2.0, "denoiser": 30.0, "reward": 0.5, "total": 33.0}


def evaluation(folder: Path, name: str, value: float, **more) -> Path:
    path = folder / f"{name}.json"
    write_json(path, {"scores": {"pickscore": {"mean": value, "std": 9.0, "n": 4}}, **more})
    return path


def test_the_end_of_training_is_the_last_fifth_of_the_iterations(tmp_path):
    lines = [
        {
            "iteration": k,
            "reward_mean": float(k**2),
            "kl": None if k < 10 else 0.5,
            "grad": 1.0 if k < 10 else None,
        }
        for k in range(1, 11)
    ]
    write_jsonl(tmp_path / "metrics.jsonl", lines)
    assert training_metrics(tmp_path) == {"reward_mean": (81 + 100) / 2}  # one of the two lacks kl, the other grad


@pytest.mark.parametrize(("count", "averaged"), [(1, [1]), (2, [2]), (3, [3]), (8, [7, 8]), (20, [17, 18, 19, 20])])
def test_short_trainings_average_at_least_the_last_iteration(tmp_path, count, averaged):
    write_jsonl(tmp_path / "metrics.jsonl", [{"iteration": k, "loss": float(k)} for k in range(1, count + 1)])
    assert training_metrics(tmp_path)["loss"] == sum(averaged) / len(averaged)


def test_a_run_without_metrics_has_no_training(tmp_path):
    assert training_metrics(tmp_path) == {}
    (tmp_path / "metrics.jsonl").write_text("")
    assert training_metrics(tmp_path) == {}


def test_each_part_of_the_wall_clock_is_its_own(tmp_path):
    config = load_config(ROOT / "config" / "mini.yaml")
    write_json(tmp_path / "gpu" / "wall_clock_sd14.json", {"what": "sd14", "device": "GPU", "runs": {"dance": SECONDS}})
    assert wall_clock(tmp_path, config) == {}  # its sd14 is a miniature
    config = load_config(ROOT / "config" / "paper.yaml")
    write_json(tmp_path / "cpu" / "wall_clock.json", {"what": "smoke", "device": "CPU", "runs": {"pro": SECONDS}})
    seconds = {"vae": 2.0, "denoiser": 30.0, "total": 32.0}  # the paper's, without encoding and reward
    assert wall_clock(tmp_path, config) == {"GPU": {"dance": seconds}}
    write_json(tmp_path / "cpu" / "wall_clock.json", {"what": "paper", "device": "CPU", "runs": {"pro": {}}})
    with pytest.raises(UserError, match="cpu/wall_clock.json: runs.pro.decoder: Field required"):
        wall_clock(tmp_path, config)
    mock = {
        "what": "sd14",
        "device": "CPU",
        "warmup": -1,
        "runs": {"dance": SECONDS},
    }  # of a bench that was not let run
    write_json(tmp_path / "cpu" / "wall_clock.json", mock)
    with pytest.raises(UserError, match="cpu/wall_clock.json: warmup: Input should be greater than or equal to 0"):
        wall_clock(tmp_path, config)


def test_seconds_of_a_run_count_while_it_is_set_as_it_was_timed(tmp_path):
    config = load_config(ROOT / "config" / "mini.yaml")
    run, model = config.runs[PROGRPO], config.models[config.runs[PROGRPO].model]
    longer = run.model_copy(update={"iterations": 7, "snapshots": (), "method": "another name"})
    others = [(run.model_copy(update=change), model) for change in ({"prompts_per_iteration": 4}, {"micro_batch": 16})]
    others += [(run, model.model_copy(update=change)) for change in ({"precision": "bf16"}, {"resolution": 48})]
    moved = model.model_copy(update={"path": "elsewhere"})
    same = [(run, model), (longer, model), (run, moved)]
    for settings, found in ((timing_hash(*of), int(of in same)) for of in same + others):
        timed = {PROGRPO: {**SECONDS, "settings": settings}}
        write_json(tmp_path / "cpu" / "wall_clock.json", {"what": "mini", "device": "CPU", "runs": timed})
        assert len(wall_clock(tmp_path, config)) == found
    write_json(tmp_path / "cpu" / "wall_clock.json", {"what": "mini", "device": "CPU", "runs": {PROGRPO: SECONDS}})
    assert wall_clock(tmp_path, config) == {}  # older than the hash


def test_published_seconds_are_of_the_runs_as_they_are_set():
    """A setting that is new must not take from measurements what they were measured for."""
    published = ROOT / "results/published/hardware"
    timed = read_json(published / "cpu-mini/wall_clock_mini.json")["runs"]
    found = wall_clock(published, load_config(ROOT / "config" / "mini.yaml"))["cpu, 8 prompts"]
    assert {run: seconds["vae"] for run, seconds in found.items()} == {run: timed[run]["decoder"] for run in timed}


def test_metrics_of_an_evaluation_are_told_apart_by_set_and_benchmark(tmp_path):
    evaluation(tmp_path, "test", 21.0)
    evaluation(tmp_path, "geneval", 22.0, geneval={"overall": 0.5, "tags": {"counting": 0.25}})
    evaluation(tmp_path, "color", 23.0, compbench={"score": 0.75})
    evaluation(tmp_path, "unasked", 24.0)
    assert evaluation_metrics(tmp_path, ["test", "geneval", "color", "absent"]) == {
        "test.pickscore": 21.0,
        "geneval.pickscore": 22.0,
        "geneval.overall": 0.5,
        "geneval.counting": 0.25,
        "color.pickscore": 23.0,
        "color.score": 0.75,
    }


@pytest.fixture
def config(tmp_path) -> Config:
    run = {
        "method": "Pro-GRPO",
        "model": "sd35m",
        "prompts": "test",
        "reward": {"pickscore": 1.0},
        "sampling": {"steps": 4, "guidance_scale": 1.0, "noise": 0.7},
        "group": {"size": 4},
        "objective": {},
        "optimizer": {"learning_rate": 1e-3},
        "prompts_per_iteration": 2,
        "micro_batch": 2,
        "iterations": 3,
    }
    return Config.model_validate(
        {
            "tier": "toy",
            "results": str(tmp_path / "results"),
            "seeds": [0, 1],
            "models": {"sd35m": {"family": "flow", "path": "sd35m", "resolution": 24}},
            "scorers": {"pickscore": {"kind": "pickscore"}},
            "prompt_sets": {"test": {"path": "prompts.txt"}},
            "evaluations": {"test": {"sampling": {"flow": {"steps": 4, "guidance_scale": 1.0}}}},
            "runs": {"pro": run},
        }
    )


def test_a_summary_holds_the_tiers_runs_seeds_and_hardware_and_nothing_else(config, tmp_path):
    results, hardware = Path(config.results), tmp_path / "hardware"
    for name, value in {"pro-seed0": 1.0, "pro-seed1": 2.0, "pro-seed2": 9.0, "base_sd35m-seed0": 5.0}.items():
        evaluation(results / "evaluations" / name, "test", value)
    for name in ("base_sd35m-seed2", "base_sd14-seed0", "other-seed0", "pro-seedx"):
        evaluation(results / "evaluations" / name, "test", 9.0)
    write_jsonl(results / "runs" / "pro-seed1" / "metrics.jsonl", [{"iteration": 1, "loss": 1 / 3}])
    cost = analyses()["flops"] | {"note": 2 / 3}
    write_json(results / "analysis" / "flops.json", cost)
    settings = timing_hash(config.runs["pro"], config.models["sd35m"])
    timed = {"pro": {**SECONDS, "settings": settings, "prompts": 2}, "other": SECONDS}
    write_json(hardware / "gpu" / "wall_clock.json", {"what": "toy", "device": "GPU", "runs": timed})
    summary = collect(config, hardware)
    assert summary["tier"] == "toy"
    values = {run: metrics["test.pickscore"]["seeds"] for run, metrics in summary["evaluations"].items()}
    assert values == {"pro": {"0": 1.0, "1": 2.0}, "base_sd35m": {"0": 5.0}}
    assert summary["evaluations"]["pro"]["test.pickscore"]["mean"] == 1.5
    assert summary["training"]["pro"]["loss"]["mean"] == 0.3333333333
    assert list(summary["analysis"]) == ["flops"]
    assert summary["analysis"]["flops"]["note"] == 0.6666666667
    assert {device: list(runs) for device, runs in summary["hardware"].items()} == {"GPU, 2 prompts": ["pro"]}


def test_a_half_written_evaluation_is_named(config, tmp_path):
    path = evaluation(Path(config.results) / "evaluations" / "pro-seed0", "test", 1.0)
    path.write_text(path.read_text()[:20])
    with pytest.raises(UserError, match="pro-seed0/test.json:3: not valid JSON"):
        collect(config, tmp_path / "hardware")
    path.write_text("{}")
    with pytest.raises(UserError, match="pro-seed0/test.json: scores: Field required"):
        collect(config, tmp_path / "hardware")


def test_rounding_hides_the_last_bits_of_a_float():
    assert rounded({"x": [0.1 + 0.2, 1, True, "a"]}) == {"x": [0.3, 1, True, "a"]}
    assert f"{rounded(453474.1824):.2f}" == "453474.18"
