"""Trained weights through the disk: the policy that is evaluated is the trained one; and their moving average."""

import json
from pathlib import Path

import pytest
import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import tiny
from progrpo.config import Config, Ema, Lora, load_config
from progrpo.errors import UserError
from progrpo.grpo.backbone import Backbone, load_backbone
from progrpo.grpo.tuning import LORA_FILE, MovingAverage, Tuning, load_trained

CPU = torch.device("cpu")
TARGETS = {"sd35m": Lora().targets, "sd14": ("to_q", "to_k", "to_v", "to_out.0")}
STRENGTHS = [(4, 4), (8, 4), (4, 16), (32, 64)]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    folder = tmp_path_factory.mktemp("tuning")
    return load_config(tiny.write_config(folder / "config.yaml", tiny.make_models(folder / "models")))


def load(config: Config, name: str, precision: str, all_weights: bool = False) -> Backbone:
    model = config.models[name].model_copy(update={"precision": precision})
    return load_backbone(model, CPU, train_all_weights=all_weights)


@torch.no_grad()
def output(backbone: Backbone) -> torch.Tensor:
    """The guided model output at one noise; what a policy is, up to the sampler."""
    x = torch.randn(2, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    return backbone.predict(x, torch.tensor(500.0), backbone.encode(["a red circle", "a blue square"]), 2.0)


@torch.no_grad()
def train(backbone: Backbone, lora: Lora | None) -> Tuning:
    """A tuning whose parameters have moved."""
    torch.manual_seed(0)
    move = (
        0.3 if lora and backbone.model.family == "flow" else 0.05
    )  # the untrained transformer hardly sees its attention
    tuning = Tuning(backbone, lora, keep_reference=False)
    for parameter in tuning.parameters:
        parameter += move * torch.randn(parameter.shape)
    return tuning


def save(tuning: Tuning, folder: Path) -> None:
    tuning.save(folder, tuning.weights())


@torch.no_grad()
@pytest.mark.parametrize(("rank", "alpha"), STRENGTHS)
@pytest.mark.parametrize("name", TARGETS)
def test_an_adapter_adds_alpha_over_rank_times_b_a(config, tmp_path, name, rank, alpha):
    trained, summed = load(config, name, "fp32"), load(config, name, "fp32")
    save(train(trained, Lora(rank=rank, alpha=alpha, targets=TARGETS[name])), tmp_path)
    layers = load_file(tmp_path / LORA_FILE)
    for key, a in layers.items():
        if "lora_A" in key:
            module = key.removeprefix(f"{trained.denoiser_name}.").removesuffix(".lora_A.weight")
            weight = summed.denoiser.get_parameter(f"{module}.weight")
            weight += alpha / rank * layers[key.replace("lora_A", "lora_B")] @ a
    assert (output(summed) - output(trained)).norm() < 1e-3 * output(trained).norm()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("rank", "alpha"), STRENGTHS)
@pytest.mark.parametrize("name", TARGETS)
def test_a_loaded_adapter_is_the_trained_policy(config, tmp_path, name, rank, alpha, precision):
    trained, evaluated = load(config, name, precision), load(config, name, precision)
    untrained = output(trained)
    save(train(trained, Lora(rank=rank, alpha=alpha, targets=TARGETS[name])), tmp_path)
    load_trained(evaluated, tmp_path)
    assert torch.equal(output(evaluated), output(trained))
    assert (output(trained) - untrained).norm() > 0.05 * untrained.norm()
    adapter = {p.dtype for key, p in evaluated.denoiser.named_parameters() if "lora_" in key}
    assert adapter == {torch.float32}
    weights = [[p for key, p in b.denoiser.named_parameters() if "lora_" in key] for b in (trained, evaluated)]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))  # not rounded to the denoiser's precision


@pytest.mark.parametrize(("rank", "alpha"), STRENGTHS)
@pytest.mark.parametrize("name", TARGETS)
def test_plain_diffusers_loads_the_trained_strength(config, tmp_path, name, rank, alpha):
    trained, plain = load(config, name, "fp32"), load(config, name, "fp32")
    save(train(trained, Lora(rank=rank, alpha=alpha, targets=TARGETS[name])), tmp_path)
    plain.pipeline.load_lora_weights(tmp_path)
    torch.testing.assert_close(output(plain), output(trained))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", TARGETS)
def test_a_loaded_full_fine_tune_is_the_trained_policy(config, tmp_path, name, precision):
    """Text encoders included: they are frozen, so both sides must hold them in one precision."""
    trained, evaluated = load(config, name, precision, all_weights=True), load(config, name, precision)
    save(train(trained, None), tmp_path)
    load_trained(evaluated, tmp_path)
    assert torch.equal(output(evaluated), output(trained))
    assert {p.dtype for p in trained.denoiser.parameters()} == {torch.float32}


def test_equal_adapters_are_equal_bytes(config, tmp_path):
    backbone = load(config, "sd35m", "fp32")
    tuning = train(backbone, Lora(rank=2, alpha=4))
    files = [tmp_path / str(k) / LORA_FILE for k in range(6)]
    for file in files:
        tuning.save(file.parent, tuning.weights())
    assert len({file.read_bytes() for file in files}) == 1


def test_an_adapter_without_alpha_is_refused_in_one_line(config, tmp_path):
    save(train(load(config, "sd35m", "fp32"), Lora(rank=2, alpha=4)), tmp_path)
    save_file(load_file(tmp_path / LORA_FILE), tmp_path / LORA_FILE)  # as older versions wrote it
    with pytest.raises(UserError, match="without its alpha.*train anew") as refused:
        load_trained(load(config, "sd35m", "fp32"), tmp_path)
    assert len(str(refused.value).splitlines()) == 1


def without(key: str):
    return lambda declared, layers: (
        None if key is None else {k: v for k, v in declared.items() if not k.endswith(key)},
        layers,
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without(".lora_alpha"), "without its alpha"),
        (without(".r"), "without its r,"),
        (without(None), "without its alpha"),
        (lambda declared, layers: ({**declared, "transformer.lora_alpha": 0}, layers), "without its alpha"),
        (lambda declared, layers: (declared, dict(sorted(layers.items())[: len(layers) // 2])), "holds no adapter of "),
        (lambda declared, layers: (declared, {f"unet.{k}": v for k, v in layers.items()}), "holds no adapter of "),
    ],
)
def test_an_adapter_that_does_not_say_what_it_is_or_lacks_layers_is_refused(config, tmp_path, change, told):
    """Each would be evaluated at another strength than it was trained with."""
    save(train(load(config, "sd35m", "fp32"), Lora(rank=2, alpha=4)), tmp_path)
    with safe_open(tmp_path / LORA_FILE, "pt") as stored:
        declared = json.loads(stored.metadata()[LORA_ADAPTER_METADATA_KEY])
    declared, layers = change(declared, load_file(tmp_path / LORA_FILE))
    save_file(layers, tmp_path / LORA_FILE, {LORA_ADAPTER_METADATA_KEY: json.dumps(declared)})
    with pytest.raises(UserError, match=told) as refused:
        load_trained(load(config, "sd35m", "fp32"), tmp_path)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("lora", [Lora(rank=2, alpha=4), None])
def test_weights_that_are_not_finite_are_not_saved(config, tmp_path, lora):
    tuning = train(load(config, "sd35m", "fp32", all_weights=lora is None), lora)
    with torch.no_grad():
        tuning.parameters[-1].view(-1)[0] = float("inf")
    with pytest.raises(UserError, match="not finite"):
        tuning.save(tmp_path / "final", tuning.weights())
    assert not (tmp_path / "final").exists()


@pytest.mark.parametrize("case", json.loads(Path(__file__).parents[1].joinpath("data/ema_series.json").read_text()))
def test_the_average_is_the_public_codes_series(case):
    """The series of tests/data/ema_series.py, in exact arithmetic, at every step."""
    parameter = torch.tensor([case["initial"]], dtype=torch.float64)
    average = MovingAverage([parameter], Ema(decay=case["decay"], every=case["every"]))
    for step, (value, expected) in enumerate(zip(case["parameter"], case["average"], strict=True)):
        parameter.fill_(value)
        average.update([parameter], step)
        assert average.values[0].item() == pytest.approx(expected, rel=1e-13)


def test_the_average_is_a_copy():
    parameter = torch.zeros(1)
    average = MovingAverage([parameter], Ema())
    parameter.fill_(5.0)
    assert average.values[0].item() == 0


def test_adapters_that_fit_no_layer_are_named(config):
    with pytest.raises(UserError, match=r"lora\.targets: no layer of the unet is named attn\.to_q"):
        Tuning(load(config, "sd14", "fp32"), Lora(), keep_reference=False)
