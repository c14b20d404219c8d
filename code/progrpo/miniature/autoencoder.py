"""The miniature AutoencoderKL: 24 x 24 x 3 images to 6 x 6 x 8 latents (f = 4), trained on rendered scenes."""

from collections.abc import Callable

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from progrpo.miniature import checker
from progrpo.miniature.prompts import balanced, held_out_records
from progrpo.miniature.scenes import draw, render, sample_any

LATENT_CHANNELS = 8


def rendered(records: list[dict], seed: int) -> Tensor:
    """Faithful images (B, 3, 24, 24) in [0, 1] of B records."""
    rng = np.random.default_rng(seed)
    images = np.stack([render(record, rng) for record in records])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def any_scenes(count: int, seed: int) -> Tensor:
    """Images (B, 3, 24, 24) in [0, 1] of arbitrary scenes: an autoencoder knows no prompts, so none is held out from it."""
    rng = np.random.default_rng(seed)
    images = np.stack([draw(sample_any(rng)) for _ in range(count)])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def build_autoencoder() -> AutoencoderKL:
    """An untrained AutoencoderKL of 0.3 M parameters with three resolutions (24, 12, 6)."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=LATENT_CHANNELS,
        sample_size=24,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


def train_autoencoder(steps: int, seed: int, log: Callable[[str], None], batch: int = 64) -> AutoencoderKL:
    """Minimise squared plus absolute error of the reconstruction with a slight KL term; latents end standardised per channel."""
    torch.manual_seed(seed)
    vae = build_autoencoder()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3, weight_decay=0.0, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.05)
    for step in range(steps):
        x = 2 * any_scenes(batch, seed * 1_000_003 + step) - 1
        posterior = vae.encode(x).latent_dist
        error = vae.decode(posterior.sample()).sample - x
        loss = error.square().mean() + 0.1 * error.abs().mean() + 1e-8 * posterior.kl().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 200 == 0:
            log(f"autoencoder step {step + 1}/{steps} mse {error.square().mean().item():.5f}")
    standardise_latents(vae, any_scenes(2048, seed * 1_000_003 + steps))
    log(f"autoencoder round trip: {round_trip_accuracy(vae):.3f} of held-out scenes still strictly correct")
    return vae.eval()


@torch.no_grad()
def standardise_latents(vae: AutoencoderKL, images: Tensor) -> None:
    """Fold each latent channel's mean and standard deviation over `images` into the two 1 x 1 convolutions, in place.

    Afterwards latents have mean 0 and deviation 1 per channel and decode as before, so that scaling_factor = 1 and shift_factor = 0
    serve both pipeline families (Stable Diffusion 1 has no shift).
    """
    latents = vae.encode(2 * images - 1).latent_dist.mean
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(mean)
    inverse = vae.post_quant_conv
    inverse.bias += (inverse.weight[:, :, 0, 0] * mean).sum(1)
    inverse.weight *= std[None, :, None, None]
    forward = vae.quant_conv
    forward.bias[:channels] = (forward.bias[:channels] - mean) / std
    forward.weight[:channels] /= std[:, None, None, None]
    forward.bias[channels:] -= 2 * std.log()


@torch.no_grad()
def round_trip_accuracy(vae: AutoencoderKL, count: int = 500, seed: int = 7) -> float:
    """Share of faithful held-out scenes that the strict checker still accepts after encoding and decoding."""
    records = balanced(held_out_records(), count, seed)
    images = rendered(records, seed)
    decoded = vae.decode(vae.encode(2 * images - 1).latent_dist.mode()).sample
    return checker.strict((decoded / 2 + 0.5).clamp(0, 1), records).mean().item()
