"""The bench times the trainer's own iterations, whose calls are those of the cost model."""

import argparse
import json
from importlib import import_module

import pytest
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel
from transformers import CLIPConfig, CLIPModel

from checkout import ROOT
from progrpo.commands import bench
from progrpo.config import Model, load_config
from progrpo.cost import flops, random_models, wall_clock
from progrpo.errors import UserError

# Imported before a test replaces what it takes from other modules: it would keep the replacement for all tests after.
import_module("progrpo.jobs.train")

CPU = torch.device("cpu")
PAPER = load_config(ROOT / "config" / "paper.yaml")


def tiny_vae():
    return AutoencoderKL(latent_channels=4, block_out_channels=(8,), norm_num_groups=4)


def tiny_flow():
    transformer = SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=2,  # the last layer of all has no to_add_out for an adapter
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pooled_projection_dim=16,
        pos_embed_max_size=8,
    )
    return random_models.flow_backbone(transformer, tiny_vae(), Model(family="flow", path="tiny", resolution=8), CPU)


def tiny_diffusion():
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    model = Model(family="diffusion", path="tiny", resolution=8)
    return random_models.diffusion_backbone(unet, tiny_vae(), model, CPU)


def tiny_reward():
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**small, "patch_size": 56, "image_size": 224}
    clip = CLIPModel(CLIPConfig(text_config=small, vision_config=vision, projection_dim=8))
    return random_models.RandomClip(clip, 8, CPU, "fp32")


@pytest.mark.parametrize(
    ("name", "backbone"),
    [("progrpo_flash_sd35m", tiny_flow), ("flowgrpo_sd35m", tiny_flow), ("progrpo_sd14", tiny_diffusion)],
)
def test_timed_iterations_make_the_calls_of_the_cost_model(name, backbone):
    run = wall_clock.timed_run(PAPER.get_run(name), prompts=1, micro_batch=4)
    if name == "progrpo_sd14":  # the same fractions of T in fewer steps
        stages = [stage.model_copy(update={"step": stage.step // 10}) for stage in run.group.pruning]
        run = run.model_copy(
            update={
                "sampling": run.sampling.model_copy(update={"steps": 5}),
                "group": run.group.model_copy(update={"pruning": tuple(stages)}),
            }
        )
        phases = flops.Phases((48, 32, 8), (3, 4), 5)
    else:
        phases = flops.PUBLISHED[name].phases
    result = wall_clock.time_run(run, backbone(), tiny_reward(), ["a", "b"], wall_clock.Repeats(0, 1))
    expected = flops.call_counts(phases)
    assert result["calls"] == {key: expected[key] for key in ("denoiser", "decoder", "reward")}
    assert result["trained_passes"] == phases.counts[-1] * (phases.steps - 1)
    assert 0 < result["sampling"] < result["rollout"] < result["total"]
    assert result["denoiser"] == pytest.approx(result["sampling"] + result["update"])
    json.dumps(result, allow_nan=False)


def test_every_published_run_has_its_group_and_steps():
    for name, published in flops.PUBLISHED.items():
        run = PAPER.get_run(name)
        counts = (run.group.size, *(stage.keep for stage in run.group.pruning))
        assert counts == published.phases.counts
        assert tuple(stage.step for stage in run.group.pruning) == published.phases.pruning_steps
        assert run.trained_steps == published.phases.steps - 1
        assert run.model == published.backbone
        assert (run.lora is None) == (published.backbone == "sd14")


def test_a_timed_run_has_every_operation_of_its_table():
    for name in flops.PUBLISHED:
        run, timed = PAPER.get_run(name), wall_clock.timed_run(PAPER.get_run(name), prompts=2, micro_batch=8)
        for same in ("sampling", "group", "lora", "ema", "trained_steps"):
            assert getattr(timed, same) == getattr(run, same)
        assert timed.objective == run.objective.model_copy(update={"clip_range": 0.2})


def test_medians_by_hand_and_warmup_is_the_callers():
    lines = [{"denoiser": d, "decoder": 1.0, "reward": 0.5, "rollout": d + 2, "update": 3.0} for d in (1.0, 2.0, 6.0)]
    result = wall_clock.summarise(lines, prompts=2)
    assert (result["sampling"], result["denoiser"], result["total"]) == (2, 5, 7)
    assert result["total_per_prompt"] == 3.5
    assert result["spread"]["sampling"] == 2.5
    with pytest.raises(ValueError, match="no iteration"):
        wall_clock.summarise([], 2)


def test_the_official_methods_are_those_of_table_13():
    flow = {"flowgrpo_sd35m", "progrpo_sd35m", "progrpo_flash_sd35m"}
    assert {model: set(runs) for model, runs in bench.OFFICIAL.items()} == {
        "sd35m": flow,
        "sd14": {"dancegrpo_sd14", "progrpo_sd14"},
    }


def run_bench(*words):
    parser = argparse.ArgumentParser()
    bench.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["bench", "--device", "cpu", *map(str, words)])
    return arguments.run(arguments)


def test_bench_of_the_official_shapes_writes_what_table_13_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # config/paper.yaml
    monkeypatch.setattr(random_models, "official_backbone", lambda name, precision, device: tiny_flow())
    monkeypatch.setattr("progrpo.cost.architectures.clip", lambda size: tiny_reward().clip)
    out = tmp_path / "wall_clock_sd35m.json"
    small = ["--prompts", 1, "--micro-batch", 4, "--repeats", 1, "--warmup", 0, "--precision", "fp32", "--out", out]
    assert run_bench("--official", "sd35m", "--runs", "progrpo_flash_sd35m", *small) == 0
    record = json.loads(out.read_text())
    assert set(record["runs"]) == {"progrpo_flash_sd35m"}
    assert record["device"] == "cpu"
    assert record["versions"]["torch"] == torch.__version__
    with pytest.raises(UserError, match="progrpo_sd14: not a method of sd35m"):
        run_bench("--official", "sd35m", "--runs", "progrpo_sd14", *small)
    with pytest.raises(UserError, match="--repeats 0: must be at least 1"):
        run_bench("--official", "sd35m", "--repeats", 0)


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["--table", "t.json", "--json"], "--json: needs --compare"),
        (["--table", "t.json", "--compare", "plain", "--json"], "--compare: needs --config"),
        (["--official", "sd35m", "--compare", "plain"], "--compare: needs --config"),
        (["--official", "sd35m", "--compile"], "--compile: needs --compare"),
        (["--official", "sd35m", "--into", "README.md"], "--into: needs --table"),
        (["--official", "sd35m", "--warmup", -1], "--warmup -1: must be at least 0"),
    ],
)
def test_an_option_that_bench_would_not_read_or_cannot_use_is_refused(words, needed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where a bench that runs all the same would leave its measurement
    monkeypatch.setattr("progrpo.devices.choose_device", lambda name: pytest.fail("models would be loaded"))
    with pytest.raises(UserError, match=needed):
        run_bench(*words)


def test_bench_of_a_tier_times_its_own_run(tmp_path, monkeypatch):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\na blue square\n")
    run = wall_clock.timed_run(PAPER.get_run("progrpo_flash_sd35m"), prompts=1, micro_batch=4)
    run = run.model_copy(update={"evaluations": None}).model_dump(mode="json")
    config = {
        "tier": "tiny",
        "results": str(tmp_path),
        "seeds": [0],
        "models": {"sd35m": {"family": "flow", "path": "tiny", "resolution": 8}},
        "scorers": {"random_clip": {"kind": "progrpo.miniature.scene_checker:SceneChecker"}},
        "prompt_sets": {"random": {"path": str(prompts)}},
        "evaluations": {},
        "runs": {"progrpo_flash_sd35m": run},
    }
    (tmp_path / "tiny.yaml").write_text(json.dumps(config))
    monkeypatch.setattr("progrpo.grpo.backbone.load_backbone", lambda *_, **__: tiny_flow())
    monkeypatch.setattr("progrpo.jobs.train.load_reward", lambda *_: tiny_reward())
    out = tmp_path / "out.json"
    words = ["--config", tmp_path / "tiny.yaml", "--prompts", 2, "--repeats", 1, "--warmup", 0, "--out", out]
    assert run_bench(*words) == 0
    result = json.loads(out.read_text())["runs"]["progrpo_flash_sd35m"]
    assert result["prompts"] == 2
    assert result["calls"]["denoiser"] == 2 * 200
    assert result["iterations"] == 1
