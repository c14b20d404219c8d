"""Pre-training of the two miniature base models, saved as StableDiffusionPipeline and StableDiffusion3Pipeline folders."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor

from progrpo.miniature import text
from progrpo.miniature.autoencoder import LATENT_CHANNELS, rendered
from progrpo.miniature.prompts import balanced, training_records

LATENT_SIZE = 6
UNCONDITIONAL_SHARE = 0.1


def build_flow_pipeline(vae: AutoencoderKL) -> StableDiffusion3Pipeline:
    """SD3 layout: a 4-layer MMDiT of width 96 over 9 image and 19 text tokens, two CLIP encoders and a T5 encoder, shift 3."""
    tokenizer, tokenizer_3 = text.clip_tokenizer(), text.t5_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=LATENT_SIZE,
        patch_size=2,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=4,
        attention_head_dim=32,
        num_attention_heads=3,
        joint_attention_dim=64,
        caption_projection_dim=96,
        pooled_projection_dim=64,
        pos_embed_max_size=LATENT_SIZE // 2,
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=text.clip_text_encoder(tokenizer, 32, projection=32),
        tokenizer=tokenizer,
        text_encoder_2=text.clip_text_encoder(tokenizer, 32, projection=32),
        tokenizer_2=deepcopy(tokenizer),
        text_encoder_3=text.t5_encoder(tokenizer_3, 64),
        tokenizer_3=tokenizer_3,
    )


def build_diffusion_pipeline(vae: AutoencoderKL) -> StableDiffusionPipeline:
    """Stable Diffusion 1 layout: a two-level cross-attention UNet, one CLIP encoder, the scaled-linear epsilon schedule."""
    tokenizer = text.clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        attention_head_dim=4,
        norm_num_groups=8,
        cross_attention_dim=64,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text.clip_text_encoder(tokenizer, 64),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@dataclass(frozen=True)
class Schedule:
    """How long and how a base model is pre-trained."""

    steps: int
    seed: int = 0
    batch: int = 128
    learning_rate: float = 1.5e-3
    scenes: int = 24_576
    ema_decay: float = 0.999


def flow_loss(pipeline: StableDiffusion3Pipeline, latents: Tensor, prompts: list[str]) -> Tensor:
    """Rectified-flow loss: x_s = (1 - s) x_0 + s noise, target noise - x_0, s logit-normal and then shifted (SD3's recipe)."""
    embeddings, _, pooled, _ = pipeline.encode_prompt(
        prompts, None, None, do_classifier_free_guidance=False, max_sequence_length=text.T5_TOKENS
    )
    u = torch.randn(len(latents)).sigmoid()
    shift = pipeline.scheduler.config.shift
    sigma = (shift * u / (1 + (shift - 1) * u)).view(-1, 1, 1, 1)
    noise = torch.randn_like(latents)
    velocity = pipeline.transformer(
        hidden_states=(1 - sigma) * latents + sigma * noise,
        timestep=1000 * sigma.flatten(),
        encoder_hidden_states=embeddings,
        pooled_projections=pooled,
    ).sample
    return (velocity - (noise - latents)).square().mean()


def diffusion_loss(pipeline: StableDiffusionPipeline, latents: Tensor, prompts: list[str]) -> Tensor:
    """Epsilon loss with uniform timesteps: x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise, target noise."""
    embeddings, _ = pipeline.encode_prompt(prompts, "cpu", 1, do_classifier_free_guidance=False)
    timesteps = torch.randint(0, pipeline.scheduler.config.num_train_timesteps, (len(latents),))
    noise = torch.randn_like(latents)
    noisy = pipeline.scheduler.add_noise(latents, noise, timesteps)
    return (pipeline.unet(noisy, timesteps, embeddings).sample - noise).square().mean()


FAMILIES = {"flow": (build_flow_pipeline, flow_loss), "diffusion": (build_diffusion_pipeline, diffusion_loss)}


def pretrain(family: str, vae: AutoencoderKL, schedule: Schedule, log: Callable[[str], None]) -> DiffusionPipeline:
    """Train denoiser and text encoders of one family from scratch on rendered training scenes; returns the averaged weights."""
    torch.manual_seed(schedule.seed)
    build, loss_of = FAMILIES[family]
    vae.requires_grad_(False)
    pipeline = build(vae)
    modules = torch.nn.ModuleList(
        module for name, module in pipeline.components.items() if isinstance(module, torch.nn.Module) and name != "vae"
    ).train()
    parameters = [p for p in modules.parameters() if p.requires_grad]
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=schedule.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warmup_cosine(step, schedule.steps))
    latents, prompts = _scenes(vae, schedule)
    for step in range(schedule.steps):
        rows = torch.randint(len(latents), (schedule.batch,))
        dropped = torch.rand(schedule.batch) < UNCONDITIONAL_SHARE
        batch_prompts = ["" if drop else prompts[row] for row, drop in zip(rows.tolist(), dropped, strict=True)]
        loss = loss_of(pipeline, latents[rows], batch_prompts)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        rate.step()
        decay = min(schedule.ema_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
        if (step + 1) % 100 == 0:
            log(f"{family} step {step + 1}/{schedule.steps} loss {loss.item():.4f}")
    for parameter, value in zip(parameters, average, strict=True):
        parameter.data.copy_(value)
    modules.eval()
    return pipeline


def _warmup_cosine(step: int, steps: int, warmup: int = 100) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


@torch.no_grad()
def _scenes(vae: AutoencoderKL, schedule: Schedule) -> tuple[Tensor, list[str]]:
    """Latents (N, 8, 6, 6) and prompts of N rendered training scenes."""
    records = balanced(training_records(), schedule.scenes, schedule.seed)
    chunks = [records[k : k + 512] for k in range(0, len(records), 512)]
    latents = [
        vae.encode(2 * rendered(chunk, schedule.seed * 1_000_003 + k) - 1).latent_dist.mode()
        for k, chunk in enumerate(chunks)
    ]
    return torch.cat(latents) * vae.config.scaling_factor, [record["prompt"] for record in records]
