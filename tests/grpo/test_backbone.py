"""Both families against diffusers' own pipelines, and guidance."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

import tiny
from progrpo.config import Model, Sampling
from progrpo.errors import UserError
from progrpo.grpo.backbone import Backbone, load_backbone
from progrpo.grpo.samplers import step_mean
from progrpo.miniature.text import clip_tokenizer
from progrpo.model_files import require_merges, require_tokens

PROMPTS = ["a red circle left of a blue square", "two green triangles", "a red circle left of a blue square"]


@pytest.fixture(scope="module")
def backbones(tmp_path_factory) -> dict[str, Backbone]:
    folder: Path = tiny.make_models(tmp_path_factory.mktemp("models"))
    return {
        family: load_backbone(
            Model(family=family, path=str(folder / name), resolution=24, max_sequence_length=9), torch.device("cpu")
        )
        for family, name in (("flow", "sd35m"), ("diffusion", "sd14"))
    }


@pytest.mark.parametrize(
    ("family", "side", "said"),
    [
        ("flow", 20, "a multiple of 8 pixels, at most 24$"),  # whole latents, but half a patch
        ("flow", 32, "a multiple of 8 pixels, at most 24$"),  # more patches than it has positions for
        ("diffusion", 25, "a multiple of 4 pixels$"),  # would be 24 pixels without a word
    ],
)
def test_a_resolution_that_the_model_cannot_make_is_one_line_when_it_is_loaded(backbones, family, side, said):
    known = backbones[family]
    with pytest.raises(UserError, match=rf"^resolution {side}: .* makes images of {said}"):
        type(known)(known.pipeline, known.model.model_copy(update={"resolution": side}), known.device)


def denoise(backbone: Backbone, x: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    table = backbone.table(sampling)
    text = backbone.encode(PROMPTS)
    for step in range(table.steps):
        with torch.no_grad():
            output = backbone.predict(x, table.timesteps[step], text, sampling.guidance_scale)
        x = step_mean(table, step, x, output)
    return x


@pytest.mark.parametrize("family", ["flow", "diffusion"])
@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_deterministic_sampling_equals_the_diffusers_pipeline(backbones, family, guidance):
    from diffusers import DDIMScheduler

    backbone = backbones[family]
    x = torch.randn(3, *backbone.latent_shape, generator=torch.Generator().manual_seed(1))
    ours = backbone.decode(denoise(backbone, x, Sampling(steps=5, guidance_scale=guidance)))
    pipeline = backbone.pipeline
    options = {"num_inference_steps": 5, "guidance_scale": guidance, "latents": x.clone(), "output_type": "pt"}
    if family == "flow":
        options |= {"max_sequence_length": 9, "height": 24, "width": 24}
    else:
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        options |= {"eta": 0.0, "height": 24, "width": 24}
    theirs = pipeline(PROMPTS, **options).images
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


@pytest.mark.parametrize("family", ["flow", "diffusion"])
def test_a_prompt_is_encoded_once_and_rows_follow_the_prompts(backbones, family):
    text = backbones[family].encode(PROMPTS)
    assert torch.equal(text.embeddings[0], text.embeddings[2])
    assert not torch.equal(text.embeddings[0], text.embeddings[1])
    alone = backbones[family].encode(PROMPTS[1:2])
    torch.testing.assert_close(text.embeddings[1], alone.embeddings[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["flow", "diffusion"])
def test_guidance_is_linear_and_its_unconditional_branch_can_be_detached(backbones, family):
    backbone = backbones[family]
    x = torch.randn(2, *backbone.latent_shape, generator=torch.Generator().manual_seed(2))
    text, timestep = backbone.encode(PROMPTS[:2]), torch.tensor(500.0)
    with torch.no_grad():
        outputs = {w: backbone.predict(x, timestep, text, w) for w in (1.0, 2.0, 3.0)}
    torch.testing.assert_close(outputs[3.0] - outputs[2.0], outputs[2.0] - outputs[1.0], atol=1e-5, rtol=1e-4)
    weight = next(p for p in backbone.denoiser.parameters() if p.ndim > 1).requires_grad_(True)
    gradients = []
    for through_both in (True, False):
        output = backbone.predict(x, timestep, text, 2.0, unconditional_gradient=through_both)
        assert torch.equal(output.detach(), outputs[2.0])
        gradients.append(torch.autograd.grad(output.square().sum(), weight)[0])
    weight.requires_grad_(False)
    assert not torch.allclose(*gradients)


def test_the_flow_schedule_is_the_published_one(backbones):
    table = backbones["flow"].table(Sampling(steps=10, guidance_scale=1.0, noise=0.7))
    sigmas = table.timesteps / 1000
    torch.testing.assert_close(sigmas[[5, 7]], torch.tensor([0.7073, 0.4649]), atol=5e-5, rtol=0)


def test_the_diffusion_schedule_is_that_of_sd_v1_4(backbones):
    table = backbones["diffusion"].table(Sampling(steps=50, guidance_scale=1.0, noise=1.0))
    assert table.timesteps[[0, 30, 40, 49]].tolist() == [981, 381, 181, 1]


@pytest.mark.parametrize("family", ["flow", "diffusion"])
def test_the_decoder_has_its_own_precision(backbones, family):
    """float32 unless the model's section says otherwise, whatever the denoiser has; images are float32 in any case."""
    device, model = torch.device("cpu"), backbones[family].model
    latents = torch.randn(2, *backbones[family].latent_shape, generator=torch.Generator().manual_seed(0))
    images = {
        precision: load_backbone(
            model.model_copy(update={"precision": "bf16", "vae_precision": precision}), device
        ).decode(latents)
        for precision in ("fp32", "bf16")
    }
    assert torch.equal(images["fp32"], backbones[family].decode(latents))
    assert {image.dtype for image in images.values()} == {torch.float32}
    difference = (images["bf16"] - images["fp32"]).abs()
    assert 0 < difference.mean() < 0.01
    assert difference.max() < 0.1


@pytest.mark.parametrize(("name", "part"), [("sd14", "tokenizer"), ("sd35m", "tokenizer_2"), ("sd35m", "tokenizer_3")])
def test_a_tokenizer_without_its_vocabulary_is_one_line(tmp_path, name, part):
    """transformers makes one of a few tokens, for which all prompts are alike."""
    models = tiny.make_models(tmp_path)
    (models / name / part / "tokenizer.json").unlink()
    model = Model(
        family="flow" if name == "sd35m" else "diffusion", path=str(models / name), resolution=24, max_sequence_length=9
    )
    with pytest.raises(UserError, match=r"tokens, where the text encoder has|cannot be loaded") as refused:
        load_backbone(model, torch.device("cpu"))
    assert str(models / name) in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_tokenizer_whose_merges_are_cut_is_refused():
    """Its tokens are as many as before, but words come letter by letter."""
    tokenizer = clip_tokenizer()
    require_merges(tokenizer)
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    for kept in (0, len(whole["model"]["merges"]) // 2):
        cut = json.loads(json.dumps(whole))
        del cut["model"]["merges"][kept:]
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(json.dumps(cut)), eos_token="<|endoftext|>"
        )
        with pytest.raises(ValueError, match=f"has {kept} merges for .* merges.txt is cut, or missing"):
            require_merges(tokenizer)


def test_a_text_encoder_that_ends_texts_elsewhere_is_refused():
    tokenizer = clip_tokenizer()
    for end, pooled in ((2, True), (tokenizer.eos_token_id, True), (7, False)):
        config = SimpleNamespace(vocab_size=len(tokenizer), model_type="clip_text_model", eos_token_id=end)
        require_tokens(tokenizer, config, pooled)
    with pytest.raises(ValueError, match="eos_token_id is 7, the tokenizer's"):
        require_tokens(tokenizer, config)


def test_weights_that_have_no_place_in_the_model_are_refused(tmp_path):
    """A config.json of another revision would leave them out without a word."""
    models = tiny.make_models(tmp_path)
    path = models / "sd35m" / "transformer" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "num_layers": 0}))
    model = Model(family="flow", path=str(models / "sd35m"), resolution=24, max_sequence_length=9)
    with pytest.raises(
        UserError, match="transformer: weight 'transformer_blocks.* has no place in a model of this config"
    ):
        load_backbone(model, torch.device("cpu"))
