"""Preprocessing equals the pipelines that the originals use, on images of several shapes."""

import numpy as np
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor
from transformers import CLIPImageProcessorPil

from progrpo.errors import UserError
from progrpo.rewards.preprocess import CLIP_MEAN, CLIP_STD, check_mode, clip_pixels, quantise

SHAPES = [(64, 64), (40, 61), (61, 40), (32, 32), (20, 28), (45, 32)]


def picture(shape: tuple[int, int]) -> tuple[Image.Image, torch.Tensor]:
    """The same random image as PIL and as (1, 3, H, W) in [0, 1]."""
    pixels = np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3), dtype=np.uint8)
    return Image.fromarray(pixels), torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("shape", SHAPES)
def test_pil_mode_equals_open_clips_transform(shape):
    pil, tensor = picture(shape)
    expected = image_transform(32, is_train=False, mean=CLIP_MEAN, std=CLIP_STD)(pil)
    assert torch.equal(clip_pixels(tensor, 32)[0], expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_pil_mode_equals_the_clip_image_processor(shape):
    pil, tensor = picture(shape)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    expected = processor(images=[pil], return_tensors="pt").pixel_values
    assert torch.allclose(clip_pixels(tensor, 32, rounding="floor"), expected, atol=1e-6)


@pytest.mark.parametrize(("mode", "antialias"), [("tensor_aa", True), ("tensor_noaa", False)])
@pytest.mark.parametrize("shape", SHAPES)
def test_tensor_modes_equal_the_hpsv2_fork(shape, mode, antialias):
    """ToTensor, then Resize of the tensor, as in the fork; antialiased or not by torchvision's version."""
    pil, tensor = picture(shape)
    resize = Resize(32, interpolation=InterpolationMode.BICUBIC, antialias=antialias)
    expected = Compose([ToTensor(), resize, CenterCrop(32), Normalize(CLIP_MEAN, CLIP_STD)])(pil)
    assert torch.allclose(clip_pixels(tensor, 32, mode)[0], expected, atol=1e-5)


@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("shape", [*SHAPES, (512, 512), (300, 420)])
def test_resizing_on_the_device_is_pils_within_two_levels(shape, size):
    _, tensor = picture(shape)
    levels = [
        clip_pixels(tensor, size, mode) * torch.tensor(CLIP_STD).view(3, 1, 1) * 255 for mode in ("pil", "device")
    ]
    difference = (levels[0] - levels[1]).abs()
    assert difference.max() < 2.01
    assert (difference > 0.5).float().mean() < 0.01  # of white noise: smooth pictures differ less


def test_the_modes_differ_on_large_images():
    _, tensor = picture((128, 128))
    pil, aa, noaa = (clip_pixels(tensor, 32, mode) for mode in ("pil", "tensor_aa", "tensor_noaa"))
    assert (pil - aa).abs().mean() < 0.02 < (pil - noaa).abs().mean()


def test_values_are_clamped_and_rounded_to_8_bits():
    assert quantise(torch.tensor([-0.5, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 2.0])).tolist() == [0, 0, 0, 1, 255, 255]


def test_an_unknown_mode_is_named():
    with pytest.raises(UserError, match="hpsv2: preprocess 'bilinear' is unknown; use one of pil"):
        check_mode("hpsv2", "bilinear")
    with pytest.raises(UserError, match="use one of pil, device$"):
        check_mode("pickscore", "tensor_aa")
