"""SD-v1.4, SD-v1.5 and SD3.5-M at small width: indices, configurations and weight names as their repositories have them."""

import re
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from progrpo.files import write_json
from progrpo.rehearsal.tokenizers import T5_WORDS, write_clip, write_t5
from progrpo.rehearsal.weights import State, position_ids, randomise, stored_state, write_shards, write_weights

PNDM = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.7.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
FLOW_EULER = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "_diffusers_version": "0.29.0.dev0",
    "num_train_timesteps": 1000,
    "shift": 3.0,
}
SD1_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.6.0",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],  # neither its folder nor the next one's is fetched
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
SD3_INDEX = {
    "_class_name": "StableDiffusion3Pipeline",
    "_diffusers_version": "0.31.0.dev0",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "text_encoder_3": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "tokenizer_3": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "SD3Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
WIDTH = 32  # of SD1's text
CLIP_WIDTHS, T5_WIDTH = (32, 48), 96  # of SD3's texts: both CLIPs' outputs side by side fit into T5's
FOUR_LEVELS = {
    "act_fn": "silu",
    "block_out_channels": [32, 32, 32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
UNET = {
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [32, 64, 64, 64],
    "center_input_sample": False,
    "cross_attention_dim": WIDTH,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}
TRANSFORMER = {
    "attention_head_dim": 32,
    "caption_projection_dim": 64,
    "dual_attention_layers": [0, 1],
    "in_channels": 16,
    "joint_attention_dim": T5_WIDTH,
    "num_attention_heads": 2,
    "num_layers": 3,
    "out_channels": 16,
    "patch_size": 2,
    "pooled_projection_dim": sum(CLIP_WIDTHS),
    "pos_embed_max_size": 24,
    "qk_norm": "rms_norm",
    "sample_size": 8,
}
SD3_VAE = {
    "force_upcast": True,
    "latent_channels": 16,
    "latents_mean": None,
    "latents_std": None,
    "mid_block_add_attention": True,
    "sample_size": 64,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
    "use_post_quant_conv": False,
    "use_quant_conv": False,
}
T5 = {
    "architectures": ["T5EncoderModel"],
    "classifier_dropout": 0.0,
    "d_ff": 2 * T5_WIDTH,
    "d_kv": T5_WIDTH // 2,
    "d_model": T5_WIDTH,
    "decoder_start_token_id": 0,
    "dense_act_fn": "gelu_new",
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "feed_forward_proj": "gated-gelu",
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "is_gated_act": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "num_decoder_layers": 2,
    "num_heads": 2,
    "num_layers": 2,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.41.2",
    "use_cache": True,
    "vocab_size": T5_WORDS + 104,  # with the 100 extra tokens; padded, as the original's 32,100 to 32,128
}
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def write_sd1(folder: Path, extractor: str = "CLIPImageProcessor") -> None:
    """A Stable Diffusion 1.x repository; `extractor` is the class that its index names for the part that judges images."""
    write_json(folder / "model_index.json", {**SD1_INDEX, "feature_extractor": ["transformers", extractor]})
    write_json(folder / "scheduler" / "scheduler_config.json", PNDM)
    write_clip(folder / "tokenizer")
    encoder = CLIPTextModel(_clip_text(folder / "text_encoder", "CLIPTextModel", WIDTH, "quick_gelu"))
    state = text_model_state(stored_state(randomise(encoder), folder / "text_encoder"))
    write_weights(folder / "text_encoder" / "model.safetensors", position_ids(state, "text_model"))
    _diffusers_part(folder / "unet", UNet2DConditionModel, "0.6.0", UNET)
    _diffusers_part(folder / "vae", AutoencoderKL, "0.6.0", {**FOUR_LEVELS, "latent_channels": 4, "sample_size": 64})
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    write_weights(vae, {_old_attention(name): tensor for name, tensor in load_file(vae).items()})


def write_sd35m(folder: Path, texts: list[str]) -> None:
    """The Stable Diffusion 3.5 Medium repository, half-precision weights, its T5 encoder in two shards."""
    write_json(folder / "model_index.json", SD3_INDEX)
    write_json(folder / "scheduler" / "scheduler_config.json", FLOW_EULER)
    for part, pad, width, activation in (("", "<|endoftext|>", 32, "quick_gelu"), ("_2", "!", 48, "gelu")):
        write_clip(folder / f"tokenizer{part}", pad)
        encoder = folder / f"text_encoder{part}"
        config = _clip_text(encoder, "CLIPTextModelWithProjection", width, activation)
        state = stored_state(randomise(CLIPTextModelWithProjection(config)), encoder)
        write_weights(encoder / "model.safetensors", state, torch.float16)
    write_t5(folder / "tokenizer_3", texts)
    _t5_part(folder / "text_encoder_3")
    _diffusers_part(folder / "transformer", SD3Transformer2DModel, "0.31.0.dev0", TRANSFORMER, torch.float16)
    _diffusers_part(folder / "vae", AutoencoderKL, "0.31.0.dev0", {**FOUR_LEVELS, **SD3_VAE}, torch.float16)


def _diffusers_part(
    folder: Path, kind: type, version: str, settings: dict[str, Any], dtype: torch.dtype = torch.float32
) -> None:
    write_json(folder / "config.json", {"_class_name": kind.__name__, "_diffusers_version": version, **settings})
    model: Any = kind(**settings)
    write_weights(folder / "diffusion_pytorch_model.safetensors", model.state_dict(), dtype)


def text_model_state(state: State) -> State:
    """The state of a CLIPTextModel under the hub's names; transformers 5 has dropped their first part, `text_model`."""
    return {name if name.startswith("text_") else f"text_model.{name}": tensor for name, tensor in state.items()}


def _old_attention(name: str) -> str:
    """The name of a weight of the autoencoder's attention as the checkpoints of 2022 have it."""
    match = re.fullmatch(r"(.*\.attentions\.0)\.(to_q|to_k|to_v|to_out\.0)\.(weight|bias)", name)
    return f"{match[1]}.{OLD_ATTENTION[match[2]]}.{match[3]}" if match else name


def _clip_text(folder: Path, kind: str, width: int, activation: str) -> CLIPTextConfig:
    """A CLIP text encoder's configuration, written; its numbers of special tokens are not the tokenizer's, as in the originals."""
    settings = {
        "architectures": [kind],
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "dropout": 0.0,
        "eos_token_id": 2,
        "hidden_act": activation,
        "hidden_size": width,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": 2 * width,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 77,
        "model_type": "clip_text_model",
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "pad_token_id": 1,
        "projection_dim": width,
        "torch_dtype": "float32" if kind == "CLIPTextModel" else "float16",
        "transformers_version": "4.41.2",
        "vocab_size": 49408,
    }
    write_json(folder / "config.json", settings)
    return CLIPTextConfig.from_pretrained(folder)


def _t5_part(folder: Path) -> None:
    write_json(folder / "config.json", T5)
    model = randomise(T5EncoderModel(T5Config.from_pretrained(folder)))
    write_shards(folder, stored_state(model, folder), torch.float16)
