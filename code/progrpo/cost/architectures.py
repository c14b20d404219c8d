"""The official networks' architectures as facts of their public model cards, built without weights.

Used to count operations on the meta device and to time the real shapes with random weights. Sources: the `config.json`
files of stabilityai/stable-diffusion-3.5-medium, CompVis/stable-diffusion-v1-4, madebyollin/taesd and taesd3, and
laion/CLIP-ViT-H-14-laion2B-s32B-b79K; the LoRA of Flow-GRPO's `pickscore_sd3`.
"""

import progrpo.torchvision_schemas  # noqa: F401  isort: skip
from typing import Literal

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, SD3Transformer2DModel, UNet2DConditionModel
from transformers import CLIPConfig, CLIPModel

from progrpo.config import Lora
from progrpo.grpo.tuning import adapter_config
from progrpo.paper_runs import SD14, SD35M

LATENT_CHANNELS = {SD35M: 16, SD14: 4}
TEXT_TOKENS = {SD35M: 77 + 128, SD14: 77}  # Flow-GRPO encodes 128 T5 tokens beside CLIP's 77


def sd35m_transformer() -> SD3Transformer2DModel:
    """Stable Diffusion 3.5 Medium's denoiser, 2.243 B parameters, on the current default device."""
    return SD3Transformer2DModel(
        sample_size=128,
        patch_size=2,
        in_channels=16,
        num_layers=24,
        attention_head_dim=64,
        num_attention_heads=24,
        joint_attention_dim=4096,
        caption_projection_dim=1536,
        pooled_projection_dim=2048,
        out_channels=16,
        pos_embed_max_size=384,
        qk_norm="rms_norm",
        dual_attention_layers=tuple(range(13)),
    )


def add_lora(transformer: SD3Transformer2DModel) -> None:
    """Freeze the transformer and give it Flow-GRPO's adapters, which are the configuration's default."""
    transformer.requires_grad_(False)
    transformer.add_adapter(adapter_config(Lora()))


def sd14_unet() -> UNet2DConditionModel:
    """Stable Diffusion v1.4's denoiser, 0.860 B parameters."""
    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768)


def autoencoder(backbone: str) -> AutoencoderKL:
    """The autoencoder of `sd35m` or `sd14`."""
    quantised = backbone == SD14
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=LATENT_CHANNELS[backbone],
        use_quant_conv=quantised,
        use_post_quant_conv=quantised,
    )


def tiny_autoencoder(backbone: str) -> AutoencoderTiny:
    """TAESD (`sd14`) or TAESD3 (`sd35m`): a decoder 18 times cheaper, for previews."""
    return AutoencoderTiny(latent_channels=LATENT_CHANNELS[backbone])


def clip(size: Literal["H", "L"]) -> CLIPModel:
    """CLIP ViT-H/14 ("H"), the network behind HPS-v2.1 and PickScore, or OpenAI's ViT-L/14 ("L"), each with its text tower."""
    huge = size == "H"
    text_width, vision_width = (1024, 1280) if huge else (768, 1024)
    text = {
        "hidden_size": text_width,
        "intermediate_size": 4 * text_width,
        "num_hidden_layers": 24 if huge else 12,
        "num_attention_heads": 16 if huge else 12,
        "vocab_size": 49408,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    }
    vision = {
        "hidden_size": vision_width,
        "intermediate_size": 4 * vision_width,
        "num_hidden_layers": 32 if huge else 24,
        "num_attention_heads": 16,
        "patch_size": 14,
        "image_size": 224,
    }
    activation = {"hidden_act": "gelu" if huge else "quick_gelu"}
    config = CLIPConfig(text_config=text | activation, vision_config=vision | activation, projection_dim=text_width)
    return CLIPModel(config)


def denoiser_inputs(backbone: str, batch: int) -> dict[str, torch.Tensor]:
    """Random inputs of one unguided denoiser call on `batch` trajectories at 512 x 512, on the default device."""
    latent = torch.rand(batch, LATENT_CHANNELS[backbone], 64, 64)
    tokens = TEXT_TOKENS[backbone]
    if backbone == SD14:
        return {
            "sample": latent,
            "timestep": torch.ones(batch),
            "encoder_hidden_states": torch.rand(batch, tokens, 768),
        }
    return {
        "hidden_states": latent,
        "timestep": torch.ones(batch),
        "encoder_hidden_states": torch.rand(batch, tokens, 4096),
        "pooled_projections": torch.rand(batch, 2048),
    }
