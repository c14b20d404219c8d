"""Random BLIPs under the names of their original code: ImageReward.pt and BLIP-VQA's .pth. The renaming is written independently of
the loaders' rules."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BlipConfig,
    BlipForQuestionAnswering,
    BlipTextConfig,
    BlipTextModel,
    BlipVisionModel,
)

from progrpo.files import write_json
from progrpo.rehearsal.weights import State, randomise, write_pickle
from progrpo.rewards.linear_head import linear_head

WIDTH, IMAGE, PATCH = 64, 32, 8  # one attention head; pixels
WORDS = 30524  # of bert-base-uncased, and the two tokens that BLIP adds
ORIGINAL_VISION = {
    "embeddings.class_embedding": "cls_token",
    "embeddings.position_embedding": "pos_embed",
    "embeddings.patch_embedding": "patch_embed.proj",
    "encoder.layers": "blocks",
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.qkv": "attn.qkv",
    "self_attn.projection": "attn.proj",
    "post_layernorm": "norm",
}


def original_vision_name(name: str) -> str:
    """The name in the original vision tower of a weight of transformers' BlipVisionModel."""
    for ours, theirs in ORIGINAL_VISION.items():
        name = name.replace(ours, theirs)
    return name


def vqa_config(words: int = WORDS) -> BlipConfig:
    """A small BLIP-VQA with heads of BLIP's width, for a vocabulary of `words`, the two tokens that BLIP adds included."""
    tower = {"hidden_size": WIDTH, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 1}
    text = {**tower, "vocab_size": words, "encoder_hidden_size": WIDTH, "layer_norm_eps": 1e-12, "is_decoder": True}
    vision = {**tower, "image_size": IMAGE, "patch_size": PATCH, "layer_norm_eps": 1e-6}
    return BlipConfig(text_config={**text, "max_position_embeddings": 40}, vision_config=vision)


def random_vqa(words: int = WORDS, seed: int = 0) -> BlipForQuestionAnswering:
    """A BLIP-VQA model whose every parameter is random."""
    torch.manual_seed(seed)
    model = BlipForQuestionAnswering(vqa_config(words)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.15)
    return model


def original_vqa_state(model: nn.Module) -> State:
    """The state dict that the original BLIP_VQA class would have saved for this model."""
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("vision_model."):
            name = original_vision_name(name.replace("vision_model.", "visual_encoder."))
        state[name] = tensor.clone()
    state["text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    return state


def write_blip_vqa(folder: Path) -> None:
    """model_base_vqa_capfilt_large.pth: the original state dict under the key model."""
    write_pickle(folder / "model_base_vqa_capfilt_large.pth", {"model": original_vqa_state(random_vqa())})


def write_imagereward(folder: Path) -> None:
    """ImageReward.pt, the original state dict with the projections that the score does not use, and med_config.json."""
    med_config: dict[str, Any] = {
        "add_cross_attention": True,
        "add_type_embeddings": False,
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1,
        "encoder_width": 768,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": WIDTH,
        "initializer_range": 0.02,
        "intermediate_size": 96,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 64,
        "model_type": "bert",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "pad_token_id": 0,
        "vocab_size": WORDS,
    }
    write_json(folder / "med_config.json", med_config)
    vision = randomise(BlipVisionModel(vqa_config().vision_config))
    sizes = {key: med_config[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")}
    sizes |= {key: med_config[key] for key in ("intermediate_size", "max_position_embeddings")}
    text = BlipTextModel(BlipTextConfig(**sizes, encoder_hidden_size=WIDTH, is_decoder=True), add_pooling_layer=False)
    state = {f"blip.visual_encoder.{original_vision_name(name)}": t for name, t in vision.state_dict().items()}
    state |= {f"blip.text_encoder.{name}": tensor for name, tensor in randomise(text).state_dict().items()}
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(64)[None]
    for name in ("vision_proj", "text_proj"):
        state |= _named(f"blip.{name}", nn.Linear(WIDTH, 16))
    state |= _named("mlp.layers", randomise(linear_head((WIDTH, 1024, 128, 64, 16, 1))))
    write_pickle(folder / "ImageReward.pt", state)


def _named(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}
