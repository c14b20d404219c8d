"""Prompts to embeddings, latents to model outputs (with guidance), latents to images: both model families behind one interface.

Shape letters: B rows of a batch, L text tokens, D text width, C x H x W a latent, P prompts.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel

from progrpo.config import Model, Sampling
from progrpo.devices import DTYPES
from progrpo.errors import UserError
from progrpo.grpo.pipeline_folder import UNUSED, require_parts, weights_variant
from progrpo.grpo.samplers import StepTable, windowed
from progrpo.grpo.schedules import diffusion_table, flow_table, require_schedule
from progrpo.model_files import open_network, reading_model, require_tokens
from progrpo.quiet import silence_libraries

TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


@dataclass(frozen=True)
class Text:
    """Encoded prompts: embeddings (P, L, D) and, in the flow family, pooled (P, D')."""

    embeddings: Tensor
    pooled: Tensor | None

    def rows(self, index: Tensor | slice) -> "Text":
        """The prompts `index` ((B,) or a slice) as a batch."""
        return Text(self.embeddings[index], None if self.pooled is None else self.pooled[index])

    def followed_by(self, other: "Text") -> "Text":
        """Both batches of prompts as one."""
        pooled = None if self.pooled is None or other.pooled is None else torch.cat([self.pooled, other.pooled])
        return Text(torch.cat([self.embeddings, other.embeddings]), pooled)


class Backbone(ABC):
    """One text-to-image pipeline, taken apart: text encoders, denoiser, decoder, schedule."""

    denoiser_name: str

    def __init__(self, pipeline: DiffusionPipeline, model: Model, device: torch.device):
        self.pipeline, self.model, self.device = pipeline, model, device
        self.dtype = DTYPES[model.precision]
        self._check_resolution()
        for module in (pipeline.vae, self.denoiser, *self._text_encoders()):
            module.requires_grad_(False).eval()
        for module in (self.denoiser, *self._text_encoders()):
            module.to(device)
        pipeline.vae.to(device, DTYPES[model.vae_precision])
        self._unconditional: Text | None = None

    @property
    def denoiser(self) -> Any:
        """The UNet or the transformer: a model of diffusers."""
        return getattr(self.pipeline, self.denoiser_name)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a latent at the configured resolution."""
        side = self.model.resolution // self.pipeline.vae_scale_factor
        return self.denoiser.config.in_channels, side, side

    def _check_resolution(self) -> None:
        """UserError for a side that is not a whole number of latents and patches, or of more patches than the model knows."""
        config, side = self.denoiser.config, self.model.resolution
        patch = self.pipeline.vae_scale_factor * (config.get("patch_size") or 1)
        most = config.get("pos_embed_max_size")
        if side % patch or (most and side > most * patch):
            bound = f", at most {most * patch}" if most else ""
            raise UserError(f"resolution {side}: {self.model.path} makes images of a multiple of {patch} pixels{bound}")

    def _text_encoders(self) -> Iterable[nn.Module]:
        return [m for m in (getattr(self.pipeline, name, None) for name in TEXT_ENCODERS) if m is not None]

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> Text:
        """Text of P prompts, on the device in the model's precision. Each distinct prompt is encoded once per call."""
        distinct = list(dict.fromkeys(prompts))
        text = self._encode(distinct)
        position = {prompt: k for k, prompt in enumerate(distinct)}
        return text.rows(torch.tensor([position[prompt] for prompt in prompts], device=self.device))

    def unconditional(self) -> Text:
        """Text (1, ...) of the empty prompt, encoded once."""
        if self._unconditional is None:
            self._unconditional = self.encode([""])
        return self._unconditional

    def release_encoders(self) -> None:
        """Give the text encoders' memory back; from then on nothing but the empty prompt has a text."""
        self.unconditional()
        for name in TEXT_ENCODERS:
            if hasattr(self.pipeline, name):
                setattr(self.pipeline, name, None)

    def predict(
        self,
        x: Tensor,
        timestep: Tensor,
        text: Text,
        guidance_scale: float,
        denoiser: nn.Module | None = None,
        unconditional_gradient: bool = False,
        one_call: bool = False,
    ) -> Tensor:
        """Model output (B, C, H, W) float32 with classifier-free guidance: uncond + scale (cond - uncond).

        x: (B, C, H, W) float32; timestep: () or (B,). `denoiser` may be the same model wrapped for distributed training. Two
        branches are two calls of one shape, so that detaching one changes no bit of the value; `one_call` sends both, of 2B rows,
        through one call, which costs less and rounds otherwise, and detaches neither.
        """
        denoiser = self.denoiser if denoiser is None else denoiser
        timestep = timestep.expand(len(x))
        with self._autocast():
            if guidance_scale == 1:
                return self._call(denoiser, x, timestep, text).float()
            empty = self.unconditional().rows(torch.zeros(len(x), dtype=torch.long, device=self.device))
            if one_call:
                both = self._call(denoiser, x.repeat(2, 1, 1, 1), timestep.repeat(2), text.followed_by(empty))
                conditional, unconditional = both.float().chunk(2)
            else:
                conditional = self._call(denoiser, x, timestep, text).float()
                with nullcontext() if unconditional_gradient else torch.no_grad():
                    unconditional = self._call(denoiser, x, timestep, empty).float()
        return unconditional + guidance_scale * (conditional - unconditional)

    def _autocast(self):
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H', W') float32 in [0, 1] of latents (B, C, H, W), decoded in the model's `vae_precision`."""
        return decoded(self.pipeline.vae, latents)

    @abstractmethod
    def _encode(self, prompts: list[str]) -> Text: ...

    @abstractmethod
    def _call(self, denoiser: nn.Module, x: Tensor, timestep: Tensor, text: Text) -> Tensor: ...

    def table(self, sampling: Sampling, iteration: int = 0) -> StepTable:
        """Coefficients of every denoising step on the device, float32, from the pipeline's own schedule.

        Outside the window that `sampling` has in the iteration, steps are deterministic. UserError for a schedule that does not give
        so many steps.
        """
        try:
            table = self._table(sampling.steps, sampling.noise)
            if sampling.window:
                table = windowed(table, self._table(sampling.steps, 0.0), sampling.noisy(iteration))
        except ValueError as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self.model.path}: no schedule of {sampling.steps} steps and noise {sampling.noise}: {reason}"
            ) from error
        return table.to(device=self.device, dtype=torch.float32)

    @abstractmethod
    def _table(self, steps: int, noise: float) -> StepTable: ...


def decoded(autoencoder: Any, latents: Tensor) -> Tensor:
    """Images (B, 3, H', W') float32 in [0, 1] of latents (B, C, H, W) under an autoencoder of diffusers, in its own precision."""
    config = autoencoder.config
    unscaled = latents.float() / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
    return (autoencoder.decode(unscaled.to(autoencoder.dtype)).sample.float() / 2 + 0.5).clamp(0, 1)


class FlowBackbone(Backbone):
    """SD3 family: a rectified-flow transformer that predicts velocities."""

    denoiser_name = "transformer"

    def _encode(self, prompts: list[str]) -> Text:
        embeddings, _, pooled, _ = self.pipeline.encode_prompt(
            prompts,
            None,
            None,
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.model.max_sequence_length,
        )
        return Text(embeddings.to(self.dtype), pooled.to(self.dtype))  # encoders may be stored in another precision

    def _call(self, denoiser: nn.Module, x: Tensor, timestep: Tensor, text: Text) -> Tensor:
        return denoiser(
            hidden_states=x.to(self.dtype),
            timestep=timestep,
            encoder_hidden_states=text.embeddings,
            pooled_projections=text.pooled,
            return_dict=False,
        )[0]

    def _table(self, steps: int, noise: float) -> StepTable:
        return flow_table(self.pipeline.scheduler, steps, noise)


class DiffusionBackbone(Backbone):
    """Stable Diffusion 1 family: a UNet that predicts epsilon, sampled by DDIM with eta."""

    denoiser_name = "unet"

    def _encode(self, prompts: list[str]) -> Text:
        embeddings, _ = self.pipeline.encode_prompt(prompts, self.device, 1, do_classifier_free_guidance=False)
        return Text(embeddings.to(self.dtype), None)

    def _call(self, denoiser: nn.Module, x: Tensor, timestep: Tensor, text: Text) -> Tensor:
        return denoiser(x.to(self.dtype), timestep, text.embeddings, return_dict=False)[0]

    def _table(self, steps: int, noise: float) -> StepTable:
        return diffusion_table(self.pipeline.scheduler, steps, noise)


FAMILIES: dict[str, tuple[type[Backbone], type[DiffusionPipeline]]] = {
    "flow": (FlowBackbone, StableDiffusion3Pipeline),
    "diffusion": (DiffusionBackbone, StableDiffusionPipeline),
}
NETWORKS: dict[str, dict[str, Any]] = {  # classes of the parts with weights
    "flow": {
        "transformer": SD3Transformer2DModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModelWithProjection,
        "text_encoder_2": CLIPTextModelWithProjection,
        "text_encoder_3": T5EncoderModel,
    },
    "diffusion": {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel},
}


def load_backbone(model: Model, device: torch.device, train_all_weights: bool = False) -> Backbone:
    """Load a pipeline folder of the official layout; UserError when it is missing, its weights are corrupt or incomplete, its parts do
    not fit together, or its schedule is unknown.

    Frozen weights are held in the model's precision; a denoiser that is trained in full stays in float32 under autocast, and the
    decoder has `vae_precision`.
    """
    folder = Path(model.path)
    require_parts(folder, model.family)
    variant = weights_variant(folder, model.family)
    backbone_class, pipeline_class = FAMILIES[model.family]
    silence_libraries("diffusers", "transformers")
    full = {"vae", backbone_class.denoiser_name} if train_all_weights else {"vae"}
    with reading_model(f"{folder}: the {model.family} model"):
        networks = {
            part: open_network(
                kind, folder / part, variant=variant, dtype=torch.float32 if part in full else DTYPES[model.precision]
            )
            for part, kind in NETWORKS[model.family].items()
        }
        pipeline = pipeline_class.from_pretrained(model.path, local_files_only=True, **networks, **UNUSED[model.family])
    require_schedule(pipeline.scheduler, model.family, folder)
    backbone = backbone_class(pipeline, model, device)
    with reading_model(f"{folder}: the parts of the {model.family} model"):
        _require_fit(backbone)
    return backbone


@torch.no_grad()
def _require_fit(backbone: Backbone) -> None:
    """ValueError unless the text encoders know all tokens, and an image of the empty prompt can be computed and is finite."""
    pipeline = backbone.pipeline
    for name in TEXT_ENCODERS:
        if (encoder := getattr(pipeline, name, None)) is None:
            continue
        tokenizer = getattr(pipeline, name.replace("text_encoder", "tokenizer"))
        require_tokens(tokenizer, encoder.config, pooled=backbone.model.family == "flow")
        places = getattr(encoder.config, "max_position_embeddings", None)
        if places and tokenizer.model_max_length > places:
            raise ValueError(f"texts of {tokenizer.model_max_length} tokens, but {name} reads {places}")
    x = torch.zeros(1, *backbone.latent_shape, device=backbone.device)
    time = torch.tensor(500.0, device=backbone.device)
    if not backbone.decode(backbone.predict(x, time, backbone.unconditional(), 1.0)).isfinite().all():
        raise ValueError("the image of an empty prompt is not finite; use precision fp32 or other weights")
