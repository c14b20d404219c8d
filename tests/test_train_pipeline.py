"""A pipeline trained in somebody's own process: what it can be used for afterwards, and what the process had before stays."""

import threading

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import DiffusionPipeline
from peft import LoraConfig

import progrpo
import tiny
from progrpo.config import Run, load_config
from progrpo.errors import UserError
from progrpo.files import read_jsonl
from progrpo.grpo.trainer import Stopped
from progrpo.identity import hash_results

PROMPTS = ["a red circle", "a blue square"]
IMAGE = {"num_inference_steps": 2, "height": 24, "width": 24, "output_type": "pt"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tiny.make_models(tmp_path_factory.mktemp("models"))


def blueness(images, prompts):
    return images[:, 2].mean((1, 2))


def settings(models, name: str, folder, **changed) -> Run:
    run = load_config(tiny.write_config(folder / "tiny.yaml", models)).runs[name]
    return Run.model_validate({**run.model_dump(), **changed})


def load(models, name: str, dtype=torch.float32) -> DiffusionPipeline:
    pipeline = DiffusionPipeline.from_pretrained(models / name, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def images(pipeline) -> torch.Tensor:
    return pipeline(PROMPTS, generator=torch.Generator().manual_seed(1), **IMAGE).images


MERGED = {"speed": {"merged_adapters": True}, "optimizer": {"learning_rate": 1e-2}}


def test_adapters_can_be_fused_and_joined_after_a_training_with_merged_ones(models, tmp_path):
    pipeline = load(models, "sd35m")
    before = images(pipeline)
    progrpo.train_pipeline(
        pipeline, blueness, PROMPTS, settings(models, "flow_pro", tmp_path, **MERGED), tmp_path / "o"
    )
    trained = images(pipeline)
    assert (trained - before).abs().max() > 1e-3
    pipeline.fuse_lora()
    torch.testing.assert_close(images(pipeline), trained, rtol=0, atol=1e-4)
    pipeline.unfuse_lora()
    pipeline.transformer.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["attn.to_q"]), "second")
    pipeline.transformer.set_adapters(["default", "second"])
    torch.testing.assert_close(images(pipeline), trained, rtol=0, atol=1e-4)  # a new adapter is zero


@pytest.mark.parametrize(("model", "run"), [("sd35m", "flow_pro"), ("sd14", "diffusion")])
def test_a_training_goes_on_with_the_pipeline_that_it_was_begun_with_alone(models, tmp_path, model, run):
    calls = []

    def counted(images, prompts):
        calls.append(1)
        if len(calls) == limit:
            raise KeyboardInterrupt
        return blueness(images, prompts)

    limit, run = 0, settings(models, run, tmp_path, iterations=3, save_every=1)
    whole = progrpo.train_pipeline(load(models, model), counted, PROMPTS, run, tmp_path / "whole")
    limit = len(calls) - 1
    calls.clear()
    pipeline = load(models, model)
    with pytest.raises((KeyboardInterrupt, Stopped)):
        progrpo.train_pipeline(pipeline, counted, PROMPTS, run, tmp_path / "cut")
    with pytest.raises(UserError, match="load the pipeline anew") as refused:
        progrpo.train_pipeline(pipeline, counted, PROMPTS, run, tmp_path / "cut")
    if model == "sd35m":
        assert "fuse_lora" not in str(refused.value)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
        with pytest.raises(UserError, match="is not the one that this training was begun with"):
            progrpo.train_pipeline(pipeline, counted, PROMPTS, run, tmp_path / "cut")
    cut = progrpo.train_pipeline(load(models, model), counted, PROMPTS, run, tmp_path / "cut")
    assert hash_results(cut) == hash_results(whole)


def test_a_function_of_the_same_name_is_another_reward(models, tmp_path):
    run = settings(models, "flow_pro", tmp_path, iterations=1)

    def rewards(sign: int):
        if sign > 0:

            def named(images, prompts):
                return images.mean((1, 2, 3))
        else:

            def named(images, prompts):
                return -images.mean((1, 2, 3))

        return named

    first, other = rewards(1), rewards(-1)
    assert first.__name__ == other.__name__
    final = progrpo.train_pipeline(load(models, "sd35m"), first, PROMPTS, run, tmp_path / "o")
    assert progrpo.train_pipeline(load(models, "sd35m"), first, PROMPTS, run, tmp_path / "o") == final
    for another in (other, blueness):
        with pytest.raises(UserError, match="reward"):
            progrpo.train_pipeline(load(models, "sd35m"), another, PROMPTS, run, tmp_path / "o")


def test_snapshots_are_written(models, tmp_path):
    run = settings(models, "flow_pro", tmp_path, iterations=2, snapshots=[1])
    final = progrpo.train_pipeline(load(models, "sd35m"), blueness, PROMPTS, run, tmp_path / "o")
    snapshot = tmp_path / "o" / "snapshots" / "1" / "pytorch_lora_weights.safetensors"
    assert snapshot.is_file()
    assert snapshot.read_bytes() != (final / "pytorch_lora_weights.safetensors").read_bytes()


def test_the_caller_finds_its_process_as_it_was(models, tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(mixed_precision="bf16", cpu=True)
    pipeline = load(models, "sd35m")
    run = settings(models, "flow_pro", tmp_path, iterations=1, gradient_checkpointing=True)
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    progrpo.train_pipeline(pipeline, blueness, PROMPTS, run, tmp_path / "o", seed=np.int64(3))
    assert torch.equal(torch.rand(3), expected)
    assert accelerator.mixed_precision == "bf16"
    assert Accelerator(mixed_precision="bf16", cpu=True).mixed_precision == "bf16"
    assert not pipeline.transformer.is_gradient_checkpointing
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize(
    "context", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
def test_the_callers_context_changes_nothing(models, tmp_path, context):
    run = settings(models, "flow_pro", tmp_path, iterations=2, **MERGED)
    plain = progrpo.train_pipeline(load(models, "sd35m"), blueness, PROMPTS, run, tmp_path / "plain")
    pipeline = load(models, "sd35m")
    with context():
        inside = progrpo.train_pipeline(pipeline, blueness, PROMPTS, run, tmp_path / "inside")
    assert hash_results(inside) == hash_results(plain)
    rows = [
        [row for _, row in read_jsonl(folder / "metrics.jsonl")] for folder in (tmp_path / "plain", tmp_path / "inside")
    ]
    assert rows[0] == rows[1]
    assert any(row["ratio_mean"] != 1 for row in rows[0])


def test_a_training_runs_in_a_thread_of_its_own(models, tmp_path):
    run, found = settings(models, "flow_pro", tmp_path, iterations=1), []
    pipeline = load(models, "sd35m")
    thread = threading.Thread(
        target=lambda: found.append(progrpo.train_pipeline(pipeline, blueness, PROMPTS, run, tmp_path / "o"))
    )
    thread.start()
    thread.join()
    assert found == [tmp_path / "o" / "final"]


def test_fp16_on_a_cpu_is_refused(models, tmp_path):
    pipeline = load(models, "sd35m", torch.float16)
    with pytest.raises(UserError, match="fp16 training needs a GPU"):
        progrpo.train_pipeline(pipeline, blueness, PROMPTS, settings(models, "flow_pro", tmp_path), tmp_path / "o")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("seed", [1.5, None, "0"])
def test_a_seed_that_is_no_whole_number_is_one_line(tmp_path, seed):
    with pytest.raises(UserError, match="must be a whole number between 0 and"):
        progrpo.train_pipeline(None, blueness, PROMPTS, None, tmp_path / "o", seed)


def test_a_folder_may_be_named_as_no_configuration_would_name_it(models, tmp_path):
    odd = tmp_path / "{x}<y>" / "sd35m"
    odd.parent.mkdir()
    odd.symlink_to(models / "sd35m")
    group, sampling = progrpo.Group(size=2), progrpo.Sampling(steps=2, guidance_scale=1.0, noise=0.7)
    made = progrpo.sample_pruned(DiffusionPipeline.from_pretrained(odd), PROMPTS, blueness, group, sampling)
    assert made.images.shape[:2] == (2, 2)


@pytest.mark.parametrize(
    ("model", "changed", "told"),
    [
        ("sd14", {"noise": 2.0}, "no schedule of 4 steps and noise 2.0: eta must lie in"),
        ("sd14", {"steps": 1000}, "no schedule of 1000 steps and noise 0.7: "),
        (
            "sd35m",
            {"shared_initial_noise": True, "window": {"start": 2, "length": 2}},
            "pruning step 1 comes before the window",
        ),
    ],
)
def test_sampling_that_no_run_could_ask_for_is_one_line(models, model, changed, told):
    group = progrpo.Group(size=3, pruning=[{"step": 1, "keep": 2}])
    sampling = progrpo.Sampling(**{"steps": 4, "guidance_scale": 1.0, "noise": 0.7, **changed})
    with pytest.raises(UserError, match=told) as refused:
        progrpo.sample_pruned(load(models, model), PROMPTS, blueness, group, sampling)
    assert len(str(refused.value)) < 400
