"""Backbones and a reward of the official shapes with random weights, for timing: weights do not change the time.

Text encoders are left out (prompts are encoded once per iteration, before the clock starts); embeddings are random.
"""

import progrpo.torchvision_schemas  # noqa: F401  isort: skip
import zlib

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline, StableDiffusionPipeline
from torch import Tensor, nn

from progrpo.config import Model
from progrpo.cost import architectures
from progrpo.devices import DTYPES
from progrpo.grpo.backbone import Backbone, DiffusionBackbone, FlowBackbone, Text
from progrpo.paper_runs import SD14, SD35M
from progrpo.rewards.base import BatchedScorer, freeze


def _generator(prompt: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(prompt.encode()))


class RandomTextFlow(FlowBackbone):
    """A flow backbone whose embeddings are noise seeded by the prompt."""

    def _encode(self, prompts: list[str]) -> Text:
        config = self.denoiser.config
        tokens, width = architectures.TEXT_TOKENS[SD35M], config.joint_attention_dim
        embeddings = [torch.randn(tokens, width, generator=_generator(prompt)) for prompt in prompts]
        pooled = [torch.randn(config.pooled_projection_dim, generator=_generator(prompt)) for prompt in prompts]
        return Text(*(torch.stack(rows).to(self.device, self.dtype) for rows in (embeddings, pooled)))


class RandomTextDiffusion(DiffusionBackbone):
    """A diffusion backbone whose embeddings are noise seeded by the prompt."""

    def _encode(self, prompts: list[str]) -> Text:
        tokens, width = architectures.TEXT_TOKENS[SD14], self.denoiser.config.cross_attention_dim
        rows = [torch.randn(tokens, width, generator=_generator(prompt)) for prompt in prompts]
        return Text(torch.stack(rows).to(self.device, self.dtype), None)


def flow_backbone(transformer: nn.Module, vae: nn.Module, model: Model, device: torch.device) -> Backbone:
    """A Stable Diffusion 3 pipeline around these networks, shift 3, without text encoders."""
    encoders = dict.fromkeys(
        ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")
    )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipeline = StableDiffusion3Pipeline(transformer=transformer, scheduler=scheduler, vae=vae, **encoders)
    return RandomTextFlow(pipeline, model, device)


def diffusion_backbone(unet: nn.Module, vae: nn.Module, model: Model, device: torch.device) -> Backbone:
    """A Stable Diffusion 1 pipeline around these networks, the official noise schedule, without text encoders."""
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    encoders = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    pipeline = StableDiffusionPipeline(
        unet=unet, scheduler=scheduler, vae=vae, requires_safety_checker=False, **encoders
    )
    return RandomTextDiffusion(pipeline, model, device)


def official_backbone(name: str, precision: str, device: torch.device) -> Backbone:
    """`sd35m` (frozen weights in `precision`, to be adapted) or `sd14` (float32 under autocast, trained in full)."""
    family = "flow" if name == SD35M else "diffusion"
    model = Model(family=family, path=f"random {name}", resolution=512, precision=precision)
    with torch.device(device):
        vae = architectures.autoencoder(name)
        if name == SD14:
            return diffusion_backbone(architectures.sd14_unet(), vae, model, device)
        transformer = architectures.sd35m_transformer().to(DTYPES[precision])
    vae.register_to_config(scaling_factor=1.5305, shift_factor=0.0609)
    return flow_backbone(transformer, vae, model, device)


class RandomClip(BatchedScorer):
    """A CLIP of random weights as a reward: resize, image tower, text tower of `tokens` tokens, cosine similarity."""

    def __init__(self, clip: nn.Module, tokens: int, device: torch.device, precision: str, batch_size: int = 16):
        super().__init__("random_clip", device, precision, batch_size)
        self.clip, self.tokens = freeze(clip, device), tokens

    def score_batch(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Similarities (b,) of images (b, 3, H, W) and b prompts."""
        side, words = self.clip.config.vision_config.image_size, self.clip.config.text_config.vocab_size
        small = nn.functional.interpolate(images.to(self.device), size=(side, side), mode="bicubic", antialias=True)
        tokens = [torch.randint(words, (self.tokens,), generator=_generator(prompt)) for prompt in prompts]
        with self.autocast():
            output = self.clip(input_ids=torch.stack(tokens).to(self.device), pixel_values=2 * small - 1)
        return nn.functional.cosine_similarity(output.image_embeds.float(), output.text_embeds.float())
