"""The estimates of a tier's cost against numbers computed by hand, and against what is counted elsewhere."""

import json
import re
import weakref
from dataclasses import replace

import pytest
import torch
import yaml
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from checkout import ROOT
from progrpo.cli import main
from progrpo.config import Run, load_config
from progrpo.cost import architectures, budget
from progrpo.cost.budget import NETWORKS, Network
from progrpo.execution import Previews
from progrpo.workflow.estimate import report, run_lines

PAPER = load_config(ROOT / "config" / "paper.yaml")
COUNTED = json.loads((ROOT / "results/published/paper/summary.json").read_text())["analysis"]["flops"]
ROUND = Network(
    denoiser=1_000_000_000,
    adapters=10_000_000,
    encoders=5_000_000_000,
    decoder=100_000_000,
    latent=250_000,
    text=500_000,
    call=1.0,
    adapted_call=2.0,
    backward=3.0,
    adapted_backward=5.0,
    decode=7.0,
    tiny_decode=1.0,
    reward=11.0,
    activations=0.5,
    checkpointed=0.25,
    gathered=100_000_000,
)


def changed(name: str, **changes):
    return PAPER.runs[name].model_copy(update=changes)


def case(name: str):
    run = PAPER.runs[name]
    return run, PAPER.models[run.model], [PAPER.scorers[scorer] for scorer in run.reward]


def refusal(capsys, *options: str) -> str:
    assert main(["plan", *options]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


# ---------------------------------------------------------------- operations


@pytest.mark.parametrize("name", COUNTED["accountings"]["measured"]["runs"])
def test_an_iteration_costs_what_the_cost_model_counts(name):
    """`progrpo flops` counts 4 prompts on SD-v1.4, and no second forward pass of checkpoints."""
    prompts = COUNTED["published"][name]["prompts"]
    run = changed(name, gradient_checkpointing=False, prompts_per_iteration=prompts)
    made = budget.iteration_tflop(run, NETWORKS[PAPER.models[run.model].family])
    for part, value in COUNTED["accountings"]["measured"]["runs"][name]["tflop"].items():
        assert made[part] == pytest.approx(value, rel=2e-3), part


def test_a_trained_step_by_hand():
    run = PAPER.runs["flowgrpo_sd35m"]  # adapters; a detached branch, a reference, checkpoints
    assert budget.trained_step(run, ROUND) == 2 * 2 + (5 + 2) + 2 * 1
    plain = run.model_copy(update={"gradient_checkpointing": False, "lora": None})
    assert budget.trained_step(plain, ROUND) == 2 * 1 + 3 + 2 * 1
    run = PAPER.runs["dancegrpo_sd14"]  # all weights, both branches, no reference
    assert budget.trained_step(run, ROUND) == 2 * 1 + 2 * 3
    unguided = run.model_copy(update={"sampling": run.sampling.model_copy(update={"guidance_scale": 1.0})})
    assert budget.trained_step(unguided, ROUND) == 1 + 3


def test_hours_by_hand():
    assert budget.gpu_hours(3600 * 500, gpu_tflops=1000, utilisation=0.25) == 2


def test_images_and_analyses_by_hand():
    evaluation = PAPER.evaluations["drawbench"]  # 40 steps, four scorers
    made = budget.evaluation_tflop(evaluation, PAPER.models["sd35m"], ROUND, images=10)
    assert made == 10 * (40 * 2 * 2.0 + 7 + 4 * 11)
    assert budget.analysis_tflop(PAPER.analyses["reward_clustering"], ROUND) == 300 * 12 * (10 * 2 * 2.0 + 18)
    assert budget.analysis_tflop(PAPER.analyses["pruning_pilot"], ROUND) == 64 * 48 * (10 * 2 * 2.0 + 11 * 18)


def test_a_gradient_study_by_hand():
    """Its own prompts and as many others; of each trajectory a preview per step and, per trained step, both passes."""
    pilot, run = PAPER.analyses["pruning_pilot"], PAPER.runs["flowgrpo_sd35m"]  # adapters; a reference and checkpoints
    study = pilot.model_copy(update={"candidates": ((5, 7),), "gradients_of": "flowgrpo_sd35m"})
    sampled, trained = 10 * 2 * 2.0 + 11 * 18, 9 * (2 * 2.0 + 5)
    assert run.trained_steps == 9
    assert budget.analysis_tflop(study, ROUND, run) == 2 * 64 * 48 * (sampled + trained)
    full = run.model_copy(update={"lora": None})
    assert budget.analysis_tflop(study, ROUND, full) == 2 * 64 * 48 * (sampled + 9 * (2 * 1.0 + 3))
    planned = report(PAPER.model_copy(update={"analyses": {"study": study}}), 495, 0.35)
    tflop = budget.analysis_tflop(study, NETWORKS["flow"], run)
    assert planned["analysis_gpu_hours"] == budget.gpu_hours(tflop, 495, 0.35)


# ---------------------------------------------------------------- memory


def test_the_memory_of_a_training_in_full_by_hand():
    run, model, scorers = case("dancegrpo_sd14")
    made = budget.memory(run, model, scorers, ROUND)
    expected = {
        "denoiser": 4.0,
        "gathered": 0.0,
        "autocast copy": 2.0,
        "gradients": 8.0,  # and the buckets of distributed training
        "AdamW": 8.0,
        "moving average": 0.0,
        "reference": 0.0,
        "decoder": 0.4,
        "reward": 4 * 0.986109441,
        "text encoders": 0.0,
        "rollout": 4 * (16 * 51 * 0.001 + 0.001),
        "activations": 4 * 2 * 0.5,  # four pairs, both branches
        "overhead": budget.OVERHEAD_GB,
    }
    assert made == pytest.approx({**expected, "total": sum(expected.values())})


def test_the_memory_of_adapters_by_hand():
    run, model, scorers = case("flowgrpo_sd35m")
    made = budget.memory(run, model, scorers, ROUND)
    assert made["denoiser"] == pytest.approx(2.0 + 0.04)
    assert (made["gradients"], made["AdamW"], made["moving average"]) == pytest.approx((0.08, 0.08, 0.04))
    assert made["autocast copy"] == made["reference"] == 0
    assert made["activations"] == pytest.approx(8 * budget.DECODE_GB)  # more than the 8 x 0.25 of checkpoints


def test_the_memory_of_sharded_weights_by_hand():
    def memory(name: str, gpus: int, **changes) -> dict[str, float]:
        run, model, scorers = case(name)
        speed = run.speed.model_copy(update={"shard": True})
        hardware = run.hardware.model_copy(update={"gpus": gpus, "nodes": 1})
        run = run.model_copy(update={"speed": speed, "hardware": hardware, **changes})
        return budget.memory(run, model, scorers, ROUND)

    full = memory("dancegrpo_sd14", 4, ema=PAPER.runs["flowgrpo_sd35m"].ema)
    parts = ("denoiser", "gathered", "gradients", "AdamW", "moving average", "autocast copy")
    assert [full[part] for part in parts] == pytest.approx([1.0, 0.8, 1.0, 2.0, 1.0, 2.0])
    adapted = memory("flowgrpo_sd35m", 4)
    assert [adapted[part] for part in parts] == pytest.approx([0.5 + 0.04, 0.2, 0.08, 0.08, 0.04, 0.0])
    alone = memory("dancegrpo_sd14", 1)
    assert (alone["denoiser"], alone["gathered"], alone["gradients"]) == pytest.approx((4.0, 0.0, 4.0))


def test_latents_of_a_group_at_its_worst_moment():
    """Those of the steps taken, and what a selection makes room for: one state, or at the last one all that stay."""
    assert budget.states_at_peak(PAPER.runs["flowgrpo_sd35m"]) == 24 * 11
    assert budget.states_at_peak(PAPER.runs["progrpo_sd35m"]) == max(48 * 6 + 24, 24 * 8 + 12 * 11)
    assert budget.states_at_peak(PAPER.runs["ovf_sd35m"]) == 24 * 11 + 12 * 11


def test_what_saves_memory_by_hand():
    run, model, scorers = case("progrpo_sd35m")  # 4 prompts on each of 24 GPUs

    def with_speed(**speed):
        return run.model_copy(update={"speed": run.speed.model_copy(update=speed)})

    def part(name, **speed):
        return budget.memory(with_speed(**speed), model, scorers, ROUND)[name]

    assert part("rollout") == pytest.approx(4 * 324 * 0.001 + 4 * 0.001)
    assert part("rollout", prompts_at_once=1) == pytest.approx(324 * 0.001 + 4 * 12 * 11 * 0.001 + 4 * 0.001)
    assert part("rollout", prompts_at_once=1, states_on_host=True) == pytest.approx(324 * 0.001 + 4 * 0.001)
    assert part("activations", decode_batch=3) == pytest.approx(3 * budget.DECODE_GB)
    run, model, scorers = case("dancegrpo_sd14")
    run = run.model_copy(update={"gradient_checkpointing": True, "micro_batch": 1})
    assert part("activations") == 4.0  # what AdamW's step makes
    assert part("activations", fused_optimizer=True) == pytest.approx(budget.DECODE_GB)


def test_cheaper_previews_by_hand():
    run = PAPER.runs["progrpo_sd35m"]

    def previews(**settings):
        changed_run = run.model_copy(update={"previews": Previews(**settings)})
        return budget.iteration_tflop(changed_run, ROUND)["previews"] / (96 * (48 + 24))

    assert previews() == previews(precision="bf16") == 7 + 11
    assert previews(decoder="data/taesd3") == 1 + 11
    assert previews(scale=0.5) == 7 / 4 + 11


def test_the_recipe_for_24_gb_is_what_it_computes():
    page = (ROOT / "docs" / "speed.md").read_text().split("## One card of 24 GB")[1].split("\n## ")[0]
    settings = yaml.safe_load(page.split("```yaml")[1].split("```")[0])
    shown = dict(re.findall(r"^\| (\w+_sd\w+) \| ([\d.]+) \|$", page, re.MULTILINE))
    assert set(shown) == {"dancegrpo_sd14", "progrpo_sd14", "flowgrpo_sd35m", "progrpo_sd35m"}
    for name, told in shown.items():
        run, model, scorers = case(name)
        run = Run.model_validate(run.model_dump() | settings)
        total = budget.memory(run, model, scorers, NETWORKS[model.family])["total"]
        assert total < 24
        assert f"{total:.1f}" == told, name


def test_cached_texts_are_encoded_while_everything_is_loaded():
    run, model, scorers = case("flowgrpo_sd35m")
    total = budget.memory(run, model, scorers, replace(ROUND, encoders=50_000_000_000))["total"]
    assert total == pytest.approx(2.04 + 100 + 0.4 + 4 * 0.986109441 + budget.OVERHEAD_GB)


@pytest.mark.parametrize("memory", [10, 14, 18, 22])
@pytest.mark.parametrize("name", ["progrpo_sd14_multi", "progrpo_sd35m"])
def test_a_remedy_fits_or_helps(name, memory):
    run, model, scorers = case(name)
    network = NETWORKS[model.family]
    need = budget.memory(run, model, scorers, network)["total"]
    names, less = budget.remedy(run, model, scorers, network, memory)
    assert less <= need
    assert (less < need) == bool(names)
    if less > memory:  # nothing was left out
        assert names == budget.remedy(run, model, scorers, network, 1)[0]


def test_what_keeps_the_result_is_preferred():
    run, model, scorers = case("dancegrpo_sd14")
    run = run.model_copy(update={"micro_batch": 32})
    need = budget.memory(run, model, scorers, NETWORKS["diffusion"])["total"]
    names, less = budget.remedy(run, model, scorers, NETWORKS["diffusion"], need - 1)
    assert names == ["gradient_checkpointing"]
    assert less < need - 1


def test_several_settings_that_keep_the_result_are_preferred_to_one_that_does_not():
    run, model, scorers = case("dancegrpo_sd14")
    speed = run.speed.model_copy(update={"text_cache": None})
    run = run.model_copy(update={"micro_batch": 8, "speed": speed})
    names, less = budget.remedy(run, model, scorers, ROUND, 35)
    assert names == ["speed.text_cache", "gradient_checkpointing", "micro_batch: 1", "speed.fused_optimizer"]
    assert less <= 35


# ---------------------------------------------------------------- what is counted


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameters_are_those_of_the_architectures():
    flow, diffusion = NETWORKS["flow"], NETWORKS["diffusion"]
    with torch.device("meta"):
        transformer = architectures.sd35m_transformer()
        assert parameters(transformer) == flow.denoiser
        architectures.add_lora(transformer)
        assert sum(p.numel() for p in transformer.parameters() if p.requires_grad) == flow.adapters
        assert parameters(architectures.sd14_unet()) == diffusion.denoiser
        assert parameters(architectures.autoencoder("sd35m")) == flow.decoder
        assert parameters(architectures.autoencoder("sd14")) == diffusion.decoder
        assert parameters(architectures.clip("H")) == budget.VIT_H
        assert parameters(architectures.clip("L")) == budget.SCORER_PARAMETERS["aesthetic"]


@pytest.mark.parametrize(("family", "build"), [("flow", "sd35m_transformer"), ("diffusion", "sd14_unet")])
def test_what_is_gathered_are_the_outermost_weights_and_three_blocks(family, build):
    with torch.device("meta"):
        model = getattr(architectures, build)()
    units = [module for module in model.modules() if type(module).__name__ in model._no_split_modules]
    own: dict[torch.nn.Module, set] = {}
    for unit in (*reversed(units), model):  # what a unit's inner units do not hold
        own[unit] = set(unit.parameters()).difference(*own.values())
    outermost, *sizes = [sum(p.numel() for p in own[unit]) for unit in (model, *units)]
    assert NETWORKS[family].gathered == outermost + sum(sorted(sizes)[-3:])


def test_text_encoders_are_of_the_published_shapes():
    t5 = T5Config(
        d_model=4096, d_ff=10240, d_kv=64, num_heads=64, num_layers=24, vocab_size=32128, feed_forward_proj="gated-gelu"
    )
    small = CLIPTextConfig(hidden_size=768, intermediate_size=3072, projection_dim=768, num_attention_heads=12)
    large = CLIPTextConfig(
        hidden_size=1280, intermediate_size=5120, projection_dim=1280, num_hidden_layers=32, num_attention_heads=20
    )
    with torch.device("meta"):
        total = parameters(T5EncoderModel(t5))
        total += sum(parameters(CLIPTextModelWithProjection(config)) for config in (small, large))
    assert total == NETWORKS["flow"].encoders


@pytest.mark.parametrize(("family", "backbone"), [("flow", "sd35m"), ("diffusion", "sd14")])
def test_operations_are_the_counted_ones(family, backbone):
    network, counted = NETWORKS[family], COUNTED["atomic"]["measured"][backbone]
    backward = 2 * network.adapted_backward if family == "flow" else 2 * network.backward
    assert 2 * network.adapted_call == pytest.approx(counted["denoiser"], rel=1e-3)
    assert 2 * network.call == pytest.approx(counted["denoiser_without_lora"], rel=1e-3)
    assert backward == pytest.approx(counted["denoiser_backward"], rel=1e-3)
    assert (network.decode, network.reward) == pytest.approx((counted["decoder"], counted["reward"]), rel=1e-3)
    assert network.tiny_decode == pytest.approx(counted["taesd"], rel=1e-3)


class Live(TorchDispatchMode):
    """Bytes of tensors that are alive, of those made under this mode."""

    def __init__(self):
        super().__init__()
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        before = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = function(*args, **(kwargs or {}))
        for storage in (t.untyped_storage() for t in tree_leaves(out) if isinstance(t, torch.Tensor)):
            if storage._cdata not in self.sizes and id(storage) not in before:
                self.sizes[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.sizes.pop, storage._cdata, None)
        return out


def test_activations_of_the_unet_are_what_a_forward_pass_leaves():
    def left(rows: int) -> int:
        with FakeTensorMode(allow_non_fake_inputs=True):
            model, inputs = architectures.sd14_unet().eval(), architectures.denoiser_inputs("sd14", rows)
            with Live() as live, torch.autocast("cpu", dtype=torch.bfloat16):
                output = model(**inputs, return_dict=False)[0].float()
                total = sum(live.sizes.values())
            assert output.requires_grad
            return total

    assert (left(2) - left(1)) / budget.GB == pytest.approx(NETWORKS["diffusion"].activations, rel=0.02)


# ---------------------------------------------------------------- disk


def test_disk_by_hand():
    assert budget.training_disk(PAPER.runs["dancegrpo_sd14"], ROUND) == pytest.approx({"states": 36.0, "final": 4.0})
    assert budget.training_disk(PAPER.runs["progrpo_sd35m"], ROUND) == pytest.approx({"states": 0.48, "final": 0.04})


def test_prompts_are_counted_before_they_are_downloaded():
    sets = PAPER.prompt_sets
    assert budget.prompt_count(sets["test_flow"], 27_480) == 2_048
    assert budget.prompt_count(sets["test_diffusion"], 3_200) == 400
    assert budget.prompt_count(sets["hpsv2"], 3_200) == 3_200
    assert budget.prompt_count(sets["train_diffusion"], None) is None


# ---------------------------------------------------------------- the command


def test_a_card_that_is_too_small_is_refused_with_the_setting_that_helps(capsys):
    told = refusal(capsys, "--config", str(ROOT / "config/paper.yaml"), "--gpu-memory", "24")
    for word in ("dancegrpo_sd14", "speed.shard", "batch: ", "estimated"):
        assert word in told


def test_models_that_were_not_counted_are_refused(capsys):
    assert "no source in the manifest" in refusal(capsys, "--config", str(ROOT / "config/smoke.yaml"))
    assert "--utilisation 1.5" in refusal(capsys, "--config", str(ROOT / "config/paper.yaml"), "--utilisation", "1.5")


def test_the_plan_in_json_adds_up(capsys):
    assert not main(["plan", "--config", str(ROOT / "config/paper.yaml"), "--json", "--utilisation", "0.7"])
    made = json.loads(capsys.readouterr().out)
    half = report(PAPER, 495, 0.35)
    for name, entry in made["runs"].items():
        assert entry["gpu_hours"] == pytest.approx(half["runs"][name]["gpu_hours"] / 2)
        assert entry["hours"] == pytest.approx(entry["gpu_hours"] / entry["gpus"])
    assert made["disk_gb"].pop("total") == pytest.approx(sum(made["disk_gb"].values()))
    assert made["critical_path"]["hours"] == pytest.approx(sum(made["critical_path"]["parts"]))
    assert made["critical_path"]["hours"] >= max(entry["hours"] for entry in made["runs"].values())


def test_the_rows_of_the_artifact_are_those_of_the_plan():
    page = (ROOT / "ARTIFACT.md").read_text()
    section = page.split("## What tier `paper` costs")[1].split("\n## ")[0]
    shown = [line for line in section.splitlines() if re.match(r"\w+_sd\w+ +\d", line)]
    assert shown
    assert set(shown) <= set(run_lines(report(PAPER, 495, 0.35)))
