"""What leaves a process is what the next one reads: images against what was sampled, weights against plain diffusers."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import tiny
from progrpo.benchmarks.images import BenchmarkImage
from progrpo.cli import main
from progrpo.config import Config, load_config
from progrpo.errors import UserError
from progrpo.files import write_json, write_jsonl
from progrpo.grpo.backbone import load_backbone
from progrpo.grpo.rollout import TrajectoryNoise
from progrpo.jobs.evaluate import score_images
from progrpo.jobs.images import save_image
from progrpo.jobs.loading import prompts_of

GUIDANCE, STEPS = 2.0, 3
UNET_LORA = {"rank": 4, "alpha": 16, "targets": ["to_q", "to_k", "to_v", "to_out.0"]}
QUICK = {"iterations": 2, "optimizer": {"learning_rate": 1e-2}}  # steps that show in an image
RUNS = {
    "flow_lora": {**tiny.FLOW, **QUICK, "lora": {"rank": 4, "alpha": 16}},
    "unet_lora": {**tiny.DIFFUSION, **QUICK, "lora": UNET_LORA, "ema": {"every": 1}},
    "unet_full": {**tiny.DIFFUSION, "iterations": 1, "optimizer": {"learning_rate": 1e-3}},
}
# Knows diffusers alone: a published folder, prompts, noise. This environment's torchvision may be one that cannot be imported.
PLAIN = """
import sys
sys.modules["torchvision"] = None
import numpy, torch
from diffusers import DDIMScheduler, StableDiffusion3Pipeline, StableDiffusionPipeline, UNet2DConditionModel
torch.set_num_threads(1)
def make(kind, model, final, given, out):
    given = numpy.load(given)
    if kind == "flow_lora":
        pipeline = StableDiffusion3Pipeline.from_pretrained(model)
    else:
        pipeline = StableDiffusionPipeline.from_pretrained(model, safety_checker=None)
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    if kind == "unet_full":
        pipeline.unet = UNet2DConditionModel.from_pretrained(final + "/unet")
    else:
        pipeline.load_lora_weights(final)
    images = pipeline(
        list(given["prompts"]), latents=torch.from_numpy(given["noise"]), num_inference_steps=int(given["steps"]),
        guidance_scale=float(given["guidance"]), height=24, width=24, output_type="np",
        **({"max_sequence_length": 9} if kind == "flow_lora" else {}),
    ).images
    assert not any(name.partition(".")[0] == "progrpo" for name in sys.modules)
    numpy.save(out, images)
for first in range(1, len(sys.argv), 5):
    make(*sys.argv[first : first + 5])
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """config.yaml of three runs that are evaluated by a guided, deterministic sampler."""
    folder = tmp_path_factory.mktemp("world")
    path = tiny.write_config(folder / "config.yaml", tiny.make_models(folder / "models"), **RUNS)
    config = yaml.safe_load(path.read_text())
    sampling = {"steps": STEPS, "guidance_scale": GUIDANCE}
    config["evaluations"]["test"]["sampling"] = {"flow": sampling, "diffusion": sampling}
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def made(world) -> Path:
    """A folder for each run, with its training in `run`, images by it and its base model, and plain ones in images.npy."""
    config, arguments = load_config(world), []
    for run in RUNS:
        folder, own = world.parent / run, ["--config", str(world), "--run", run]
        final = folder / "run" / "final"
        assert main(["train", *own, "--out", str(folder / "run")]) == 0
        assert main(["generate", *own, "--weights", str(final), "--out", str(folder / "images")]) == 0
        base = f"base_{config.runs[run].model}"
        assert main(["generate", "--config", str(world), "--run", base, "--out", str(folder / "base")]) == 0
        arguments += plain_arguments(config, run, final, folder)
    environment = {"PATH": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", PLAIN, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return world.parent


def plain_arguments(config: Config, run: str, final: Path, folder: Path) -> list[str]:
    """What diffusers in a process of its own makes (6, 24, 24, 3) in [0, 1] of: the noise that `progrpo generate` uses."""
    prompts = [record.prompt for record in prompts_of(config.prompt_sets["test"])]
    model = config.models[config.runs[run].model]
    shape = load_backbone(model, torch.device("cpu")).latent_shape
    noise = TrajectoryNoise(0, 0, list(range(len(prompts))), shape)
    noise = noise.initial(torch.arange(len(prompts)), torch.zeros(len(prompts), dtype=torch.long))
    np.savez(folder / "given.npz", prompts=prompts, noise=noise.numpy(), steps=STEPS, guidance=GUIDANCE)
    return [run, model.path, str(final), str(folder / "given.npz"), str(folder / "images.npy")]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image, float) / 255


@pytest.mark.xdist_group("round_trip")  # its fixture is made once, by one worker
@pytest.mark.parametrize("run", RUNS)
def test_plain_diffusers_makes_the_images_of_a_trained_run(made, run):
    generated, untrained = (
        np.stack([pixels(made / run / kind / "test" / f"{k:05d}.png") for k in range(6)]) for kind in ("images", "base")
    )
    plain = np.load(made / run / "images.npy")
    assert np.abs(generated - plain).max() < 1 / 510 + 1e-3
    assert np.abs(untrained - plain).max() > 2 / 255  # the training shows


class Recorder:
    """A scorer that remembers the images it was shown."""

    name = "recorder"

    def __init__(self, value: float = 0.0):
        self.images, self.value = [], value

    def score(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        self.images += list(images)
        return torch.full((len(images),), self.value)


def through_disk(folder: Path, images: torch.Tensor, suffix: str) -> torch.Tensor:
    listed = [BenchmarkImage(f"{k}{suffix}", folder / f"{k}{suffix}", "a cat", None, "") for k in range(len(images))]
    for item, image in zip(listed, images, strict=True):
        save_image(item.path, image)
    score_images(recorder := Recorder(), listed, 2)
    return torch.stack(recorder.images)


def noise_images(cells: int) -> torch.Tensor:
    coarse = torch.rand(3, 3, cells, cells, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, 64, mode="bicubic").clamp(0, 1)


def test_a_scorer_sees_a_png_as_it_was_sampled_up_to_rounding(tmp_path):
    images = noise_images(64)
    assert (through_disk(tmp_path, images, ".png") - images).abs().max() <= 1 / 510 + 1e-6


@pytest.mark.parametrize(("cells", "levels"), [(4, 1), (64, 4)])
def test_a_scorer_sees_a_jpeg_within_its_bound(tmp_path, cells, levels):
    images = noise_images(cells)
    assert (through_disk(tmp_path, images, ".jpg") - images).abs().mean() < levels / 255


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused_before_it_is_written(tmp_path, value):
    image = torch.zeros(3, 4, 4)
    save_image(tmp_path / "good.png", image)
    image[1, 2, 3] = value
    good = BenchmarkImage("good.png", tmp_path / "good.png", "a cat", None, "")
    for write in (
        lambda: save_image(tmp_path / "bad.png", image),
        lambda: score_images(Recorder(value), [good], 1),
        lambda: write_json(tmp_path / "bad.json", {"score": {"mean": value}}),
        lambda: write_jsonl(tmp_path / "bad.jsonl", [{"score": 1.0}, {"score": value}]),
    ):
        with pytest.raises(UserError, match="not finite|NaN or infinite") as refused:
            write()
        assert len(str(refused.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["good.png"]
