"""Cheaper previews: what decodes them, how far they agree with plain ones, and that too little agreement ends a training."""

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from test_gradient import FAMILIES, configuration, trainer_of

import tiny
from progrpo.config import Previews
from progrpo.errors import UserError
from progrpo.grpo.previews import _tiny, preview_decoder, rank_agreement, require_agreement
from progrpo.grpo.rollout import Counters, Rollout, Stage
from progrpo.jobs.ingredients import of_training


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tiny.make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def decoders(models, tmp_path_factory):
    """Folders of tiny autoencoders, untrained: one for the models' latents, one for others."""
    folder, torch_seed = tmp_path_factory.mktemp("decoders"), 0
    torch.manual_seed(torch_seed)
    channels = json.loads((models / "sd35m" / "vae" / "config.json").read_text())["latent_channels"]
    for name, width in (("fits", channels), ("other", channels + 1)):
        shape = dict(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
        blocks = dict(num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4)
        AutoencoderTiny(latent_channels=width, **shape, **blocks).save_pretrained(folder / name)
    return folder


def trainer_with(models, folder, family="flow", **previews):
    return trainer_of(configuration(folder, models, family, 0.0, True, 4, previews=previews), folder / "out")


def latents_of(trainer, count=3):
    return torch.randn(count, *trainer.backbone.latent_shape, generator=torch.Generator().manual_seed(0))


def test_plain_previews_have_no_decoder_of_their_own(models, tmp_path):
    assert trainer_with(models, tmp_path).preview is None


@pytest.mark.parametrize("family", FAMILIES)
def test_previews_in_bf16_are_those_of_float32_within_its_rounding(models, tmp_path, family):
    trainer = trainer_with(models, tmp_path, family, precision="bf16")
    latents, vae = latents_of(trainer), trainer.backbone.pipeline.vae
    plain, preview = trainer.backbone.decode(latents), trainer.preview(latents)
    assert preview.dtype == torch.float32
    assert 0 < (preview - plain).abs().mean() < 0.01  # 8 bits of mantissa, through a few layers
    assert (preview - plain).abs().max() < 0.1
    assert vae.dtype == torch.float32  # final images keep their decoder
    assert vae.encoder is not None


def test_a_smaller_preview_is_the_image_of_the_averaged_latent(models, tmp_path):
    trainer = trainer_with(models, tmp_path, scale=0.5)
    latents = latents_of(trainer)
    expected = trainer.backbone.decode(F.avg_pool2d(latents, 2))
    assert 2 * expected.shape[-1] == trainer.backbone.model.resolution
    torch.testing.assert_close(trainer.preview(latents), expected)


def test_a_scale_that_leaves_no_pixel_of_a_latent_is_one_line(models, tmp_path):
    trainer = trainer_with(models, tmp_path)
    side = trainer.backbone.latent_shape[-1]
    with pytest.raises(UserError, match=rf"previews\.scale .*: leaves nothing of a latent .* at least 1/{side}$"):
        preview_decoder(trainer.backbone, Previews(scale=0.99 / side))
    decode = preview_decoder(trainer.backbone, Previews(scale=1.01 / side))
    assert decode(latents_of(trainer)).isfinite().all()


def test_a_tiny_decoder_makes_previews_and_not_final_images(models, decoders, tmp_path):
    trainer = trainer_with(models, tmp_path, decoder=str(decoders / "fits"), agreement=0.0)
    latents = latents_of(trainer)
    reference = AutoencoderTiny.from_pretrained(decoders / "fits")
    with torch.no_grad():
        expected = (reference.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(trainer.preview(latents), expected)
    assert trainer.backbone.decode(latents).shape[-1] != expected.shape[-1]  # it has a factor of its own here


def test_no_tiny_decoder_or_one_of_other_latents_is_one_line(models, decoders, tmp_path):
    for folder, expected in (("other", "for latents of"), ("none", "none: cannot be loaded")):
        with pytest.raises(UserError, match=expected) as error:
            trainer_with(models, tmp_path, decoder=str(decoders / folder))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("damage", "told"), [("pop", "weight '{key}' is missing"), ("fill", "weight '{key}' holds NaN or infinity")]
)
def test_a_tiny_decoder_that_lacks_a_weight_or_holds_nan_is_refused(decoders, tmp_path, damage, told):
    """Random numbers in its place would only lower the agreement."""
    shutil.copytree(decoders / "fits", tmp_path / "damaged")
    path = tmp_path / "damaged" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    key = next(key for key in weights if key.startswith("decoder."))
    weights.pop(key) if damage == "pop" else weights[key].fill_(float("nan"))
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"damaged: {told.format(key=key)}; fetch the model again"):
        _tiny(str(tmp_path / "damaged"), AutoencoderTiny.load_config(tmp_path / "damaged")["latent_channels"])


def test_rank_agreement_is_spearmans():
    draw = torch.Generator().manual_seed(0)
    first, second = torch.rand(3, 9, generator=draw), torch.rand(3, 9, generator=draw)
    second[0, :4] = 0.5  # equal scores
    expected = [spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]
    torch.testing.assert_close(rank_agreement(first, second), torch.tensor(expected, dtype=torch.float64))
    assert rank_agreement(first[:1], torch.ones(1, 9)).isnan().all()


@pytest.mark.parametrize("previews", [{"precision": "bf16"}, {"scale": 0.67}])
def test_agreement_is_measured_in_its_iterations_and_written(models, tmp_path, previews):
    trainer = trainer_with(models, tmp_path, check_every=2, agreement=0.0, **previews)
    plain = trainer_with(models, tmp_path)
    stage = trainer._sample().rollout.stages[0]
    assert torch.allclose(stage.plain, plain._sample().rollout.stages[0].rewards)
    trainer.iteration = 1
    other = trainer._sample().rollout
    assert other.stages[0].plain is None
    assert other.counters.decoder < trainer.run.prompts_per_iteration * (
        3 + 3 + 2
    )  # a comparison counts as the calls it makes
    trainer.iteration = 0
    trainer._train_iteration()
    line = json.loads(trainer.metrics[0])
    assert -1 <= line["preview_agreement"] <= 1
    trainer._train_iteration()
    assert "preview_agreement" not in json.loads(trainer.metrics[1])


def rollout_of(rewards, plain):
    stage = Stage(1, torch.tensor(rewards), torch.tensor([[0, 1]]), torch.tensor(plain))
    return Rollout(torch.zeros(1), torch.zeros(1), torch.zeros(1, 2), torch.zeros(1, 2), [stage], Counters())


def test_previews_that_rank_otherwise_end_the_training_in_one_line():
    rollout = rollout_of([[1.0, 2.0, 3.0]], [[2.0, 1.0, 3.0]])
    require_agreement(rollout, Previews(precision="bf16", agreement=0.5), lambda x: x)
    with pytest.raises(UserError, match=r"rank correlation of 0\.500, less than previews\.agreement \(0\.9\)"):
        require_agreement(rollout, Previews(precision="bf16"), lambda x: x)
    without_ranking = rollout_of([[1.0, 1.0]], [[1.0, 2.0]])
    require_agreement(without_ranking, Previews(precision="bf16"), lambda x: x)


def test_previews_decide_a_training_and_defaults_are_written_as_before(models, decoders, tmp_path):
    def identity(**previews):
        config = configuration(tmp_path, models, "flow", 0.0, True, 4, **({"previews": previews} if previews else {}))
        return of_training(config, "run", 0)

    plain = identity()
    assert "previews" not in plain
    assert "window" not in plain["sampling"]
    assert identity(precision="fp32", check_every=5) == plain
    tiny_decoder = identity(decoder=str(decoders / "fits"))
    assert tiny_decoder["preview_decoder"] != identity(decoder=str(decoders / "other"))["preview_decoder"]
    assert identity(precision="bf16") != plain
    assert identity(precision="bf16", agreement=0.5) == identity(precision="bf16")  # which only ends a training
