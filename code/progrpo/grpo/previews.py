"""Previews that cost less than final images: a decoder in bf16, a tiny one, a smaller image; and how far their ranking agrees.

Shape letters: P prompts, n candidates of a group, B rows of a batch, C x H x W a latent.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor

from progrpo.config import Previews
from progrpo.devices import DTYPES
from progrpo.errors import UserError
from progrpo.grpo.backbone import Backbone, decoded
from progrpo.grpo.rollout import Rollout
from progrpo.model_files import open_network
from progrpo.rank_correlation import rank_correlations

Decode = Callable[[Tensor], Tensor]


def preview_decoder(backbone: Backbone, settings: Previews) -> Decode | None:
    """Latents (B, C, H, W) to preview images (B, 3, H', W') float32 in [0, 1]; None where previews are decoded as final images are.

    UserError: a folder that holds no tiny autoencoder, not all of its weights, or one of other latents; a scale that leaves no pixel
    of a latent.
    """
    if settings.plain:
        return None
    side = backbone.latent_shape[-1]
    if int(side * settings.scale) < 1:
        raise UserError(
            f"previews.scale {settings.scale:g}: leaves nothing of a latent of {side} x {side}; use at least 1/{side}"
        )
    autoencoder = _decoder(backbone, settings)

    @torch.no_grad()
    def decode(latents: Tensor) -> Tensor:
        if settings.scale < 1:
            latents = F.interpolate(latents, scale_factor=settings.scale, mode="area")
        if settings.precision == "bf16":
            latents = latents.contiguous(memory_format=torch.channels_last)
        return decoded(autoencoder, latents)

    return decode


def _decoder(backbone: Backbone, settings: Previews) -> Any:
    """The autoencoder of the previews, on the device, in their precision."""
    own = backbone.pipeline.vae
    if settings.precision == "fp32" and settings.decoder is None:
        return own
    if settings.decoder:
        autoencoder = _tiny(settings.decoder, own.config.latent_channels)
    else:
        encoder, own.encoder = own.encoder, None  # which no preview needs a copy of
        autoencoder, own.encoder = deepcopy(own), encoder
    autoencoder = autoencoder.requires_grad_(False).eval().to(backbone.device, DTYPES[settings.precision])
    return autoencoder.to(memory_format=torch.channels_last) if settings.precision == "bf16" else autoencoder


def _tiny(folder: str, channels: int) -> AutoencoderTiny:
    tiny = open_network(AutoencoderTiny, Path(folder))
    if tiny.config.latent_channels != channels:
        raise UserError(
            f"previews.decoder: {folder}: for latents of {tiny.config.latent_channels} channels; the model's have {channels}"
        )
    return tiny


def rank_agreement(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation (P,) of two scores (P, n) of the same candidates; NaN where either ranks nothing."""
    return torch.from_numpy(rank_correlations(first.cpu().numpy()[..., None], second.cpu().numpy())[:, 0])


def preview_agreement(rollout: Rollout, gather: Callable[[Tensor], Tensor]) -> dict[str, float | None]:
    """{"preview_agreement": mean rank correlation over all ranks' groups, None without any ranking}; {} where nothing was compared."""
    plain = rollout.stages[0].plain if rollout.stages else None
    if plain is None:
        return {}
    agreement = gather(
        rank_agreement(rollout.stages[0].rewards, plain).to(rollout.rewards.device, torch.float32)
    ).nanmean()
    return {"preview_agreement": None if agreement.isnan() else agreement.item()}


def require_agreement(rollout: Rollout, settings: Previews, gather: Callable[[Tensor], Tensor]) -> None:
    """UserError when the previews' scores were compared with plain ones and rank the candidates too differently."""
    agreement = preview_agreement(rollout, gather).get("preview_agreement")
    if agreement is not None and agreement < settings.agreement:
        raise UserError(
            f"previews: their scores agree with those of plain previews by a rank correlation of {agreement:.3f}, less than"
            f" previews.agreement ({settings.agreement:g}); take the plain ones, or allow less"
        )
