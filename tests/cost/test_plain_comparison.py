"""The plain loop is the same training without what makes it fast; ratios and predictions are those of the measured seconds."""

import json
from pathlib import Path

import pytest
import torch

import tiny
from checkout import ROOT
from progrpo.cli import main
from progrpo.config import load_config
from progrpo.cost.comparison import FAST, GUIDED, PARTS, PLAIN, arms_of, compare, turned
from progrpo.cost.comparison_table import CALLS, markdown, ratios, utilisation
from progrpo.cost.plain_loop import plain_run, plain_trainer
from progrpo.cost.saving import measure_saving
from progrpo.cost.utilisation import model_flops
from progrpo.cost.wall_clock import Repeats, TimedTrainer
from progrpo.files import to_json
from progrpo.grpo.backbone import load_backbone
from progrpo.grpo.rollout import Clock

STORED = sorted((ROOT / "results/published/hardware").glob("*/comparison_mini.json"))
CPU = torch.device("cpu")


class Brightness:
    """The mean pixel; remembers how many images each call had."""

    name = "brightness"

    def __init__(self):
        self.sizes = set()

    def score(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        self.sizes.add(len(images))
        return images.flatten(1).mean(1)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    run = tiny.FLOW | {
        "micro_batch": "auto",
        "speed": {"batched_guidance": True, "merged_adapters": True, "decode_batch": 4},
    }
    unpruned = run | {"group": {"size": 2}, "sampling": {"steps": 3, "guidance_scale": 1.0, "noise": 0.7}}
    models = tiny.make_models(folder)
    return load_config(tiny.write_config(folder / "config.yaml", models, run=run, flow=unpruned, full=tiny.DIFFUSION))


def parts(config, run):
    return load_backbone(config.models[run.model], CPU, run.lora is None), Brightness(), ["a red circle", "a square"]


def test_every_arm_trains_the_same_and_each_part_is_timed(config):
    now, threads = Clock.now, torch.get_num_threads()
    arms = arms_of({"flow": config.runs["flow"]}, plain=False, compiled=False)
    result = compare(arms, lambda run: parts(config, run), Repeats(0, 1), CPU)
    measured = {(arm["run"], arm["way"]): arm for arm in result["arms"]}
    rewards = {way: arm["first_reward"] for (name, way), arm in measured.items() if name == "flow"}
    assert set(rewards) > {PLAIN, FAST, "without merged_adapters", "without micro_batch: auto", "with text_cache"}
    assert list(rewards.values()) == pytest.approx([rewards[PLAIN]] * len(rewards), rel=1e-4)
    assert measured["flow", PLAIN]["micro_batch"] == 2 < measured["flow", FAST]["micro_batch"]
    for arm in result["arms"]:
        assert arm["first_ratio_error"] == 0
        assert set(arm["seconds"]) == {*PARTS, "total"}
        assert sum(arm["seconds"][part][0] for part in PARTS) <= arm["seconds"]["total"][0]
        assert 0 < utilisation(result, arm, "denoise") < 1
    assert measured["flow" + GUIDED, FAST]["flop_per_row"]["denoise"] == pytest.approx(
        2 * measured["flow", FAST]["flop_per_row"]["denoise"], rel=0.01
    )
    assert (Clock.now, torch.get_num_threads()) == (now, threads)


def test_the_plain_loop_sees_one_image_at_a_time(config, tmp_path: Path):
    backbone, reward, prompts = parts(config, config.runs["run"])
    trainer = plain_trainer(config.runs["run"], backbone, reward, prompts, tmp_path)
    decoded = []
    decode = backbone.pipeline.vae.decode
    backbone.pipeline.vae.decode = lambda latents: decoded.append(len(latents)) or decode(latents)
    trainer._sample()
    assert reward.sizes == set(decoded) == {1}


def test_plain_is_every_switch_off(config):
    run = plain_run(config.runs["run"])
    assert run.micro_batch == run.group.survivors
    assert not any(getattr(run.speed, name) for name in type(run.speed).model_fields if name != "memory_gb")


def test_each_turned_switch_is_the_only_difference(config):
    run = config.runs["run"]
    ways = dict(turned(run, compiled=True))
    assert len(ways) == 6
    for way, changed in ways.items():
        switch = way.split()[1].rstrip(":")
        if switch == "micro_batch":
            assert changed.micro_batch == run.group.survivors
            assert changed.model_copy(update={"micro_batch": run.micro_batch}) == run
        else:
            assert bool(getattr(changed.speed, switch)) == way.startswith("with ") != bool(getattr(run.speed, switch))
            assert changed.model_copy(update={"speed": run.speed}) == run


def test_counted_operations_are_those_of_the_calls(config, tmp_path):
    """Merged adapters multiply less; a trained step costs more than its forward pass and the reference's."""
    counted = {}
    for way, run in {FAST: config.runs["flow"], **dict(turned(config.runs["flow"], compiled=False))}.items():
        if way in (FAST, "without merged_adapters"):
            counted[way] = model_flops(TimedTrainer(run, 0, *parts(config, run), tmp_path))
    for flop in counted.values():
        assert 2 * flop["denoise"] < flop["update"] < 5 * flop["denoise"]
    assert counted[FAST]["denoise"] < counted["without merged_adapters"]["denoise"]


def arm(name: str, way: str, total: list[float], calls: int = 1) -> dict:
    seconds = {"encode": 0.0, "denoise": 0.4, "decode": 0.1, "reward": 0.1, "update": 0.4}
    return {
        "run": name,
        "way": way,
        "seconds": {part: [share * value for value in total] for part, share in seconds.items()} | {"total": total},
        "calls": dict.fromkeys(CALLS.values(), calls),
        "flop_per_row": {"denoise": 4, "update": 12},
        "micro_batch": 2,
        "peak_memory_bytes": 10**9,
    }


def test_ratios_are_those_of_one_round_and_predictions_those_of_counted_calls():
    flow, pro = "flowgrpo_sd35m", "progrpo_sd35m"
    arms = [arm(flow, PLAIN, [2.0, 4.0, 8.0]), arm(flow, FAST, [1.0, 3.0, 2.0]), arm(pro, FAST, [4.0, 12.0, 8.0], 2)]
    record = {"arms": arms, "matmul_peak": 100.0, "saving": {"full": {"share_behind": 0.03}}}
    record["ratios"] = ratios(record)
    told = {row["label"]: row for row in record["ratios"]}
    assert [told[f"{flow} / plain loop"][key] for key in ("median", "least", "greatest")] == [0.5, 0.25, 0.75]
    batched = told[f"{flow} / plain loop, images in batches in both"]
    assert batched["greatest"] == pytest.approx(3 / (0.8 * 4 + 0.2 * 3))
    assert told[f"{pro} / {flow}, predicted by counted calls"]["median"] == pytest.approx(2)
    assert told[f"{pro} / {flow}, measured over predicted"]["median"] == pytest.approx(2)
    assert utilisation(record, arms[1], "denoise") == pytest.approx(4 / 0.8 / 100)
    lines = "\n".join(
        markdown(json.loads(to_json(record, "a comparison", sort_keys=True)))
    )  # as a file has it: keys in another order
    assert f"| {pro} {FAST} | 0.000 | 3.200 | 0.800 | 0.800 | 3.200 | 8.000 |" in lines
    assert f"| {flow} / plain loop | 0.500 | 0.250 to 0.750 | <= 0.67 |" in lines
    assert "| full: a save of all weights / iteration | 0.030 | 0.030 to 0.030 | <= 0.02, **missed** |" in lines
    assert f"| {pro} / {flow} | 4.000 | 4.000 to 4.000 | <= 0.80, **missed** |" in lines


def test_a_save_is_measured_in_an_iteration_of_its_own(config):
    saving = measure_saving(config.runs["full"], lambda run: parts(config, run), saves=1)
    assert 0 < saving["behind"] < saving["iteration"]
    assert saving["waiting"] > 0
    assert saving["share_behind"] == pytest.approx(saving["behind"] / saving["iteration"])


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_the_readme_has_the_stored_ratios(path, tmp_path, capsys):
    record = json.loads(path.read_text())
    assert record["ratios"] == ratios(record)
    readme = (ROOT / "README.md").read_text()
    copy = tmp_path / "README.md"
    copy.write_text(readme)
    assert main(["bench", "--table", str(path), "--into", str(copy)]) == 0
    assert copy.read_text() == readme
    copy.write_text("no marks")
    assert main(["bench", "--table", str(path), "--into", str(copy)]) == 2
    assert "to put the table between" in capsys.readouterr().err


def test_another_file_is_no_comparison(tmp_path, capsys):
    (tmp_path / "other.json").write_text("{}")
    assert main(["bench", "--table", str(tmp_path / "other.json")]) == 2
    assert "not a file of progrpo bench --compare" in capsys.readouterr().err
