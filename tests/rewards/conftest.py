"""Fixtures of the scorers' tests: images, and small random-weight folders in the official layouts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_scorers import make_clip_folder, spread, to_tensor

from progrpo.rewards.aesthetic import HEAD
from progrpo.rewards.linear_head import linear_head


@pytest.fixture(scope="session")
def pil_images() -> list[Image.Image]:
    """Four RGB images of 48 x 40 pixels: coarse blocks under noise."""
    draw = np.random.default_rng(0)
    blocks = np.kron(draw.integers(0, 256, (4, 8, 10, 3)), np.ones((1, 5, 5, 1)))[:, :40, :48]
    noisy = blocks + draw.integers(-20, 21, blocks.shape)
    return [Image.fromarray(image) for image in noisy.clip(0, 255).astype(np.uint8)]


@pytest.fixture(scope="session")
def images(pil_images) -> torch.Tensor:
    """The same images as a tensor (4, 3, 40, 48)."""
    return to_tensor(pil_images)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    """The layout of PickScore_v1 and of CLIP."""
    return make_clip_folder(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def aesthetic_folder(tmp_path_factory) -> Path:
    """The layout of openai/clip-vit-large-patch14 with the aesthetic head beside it."""
    folder = make_clip_folder(tmp_path_factory.mktemp("aesthetic"), "quick_gelu")
    head = spread(linear_head((16, 1024, 128, 64, 16, 1)))
    torch.save({f"layers.{key}": value for key, value in head.state_dict().items()}, folder / HEAD)
    return folder
