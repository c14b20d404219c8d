"""The plain loop is the same training without what makes it fast, and the comparison says so."""

from pathlib import Path

import pytest
import torch

import tiny
from progrpo.config import load_config
from progrpo.cost.comparison import PARTS, compare, plain_run, plain_trainer
from progrpo.cost.wall_clock import Repeats
from progrpo.grpo.backbone import load_backbone
from progrpo.grpo.rollout import Clock


class Brightness:
    """The mean pixel; remembers how many images each call had."""

    name = "brightness"

    def __init__(self):
        self.sizes = set()

    def score(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        self.sizes.add(len(images))
        return images.flatten(1).mean(1)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    run = tiny.FLOW | {"micro_batch": "auto", "speed": {"batched_guidance": True}}
    return load_config(tiny.write_config(folder / "config.yaml", tiny.make_models(folder), run=run))


def parts(config):
    backbone = load_backbone(config.models["sd35m"], torch.device("cpu"))
    return backbone, Brightness(), ["a red circle", "a blue square"]


def test_both_loops_train_the_same_and_each_part_is_timed(config):
    now = Clock.now
    result = compare(config.runs["run"], lambda: parts(config), Repeats(0, 1), on_gpu=False)
    assert result["reward"]["fast"] == pytest.approx(result["reward"]["plain"], rel=1e-4)
    assert result["batch"]["plain"] == 2 < result["batch"]["fast"]
    for way in ("plain", "fast"):
        assert set(result[way]) == {*PARTS, "total"}
        assert sum(result[way][part]["median"] for part in PARTS) <= result[way]["total"]["median"]
    assert result["ratio"]["least"] <= result["ratio"]["median"] <= result["ratio"]["greatest"]
    assert Clock.now is now


def test_the_plain_loop_sees_one_image_at_a_time(config, tmp_path: Path):
    backbone, reward, prompts = parts(config)
    trainer = plain_trainer(config.runs["run"], backbone, reward, prompts, tmp_path)
    decoded = []
    decode = backbone.pipeline.vae.decode
    backbone.pipeline.vae.decode = lambda latents: decoded.append(len(latents)) or decode(latents)
    trainer._sample()
    assert reward.sizes == set(decoded) == {1}


def test_plain_is_every_switch_off(config):
    run = plain_run(config.runs["run"])
    assert run.micro_batch == run.group.survivors
    assert not any(getattr(run.speed, name) for name in type(run.speed).model_fields if name != "memory_gb")
