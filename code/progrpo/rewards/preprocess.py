"""From images in [0, 1] to the normalised pixels that a CLIP or BLIP vision tower reads.

Every reference pipeline starts from a file or a PIL image, so each mode first rounds to 8 bits (diffusers'
`numpy_to_pil`).
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from progrpo.errors import UserError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
ALIKE = ("pil", "device")  # the same filter: PIL's own code, and on the device to within two of 255 levels
MODES = (*ALIKE, "tensor_aa", "tensor_noaa")  # of HPS-v2.1


def check_mode(scorer: str, mode: str, modes: tuple[str, ...] = ALIKE) -> str:
    """The mode, when it is one of `modes`; UserError names the scorer."""
    if mode not in modes:
        raise UserError(f"{scorer}: preprocess {mode!r} is unknown; use one of {', '.join(modes)}")
    return mode


def quantise(images: Tensor) -> Tensor:
    """Images in [0, 1], clamped and rounded to the 8 bits that a PNG keeps: uint8 of the same shape."""
    return (images.float().clamp(0, 1) * 255).round().to(torch.uint8)


def resized_size(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) with the shorter side `size` and the longer truncated, as torchvision and transformers do."""
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def _resize_pil(images: Tensor, height: int, width: int) -> Tensor:
    """PIL's bicubic filter on uint8 images (B, 3, H, W)."""
    arrays = images.permute(0, 2, 3, 1).cpu().numpy()
    resized = [np.asarray(Image.fromarray(a).resize((width, height), Image.Resampling.BICUBIC)) for a in arrays]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).to(images.device)


def _resize_on_device(images: Tensor, height: int, width: int) -> Tensor:
    """PIL's two passes, each rounded to 8 bits, on uint8 images (B, 3, H, W) where they are.

    Of 100 values of white noise at most one differs, by one level or two: a half that is rounded to the other side.
    """

    def to(pixels: Tensor, shape: tuple[int, int]) -> Tensor:
        return F.interpolate(pixels, shape, mode="bicubic", align_corners=False, antialias=True).round().clamp(0, 255)

    pixels = to(images.float(), (images.shape[-2], width))
    return to(pixels, (height, width)).to(torch.uint8)


def center_crop(images: Tensor, size: int, rounding: str = "round") -> Tensor:
    """The central size x size pixels; an odd margin splits as in torchvision ("round") or transformers ("floor")."""
    margins = [(side - size) / 2 for side in images.shape[-2:]]
    top, left = (round(m) if rounding == "round" else int(m // 1) for m in margins)
    return images[..., top : top + size, left : left + size]


def clip_pixels(images: Tensor, size: int, mode: str = "pil", rounding: str = "round") -> Tensor:
    """Pixels (B, 3, size, size) float32 for a vision tower from images (B, 3, H, W) in [0, 1], on their device.

    mode: "pil" resizes 8-bit images with PIL's bicubic filter (open_clip, CLIPImageProcessorPil, ImageReward), one by
    one on the host; "device" does the same on the device, but for one or two of 255 levels in a pixel of 100. "tensor_aa" and
    "tensor_noaa" resize the float tensor with and without antialiasing, as HPSv2's fork does under torchvision >= 0.17
    and < 0.17 (values may then leave [0, 1] a little, as they do there). Images that already have the size are not
    resampled.
    """
    pixels = quantise(images)
    height, width = images.shape[-2:]
    shape = resized_size(height, width, size)
    if mode in ALIKE:
        resize = _resize_pil if mode == "pil" else _resize_on_device
        pixels = pixels if pixels.shape[-2:] == shape else resize(pixels, *shape)
        pixels = pixels.float() / 255
    else:
        pixels = pixels.float() / 255
        if pixels.shape[-2:] != shape:
            pixels = F.interpolate(pixels, shape, mode="bicubic", align_corners=False, antialias=mode == "tensor_aa")
    pixels = center_crop(pixels, size, rounding)
    mean, std = (pixels.new_tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    return (pixels - mean) / std
