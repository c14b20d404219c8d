"""Every script of `examples/` runs, on untrained models where it needs any, and stays short; README names each."""

import ast
import itertools
import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import DDIMScheduler, DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from peft import LoraConfig

import progrpo
import tiny
from checkout import ROOT
from progrpo.cli import main
from progrpo.config import load_config
from progrpo.errors import UserError
from progrpo.grpo.ovf import check_kept
from progrpo.grpo.tuning import load_trained
from progrpo.identity import hash_results, spoilt_file
from progrpo.pieces.pruned_sampling import backbone_of
from progrpo.typed import read_yaml

EXAMPLES = ROOT / "examples"


def run_example(name: str, *arguments: str | Path) -> dict:
    """Run a script as `python examples/NAME ARGUMENTS` would, in this process; its variables."""
    before, sys.argv = sys.argv, [name, *map(str, arguments)]
    try:
        return runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    finally:
        sys.argv = before


# ---------------------------------------------------------------- the package's own names


def test_importing_the_package_imports_no_library():
    code = "import sys, progrpo; sys.exit(bool({'torch', 'numpy', 'diffusers', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "code")}).returncode == 0


def test_every_public_name_exists_and_has_a_type():
    stub = (ROOT / "code" / "progrpo" / "__init__.pyi").read_text()
    assert progrpo.__all__
    for name in progrpo.__all__:
        assert callable(getattr(progrpo, name))
        assert f" as {name}\n" in stub
    assert stub.count(" as ") == len(progrpo.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = progrpo.nothing


def test_no_module_inside_uses_the_public_names():
    """They are imported by a string, which hides from the workflow on what code a result depends."""
    for path in (ROOT / "code" / "progrpo").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "progrpo":
                assert not {alias.name for alias in node.names} & set(progrpo.__all__), path
            assert not (isinstance(node, ast.Attribute) and ast.unparse(node.value) == "progrpo"), path


# ---------------------------------------------------------------- optimal variance filtering


def test_the_kept_rewards_vary_most():
    found = run_example("filter_rewards.py")
    rewards, kept = found["rewards"], found["kept"]
    best = max(np.var([rewards[k] for k in subset]) for subset in itertools.combinations(range(len(rewards)), 4))
    assert np.var([rewards[k] for k in kept]) == pytest.approx(best)


def test_lists_arrays_and_tensors_give_the_same_indices():
    rewards = np.random.default_rng(0).normal(size=12)
    expected = progrpo.optimal_variance_filter(rewards.tolist(), 5)
    assert expected == sorted(set(expected))
    assert len(expected) == 5
    reversed_twice = rewards[::-1].copy()[::-1]  # of negative stride, which torch cannot share
    tensor = torch.tensor(rewards, requires_grad=True)
    for same in (tuple(rewards), rewards, reversed_twice, tensor, list(tensor.detach())):
        assert progrpo.optimal_variance_filter(same, 5) == expected


@pytest.mark.parametrize("rewards", [[[1.0, 2.0], [3.0, 4.0]], torch.tensor(1.0), [1.0, float("nan")], []])
def test_what_is_no_group_of_rewards_is_refused(rewards):
    with pytest.raises((ValueError, TypeError)):
        progrpo.optimal_variance_filter(rewards, 1)


# ---------------------------------------------------------------- pruned sampling


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return tiny.make_models(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("model", ["sd35m", "sd14"])
def test_a_loaded_pipeline_is_sampled_with_a_reward_of_ones_own(models, model):
    found = run_example("sample_pruned.py", models / model, "a red circle", "a blue square")
    pruned = found["found"]
    assert pruned.images.shape[:3] == (2, 4, 3)
    assert [(stage.step, tuple(stage.kept.shape)) for stage in pruned.stages] == [(3, (2, 6)), (5, (2, 4))]
    again = found["redness"](pruned.images.flatten(0, 1), []).view(2, 4)
    torch.testing.assert_close(again, pruned.rewards, rtol=1e-4, atol=1e-4)  # the images are those that were scored
    second = pruned.stages[0].kept.gather(1, pruned.stages[1].kept)
    assert torch.equal(second, pruned.trajectories)


def test_pruning_changes_no_survivor(models):
    found = run_example("sample_pruned.py", models / "sd35m")
    everyone = progrpo.Group(size=8)
    unpruned = progrpo.sample_pruned(found["pipeline"], ["a red circle"], found["redness"], everyone, found["sampling"])
    kept = found["found"].trajectories[0]
    torch.testing.assert_close(unpruned.images[0, kept], found["found"].images[0], rtol=0, atol=2e-3)


def test_a_reward_sees_each_image_with_its_prompt(models):
    pipeline = DiffusionPipeline.from_pretrained(models / "sd35m")
    sampling = progrpo.Sampling(steps=2, guidance_scale=1, noise=0.7)

    def length(images, prompts):
        return [float(len(prompt)) for prompt in prompts]

    found = progrpo.sample_pruned(pipeline, ["red", "circle"], length, progrpo.Group(size=4), sampling, batch=3)
    assert found.rewards.tolist() == [[3.0] * 4, [6.0] * 4]


@pytest.mark.parametrize("model", ["sd14", "sd35m"])
def test_a_half_precision_pipeline_can_be_called_afterwards(models, model):
    pipeline = DiffusionPipeline.from_pretrained(models / model, dtype=torch.bfloat16)
    sampling = progrpo.Sampling(steps=2, guidance_scale=1, noise=0.7)
    found = progrpo.sample_pruned(pipeline, ["a"], blueness, progrpo.Group(size=2), sampling)
    assert found.images.dtype == torch.float32
    assert pipeline.vae.dtype == torch.bfloat16
    assert pipeline("a", num_inference_steps=2, height=24, width=24, output_type="np").images.shape == (1, 24, 24, 3)


def test_mistakes_of_pruned_sampling_are_one_line(models):
    found = run_example("sample_pruned.py", models / "sd35m")
    pipeline, sampling = found["pipeline"], found["sampling"]
    late = progrpo.Group(size=4, pruning=(progrpo.Pruning(step=7, keep=2),))
    two = progrpo.Group(size=2)
    for arguments, message in (
        ((pipeline, ["a"], found["redness"], late, sampling), "pruning step 7 lies beyond the 6 denoising steps"),
        (
            (object(), ["a"], found["redness"], two, sampling),
            "object: not supported; load a StableDiffusion3Pipeline or",
        ),
        ((pipeline, ["a"], lambda images, prompts: [0.0], two, sampling), r"returned \(1,\) for 2 images"),
        ((pipeline, ["a"], lambda images, prompts: [0.0, float("nan")], two, sampling), "'a' is not finite"),
    ):
        with pytest.raises(UserError, match=message):
            progrpo.sample_pruned(*arguments)


SD14 = {"set_alpha_to_one": False, "steps_offset": 1, "clip_sample": False}  # as its scheduler has them


@pytest.mark.parametrize(
    ("model", "scheduler", "told"),
    [
        ("sd14", DDIMScheduler(**SD14, prediction_type="v_prediction"), "prediction_type is 'v_prediction'"),
        ("sd14", DDIMScheduler(**SD14, timestep_spacing="linspace"), "timestep_spacing is 'linspace'"),
        ("sd14", DDIMScheduler(**{**SD14, "clip_sample": True}), "clip_sample is True"),
        ("sd35m", FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), "use_dynamic_shifting is True"),
    ],
)
def test_a_pipeline_of_another_schedule_is_refused_before_it_is_changed(models, model, scheduler, told):
    pipeline = DiffusionPipeline.from_pretrained(models / model)
    pipeline.scheduler = scheduler  # in from_pretrained, diffusers itself would switch clip_sample off
    sampling = progrpo.Sampling(steps=2, guidance_scale=1, noise=0.7)
    with pytest.raises(UserError, match=f"{told}; the sampler of .* is written for") as error:
        progrpo.sample_pruned(pipeline, ["a"], blueness, progrpo.Group(size=2), sampling)
    assert "\n" not in str(error.value)
    assert all(parameter.requires_grad for parameter in pipeline.vae.parameters())


@pytest.mark.parametrize(
    ("prompts", "seed", "told"),
    [
        ("a red circle", 0, "prompts: give a list of at least one text, not 'a red circle'"),
        ([], 0, r"prompts: give a list of at least one text, not \[\]"),
        (["a", None], 0, "prompts: give a list of at least one text"),
        (["a"], -1, "seed -1: must be a whole number between 0 and 4294967295"),
        (["a"], 2**32, "seed 4294967296: must be a whole number between"),
    ],
)
def test_prompts_that_are_no_list_and_seeds_of_no_run_are_one_line(tmp_path, prompts, seed, told):
    """Before the pipeline is touched: none is loaded here."""
    with pytest.raises(UserError, match=told):
        progrpo.sample_pruned(None, prompts, blueness, progrpo.Group(size=2), None, seed)
    with pytest.raises(UserError, match=told):
        progrpo.train_pipeline(None, blueness, prompts, None, tmp_path / "run", seed)
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- training


def denoised(backbone) -> torch.Tensor:
    """One model output for a fixed latent, which depends on the trained weights."""
    x = torch.randn(1, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    return backbone.predict(x, torch.tensor(500.0), backbone.encode(["a red circle"]), 2.0)


def blueness(images, prompts):
    return images[:, 2].mean((1, 2))


@pytest.mark.parametrize("target", ["ff.net.2", "attn.to_q"])
@pytest.mark.parametrize("lora", [True, False])
def test_a_pipeline_that_holds_an_adapter_is_not_trained_without_it(models, tmp_path, target, lora):
    pipeline = DiffusionPipeline.from_pretrained(models / "sd35m")
    pipeline.transformer.add_adapter(LoraConfig(r=2, target_modules=[target]), "style")
    run = load_config(tiny.write_config(tmp_path / "tiny.yaml", models)).runs["flow_pro"]
    run = run if lora else run.model_copy(update={"lora": None})
    with pytest.raises(UserError, match=r"the pipeline holds adapters \(style\); fuse them"):
        progrpo.train_pipeline(pipeline, blueness, ["a red circle"] * 4, run, tmp_path / "run")


@pytest.mark.parametrize(("model", "run"), [("sd35m", "flow_pro"), ("sd14", "diffusion")])
def test_a_loaded_pipeline_is_trained_on_a_reward_of_ones_own(models, tmp_path, model, run, capsys):
    out = tmp_path / "run"
    found = run_example(
        "train_own_reward.py", models / model, tiny.write_config(tmp_path / "tiny.yaml", models), run, out
    )
    assert spoilt_file(found["final"]) is None
    assert len((out / "metrics.jsonl").read_text().splitlines()) == found["run"].iterations

    fresh = DiffusionPipeline.from_pretrained(models / model)
    untrained = denoised(backbone_of(fresh))
    load_trained(backbone_of(fresh), found["final"])
    trained = denoised(backbone_of(fresh))
    assert not torch.equal(trained, untrained)
    torch.testing.assert_close(trained, denoised(backbone_of(found["pipeline"])), rtol=0, atol=1e-5)

    made = hash_results(out)
    reward, prompts, settings = found["redness"], found["PROMPTS"], found["run"]
    with pytest.raises(UserError, match="begun with something else: prompts: "):
        progrpo.train_pipeline(fresh, reward, ["a red circle"], settings, out)
    with pytest.raises(UserError, match=r"begun with something else: reward: redness \w+ is not blueness \w+"):
        progrpo.train_pipeline(fresh, blueness, prompts, settings, out)
    assert progrpo.train_pipeline(fresh, reward, prompts, settings, out) == found["final"]
    assert "already trained" in capsys.readouterr().out
    assert {**hash_results(out), "lock": None} == {**made, "lock": None}


def test_all_weights_are_trained_in_float32_only(models, tmp_path):
    config = tiny.write_config(tmp_path / "tiny.yaml", models)
    pipeline = DiffusionPipeline.from_pretrained(models / "sd14", dtype=torch.bfloat16)
    run = progrpo.load_config(config).get_run("diffusion")
    with pytest.raises(UserError, match="must be loaded in float32"):
        progrpo.train_pipeline(pipeline, lambda images, prompts: images.mean((1, 2, 3)), ["a"], run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("model", "run"), [("sd35m", "flow_pro"), ("sd14", "diffusion")])
def test_a_half_precision_pipeline_can_be_called_after_its_training(models, tmp_path, model, run):
    config = tiny.write_config(tmp_path / "tiny.yaml", models)
    pipeline = DiffusionPipeline.from_pretrained(models / model, dtype=torch.bfloat16)
    settings = progrpo.load_config(config).get_run(run)
    lora = progrpo.load_config(config).get_run("flow_pro").lora
    if model == "sd14":
        lora = lora.model_copy(update={"targets": ("to_q", "to_k", "to_v", "to_out.0")})
    settings = settings.model_copy(update={"iterations": 1, "lora": lora})
    image = {"num_inference_steps": 2, "height": 24, "width": 24, "output_type": "np"}
    for _ in range(2):  # trained, then found trained
        progrpo.train_pipeline(pipeline, blueness, ["a red circle"] * 4, settings, tmp_path / "run")
        assert pipeline("a", **image).images.shape == (1, 24, 24, 3)
    fresh = DiffusionPipeline.from_pretrained(models / model, dtype=torch.bfloat16)
    progrpo.train_pipeline(fresh, blueness, ["a red circle"] * 4, settings, tmp_path / "run")
    assert fresh("a", **image).images.shape == (1, 24, 24, 3)


# ---------------------------------------------------------------- names in YAML


def test_a_tier_names_a_reward_and_a_rule_of_ones_own(models, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    config = tiny.write_config(tmp_path / "tiny.yaml", models, progrpo_sd35m={**tiny.FLOW, "iterations": 1})
    config.write_text(yaml.safe_dump(merged(read_yaml(config), read_yaml(EXAMPLES / "own_pieces.yaml"))))
    assert main(["train", "--config", str(config), "--run", "progrpo_sd35m", "--out", str(tmp_path / "run")]) == 0
    record = json.loads((tmp_path / "run" / "begun.json").read_text())["identity"]
    assert list(record["reward"]) == ["redness"]
    assert record["group"]["rule"] == "own_pieces:best_and_random"
    assert spoilt_file(tmp_path / "run" / "final") is None


def merged(before: dict, after: dict) -> dict:
    """Two nested dicts as one; a scorer's weights are replaced as a whole."""
    nested = {
        k: merged(before[k], v) for k, v in after.items() if isinstance(v, dict) and k in before and k != "reward"
    }
    return {**before, **after, **nested}


def test_the_rule_keeps_the_best_and_repeats_itself():
    rule = runpy.run_path(str(EXAMPLES / "own_pieces.py"))["best_and_random"]
    rewards = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    kept = rule(rewards, 3, range(5))
    check_kept(kept, rewards, 3)
    assert (kept == rewards.argmax(dim=1, keepdim=True)).any(dim=1).all()
    assert torch.equal(kept, rule(rewards, 3, range(5)))


# ---------------------------------------------------------------- the examples as a whole


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.*")), ids=lambda file: file.name)
def test_an_example_is_short_run_here_and_named_in_readme(file):
    assert len(file.read_text().splitlines()) <= 20
    assert f'"{file.name}"' in Path(__file__).read_text()
    assert f"(examples/{file.name})" in (ROOT / "README.md").read_text()
