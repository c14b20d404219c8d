"""Model folders as people have them: the official file lists, half-precision variants, shards; what is refused, and by which line."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline
from safetensors.torch import load_file, save_file

import tiny
from progrpo.config import Lora, Model
from progrpo.errors import UserError
from progrpo.grpo.backbone import Backbone, load_backbone
from progrpo.grpo.tuning import Tuning
from progrpo.rehearsal.pipelines import PNDM, SD1_INDEX
from progrpo.weights.manifest import packaged_manifest

FAMILY = {"sd35m": "flow", "sd14": "diffusion"}
PIPELINE = {"sd35m": StableDiffusion3Pipeline, "sd14": StableDiffusionPipeline}
DENOISER = {"sd35m": "transformer", "sd14": "unet"}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return tiny.make_models(tmp_path_factory.mktemp("models"))


def load(folder: Path, family: str) -> Backbone:
    model = Model(family=family, path=str(folder), resolution=24, max_sequence_length=9)
    return load_backbone(model, torch.device("cpu"))


@torch.no_grad()
def output(backbone: Backbone) -> torch.Tensor:
    x = torch.randn(2, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    return backbone.predict(x, torch.tensor(500.0), backbone.encode(["a red circle", "a blue square"]), 2.0)


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def official_sd1(source: Path, folder: Path) -> Path:
    """The index and the scheduler of an official SD-v1.x folder, with the files that the manifest fetches and no other."""
    shutil.copytree(source, folder)
    index = json.loads((folder / "model_index.json").read_text())
    del index["image_encoder"], index["requires_safety_checker"]
    index |= {part: SD1_INDEX[part] for part in ("feature_extractor", "safety_checker", "scheduler")}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(PNDM))
    return folder


@pytest.mark.parametrize("extractor", ["CLIPFeatureExtractor", "CLIPImageProcessor"])
def test_an_official_sd1_index_names_parts_that_are_not_fetched(models, tmp_path, extractor):
    assert not any(
        file.startswith(("feature_extractor", "safety_checker")) for file in packaged_manifest()["sd14"].files
    )
    folder = official_sd1(models / "sd14", tmp_path / "sd14")
    change(folder / "model_index.json", feature_extractor=["transformers", extractor])
    assert torch.equal(output(load(folder, "diffusion")), output(load(models / "sd14", "diffusion")))


@pytest.mark.parametrize("name", FAMILY)
def test_half_precision_weights_are_read_where_there_are_no_others(models, tmp_path, name):
    pipeline = PIPELINE[name].from_pretrained(models / name).to(torch.float16)
    pipeline.save_pretrained(tmp_path / "half", variant="fp16")
    half = load(tmp_path / "half", FAMILY[name])
    for ours, theirs in zip(half.denoiser.parameters(), getattr(pipeline, DENOISER[name]).parameters(), strict=True):
        assert torch.equal(ours, theirs.float())


def test_full_weights_are_read_where_there_are_both(models, tmp_path):
    folder = shutil.copytree(models / "sd35m", tmp_path / "sd35m")
    PIPELINE["sd35m"].from_pretrained(folder).to(torch.float16).save_pretrained(folder, variant="fp16")
    assert torch.equal(output(load(folder, "flow")), output(load(models / "sd35m", "flow")))


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_text_encoder_in_shards(models, tmp_path, variant):
    pipeline = PIPELINE["sd35m"].from_pretrained(models / "sd35m")
    pipeline.save_pretrained(tmp_path / "sd35m", variant=variant)
    encoder = tmp_path / "sd35m" / "text_encoder_3"
    for weights in encoder.glob("*.safetensors"):
        weights.unlink()
    pipeline.text_encoder_3.save_pretrained(encoder, variant=variant, max_shard_size="40KB")
    shards = sorted(encoder.glob("*-of-*.safetensors"))
    assert len(shards) > 1
    assert torch.equal(output(load(tmp_path / "sd35m", "flow")), output(load(models / "sd35m", "flow")))
    shards[-1].unlink()
    with pytest.raises(UserError, match=re.escape(shards[-1].name)):
        load(tmp_path / "sd35m", "flow")


def test_weights_of_which_no_one_kind_is_complete_are_refused(models, tmp_path):
    folder = shutil.copytree(models / "sd14", tmp_path / "sd14")
    unet = folder / "unet"
    (unet / "diffusion_pytorch_model.safetensors").rename(unet / "diffusion_pytorch_model.fp16.safetensors")
    with pytest.raises(UserError, match="unet has weights of variant fp16 only.*fetch the weights without a variant"):
        load(folder, "diffusion")
    (unet / "diffusion_pytorch_model.fp16.safetensors").unlink()
    with pytest.raises(UserError, match="unet/ holds no weights"):
        load(folder, "diffusion")


@pytest.mark.parametrize(
    ("index", "family", "line"),
    [
        ({"text_encoder_3": [None, None]}, "flow", "a StableDiffusion3Pipeline without text_encoder_3"),
        ({}, "diffusion", "a StableDiffusion3Pipeline without unet"),
    ],
)
def test_a_pipeline_without_a_part_of_its_family_is_refused(models, tmp_path, index, family, line):
    folder = shutil.copytree(models / "sd35m", tmp_path / "sd35m")
    change(folder / "model_index.json", **index)
    with pytest.raises(UserError, match=line):
        load(folder, family)


def test_a_part_that_was_not_fetched_is_named(models, tmp_path):
    folder = shutil.copytree(models / "sd35m", tmp_path / "sd35m")
    shutil.rmtree(folder / "tokenizer_2")
    with pytest.raises(UserError, match="no folder tokenizer_2; fetch it again"):
        load(folder, "flow")


def test_weights_under_the_names_of_2022_are_whole(models, tmp_path):
    folder = shutil.copytree(models / "sd14", tmp_path / "sd14")
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = {}
    for key, value in load_file(file).items():
        for new, old in names.items():
            key = key.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        weights[key] = value
    save_file(weights, file, metadata={"format": "pt"})
    assert any("proj_attn" in key for key in weights)
    old, new = load(folder, "diffusion"), load(models / "sd14", "diffusion")
    x = torch.randn(1, *old.latent_shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(old.decode(x), new.decode(x))


PARTS_WITH_WEIGHTS = [
    ("sd14", "unet/diffusion_pytorch_model"),
    ("sd14", "vae/diffusion_pytorch_model"),
    ("sd35m", "text_encoder_3/model"),
]


@pytest.mark.parametrize(("name", "stem"), PARTS_WITH_WEIGHTS)
def test_a_weight_that_is_missing_or_no_number_is_named(models, tmp_path, name, stem):
    folder = shutil.copytree(models / name, tmp_path / name)
    file = folder / f"{stem}.safetensors"
    weights = load_file(file)
    key = sorted(weights)[0]
    save_file({**weights, key: torch.full_like(weights[key], torch.nan)}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"weight '.*{key.split('.')[-1]}' holds NaN or infinity"):
        load(folder, FAMILY[name])
    del weights[key]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"weight '.*{key.split('.')[-1]}' is missing"):
        load(folder, FAMILY[name])


class Code:
    """A pickle that runs a command where it is loaded without care."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize(("name", "stem"), PARTS_WITH_WEIGHTS)
def test_code_among_the_weights_is_not_run(models, tmp_path, name, stem):
    folder = shutil.copytree(models / name, tmp_path / name)
    file = folder / f"{stem}.safetensors"
    pickled = file.with_name("pytorch_model.bin" if file.stem == "model" else f"{file.stem}.bin")
    torch.save({**load_file(file), "x": Code(tmp_path / "ran")}, pickled)
    file.unlink()
    with pytest.raises(UserError, match=f"{stem.split('/')[0]}: cannot be loaded"):
        load(folder, FAMILY[name])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "file", "settings", "line"),
    [
        (
            "sd35m",
            "text_encoder/config.json",
            {"num_hidden_layers": 10**9},
            "num_hidden_layers: 1000000000 is more than",
        ),
        ("sd14", "unet/config.json", {"layers_per_block": [10**6] * 3}, "layers_per_block: 1000000 is more than"),
        ("sd14", "scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}, "num_train_timesteps"),
        ("sd14", "text_encoder/config.json", {"attn_implementation": "a/b"}, "names code to download"),
        ("sd14", "vae/config.json", {"scaling_factor": 0}, "not finite"),
        ("sd14", "tokenizer/tokenizer_config.json", {"model_max_length": 10**6}, "texts of 1000000 tokens"),
        ("sd14", "model_index.json", {"unet": ["antigravity", "Evil"]}, "antigravity|unet"),
    ],
)
def test_sizes_of_no_model_and_parts_that_do_not_fit_are_refused(models, tmp_path, name, file, settings, line):
    folder = shutil.copytree(models / name, tmp_path / name)
    change(folder / file, **settings)
    with pytest.raises(UserError, match=line) as error:
        load(folder, FAMILY[name])
    assert str(folder) in str(error.value)


def test_shards_lie_in_their_own_folder(models, tmp_path):
    folder = shutil.copytree(models / "sd14", tmp_path / "sd14")
    index = {"weight_map": {"x": "../vae/diffusion_pytorch_model.safetensors"}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="index.json: '../vae/.*' is not a name inside the folder"):
        load(folder, "diffusion")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sd14", {"timestep_spacing": "trailing"}),
        ("sd14", {"timestep_spacing": "linspace"}),
        ("sd14", {"prediction_type": "v_prediction"}),
        ("sd14", {"rescale_betas_zero_snr": True}),
        ("sd14", {"thresholding": True}),
        ("sd14", {"set_alpha_to_one": True}),
        ("sd35m", {"use_dynamic_shifting": True}),
        ("sd35m", {"invert_sigmas": True}),
        ("sd35m", {"stochastic_sampling": True}),
    ],
)
def test_a_schedule_that_the_sampler_does_not_know_is_refused_at_loading(models, tmp_path, name, settings):
    folder = shutil.copytree(models / name, tmp_path / name)
    change(folder / "scheduler" / "scheduler_config.json", **settings)
    ((key, value),) = settings.items()
    with pytest.raises(UserError, match=rf"scheduler_config\.json: {key} is {value!r}; the sampler of"):
        load(folder, FAMILY[name])


def test_another_solver_for_flow_models_is_refused(models, tmp_path):
    folder = shutil.copytree(models / "sd35m", tmp_path / "sd35m")
    change(folder / "model_index.json", scheduler=["diffusers", "FlowMatchHeunDiscreteScheduler"])
    with pytest.raises(UserError, match="a FlowMatchHeunDiscreteScheduler; the sampler of flow models needs"):
        load(folder, "flow")


def test_every_target_of_an_adapter_must_be_a_layer(models):
    backbone = load(models / "sd35m", "flow")
    with pytest.raises(UserError, match=r"no layer of the transformer is named attn\.to_p, to_k_x;"):
        Tuning(backbone, Lora(targets=("attn.to_q", "attn.to_p", "to_k_x")), keep_reference=False)
