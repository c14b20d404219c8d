"""Both families against diffusers' own pipelines, and guidance."""

from pathlib import Path

import pytest
import torch

import tiny
from progrpo.config import Model, Sampling
from progrpo.errors import UserError
from progrpo.grpo.backbone import Backbone, load_backbone
from progrpo.grpo.samplers import step_mean

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
