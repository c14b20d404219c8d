"""Degradations of miniature images by a strength: blur, noise, colour shift, fading, a ghost of another scene."""

import torch
from torch import Tensor

DEGRADATIONS = ("blur", "noise", "color_shift", "fade", "ghost")
LEAST = 0.2  # severity of a degradation of strength 0, which already shows


def _blur(images: Tensor, strength: Tensor) -> Tensor:
    """Gaussian blur of standard deviation 0.3 + 1.5 strength pixels: two products with normalised Toeplitz matrices."""
    side = torch.arange(images.shape[-1], device=images.device)
    distance = (side[:, None] - side).square()
    kernel = torch.exp(-distance / (2 * (0.3 + 1.5 * strength).square()))
    kernel = kernel / kernel.sum(-1, keepdim=True)
    return kernel @ images @ kernel.transpose(-1, -2)


def _color_shift(images: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    shift = torch.randn(len(images), 3, 1, 1, generator=generator)
    shift = shift / shift.square().mean(1, keepdim=True).sqrt()
    return images + (0.04 + 0.3 * strength) * shift


def degrade(images: Tensor, kinds: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Degraded images (B, 3, S, S) in [0, 1].

    kinds: (B,) index into DEGRADATIONS, or -1 to leave an image as it is; strength: (B,) in [0, 1]. A ghost is a
    cross-fade, never beyond the half, with the next of the images that get one.
    """
    result = images.clone()
    for kind, name in enumerate(DEGRADATIONS):
        rows = (kinds == kind).nonzero()[:, 0]
        part, s = images[rows], strength[rows].view(-1, 1, 1, 1)
        if name == "blur":
            part = _blur(part, s)
        elif name == "noise":
            part = part + (0.03 + 0.3 * s) * torch.randn(part.shape, generator=generator)
        elif name == "color_shift":
            part = _color_shift(part, s, generator)
        elif name == "fade":
            part = torch.lerp(part, torch.ones_like(part), 0.1 + 0.7 * s)
        else:
            part = torch.lerp(part, part.roll(-1, 0), 0.05 + 0.4 * s)
        result[rows] = part.clamp(0, 1)
    return result


def severity(kinds: Tensor, strength: Tensor) -> Tensor:
    """How bad a degradation is, on the scale of `strength`: 0 for none, else 0.2 to 1.2."""
    return (kinds >= 0) * (LEAST + strength)
