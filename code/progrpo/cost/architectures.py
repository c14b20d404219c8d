"""The official networks' architectures as facts of their public model cards, built without weights.

Used to count operations on the meta device and to time the real shapes with random weights. Sources: the `config.json`
files of stabilityai/stable-diffusion-3.5-medium, CompVis/stable-diffusion-v1-4, madebyollin/taesd and taesd3, and
laion/CLIP-ViT-H-14-laion2B-s32B-b79K; the LoRA of Flow-GRPO's `pickscore_sd3`.
"""

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, SD3Transformer2DModel, UNet2DConditionModel
from peft import LoraConfig
from transformers import CLIPConfig, CLIPModel

LATENT_CHANNELS = {"sd35m": 16, "sd14": 4}
TEXT_TOKENS = {"sd35m": 77 + 128, "sd14": 77}  # Flow-GRPO encodes 128 T5 tokens beside CLIP's 77
LORA_RANK = 32
LORA_TARGETS = [f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")] + [
    f"attn.{name}" for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
]


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
    """Freeze the transformer and give it Flow-GRPO's rank-32 adapters."""
    transformer.requires_grad_(False)
    transformer.add_adapter(
        LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, init_lora_weights="gaussian", target_modules=LORA_TARGETS)
    )


def sd14_unet() -> UNet2DConditionModel:
    """Stable Diffusion v1.4's denoiser, 0.860 B parameters."""
    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768)


def autoencoder(backbone: str) -> AutoencoderKL:
    """The autoencoder of `sd35m` or `sd14`."""
    quantised = backbone == "sd14"
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


def clip_h() -> CLIPModel:
    """CLIP ViT-H/14 with its text tower: the network behind HPS-v2.1 and PickScore."""
    text = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    vision = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
    vision |= {"patch_size": 14, "image_size": 224}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=1024))


def denoiser_inputs(backbone: str, batch: int) -> dict[str, torch.Tensor]:
    """Random inputs of one unguided denoiser call on `batch` trajectories at 512 x 512, on the default device."""
    latent = torch.rand(batch, LATENT_CHANNELS[backbone], 64, 64)
    tokens = TEXT_TOKENS[backbone]
    if backbone == "sd14":
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
