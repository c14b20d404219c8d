"""CLIP and OWLv2 in the layouts of their repositories: PickScore, OpenAI's L/14, laion's H/14, HPS-v2.1, the aesthetic head."""

from pathlib import Path
from typing import Any

from transformers import CLIPConfig, CLIPModel, Owlv2Config, Owlv2ForObjectDetection

from progrpo.files import write_json
from progrpo.rehearsal.tokenizers import write_clip
from progrpo.rehearsal.weights import position_ids, randomise, stored_state, write_pickle, write_weights
from progrpo.rewards.linear_head import linear_head
from progrpo.rewards.open_clip_model import CONFIG as OPEN_CLIP_CONFIG
from progrpo.rewards.open_clip_model import build_open_clip
from progrpo.rewards.preprocess import CLIP_MEAN, CLIP_STD

HPS_ARCHITECTURE = "ViT-S-32-alt"  # of open_clip's own, the smallest; the overlay of the configuration names it too
SIZE, PATCH, PROJECTION = 32, 8, 16  # pixels of an image and of a patch; width of an embedding
OPEN_CLIP = {
    "embed_dim": PROJECTION,
    "vision_cfg": {"image_size": SIZE, "layers": 2, "width": 32, "head_width": 16, "patch_size": PATCH},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
TOWER = {
    "attention_dropout": 0.0,
    "dropout": 0.0,
    "hidden_size": 32,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 64,
    "layer_norm_eps": 1e-05,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "projection_dim": PROJECTION,
    "torch_dtype": None,
    "transformers_version": "4.16.0.dev0",
}
TEXT = {
    **TOWER,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "pad_token_id": 1,
    "vocab_size": 49408,
}
VISION = {**TOWER, "image_size": SIZE, "model_type": "clip_vision_model", "patch_size": PATCH}


def write_clip_model(folder: Path, activation: str) -> None:
    """A CLIPModel's repository, `activation` gelu or quick_gelu: configuration, weights, processor, tokenizer."""
    write_clip_config(folder, activation)
    state = stored_state(randomise(CLIPModel(CLIPConfig.from_pretrained(folder)), 1.5), folder)
    state = position_ids(state, "text_model") | position_ids({}, "vision_model", length=1 + (SIZE // PATCH) ** 2)
    write_weights(folder / "model.safetensors", state)


def write_clip_config(folder: Path, activation: str) -> None:
    """What stands beside a CLIPModel's weights."""
    settings = {
        "architectures": ["CLIPModel"],
        "initializer_factor": 1.0,
        "logit_scale_init_value": 2.6592,
        "model_type": "clip",
        "projection_dim": PROJECTION,
        "text_config": {**TEXT, "hidden_act": activation},
        "torch_dtype": "float32",
        "transformers_version": None,
        "vision_config": {**VISION, "hidden_act": activation},
    }
    write_json(folder / "config.json", settings)
    write_json(folder / "preprocessor_config.json", preprocessor("CLIPFeatureExtractor", SIZE))
    write_clip(folder)


def preprocessor(kind: str, size: int) -> dict[str, Any]:
    """A preprocessor_config.json of 2022, where sizes are numbers."""
    steps = dict.fromkeys(("do_center_crop", "do_normalize", "do_resize"), True)
    colours = {"image_mean": list(CLIP_MEAN), "image_std": list(CLIP_STD)}
    return {**steps, **colours, "crop_size": size, "feature_extractor_type": kind, "resample": 3, "size": size}


def write_laion(folder: Path) -> None:
    """laion's H/14: open_clip's weights with their configuration, and the files of a CLIPModel without its weights."""
    write_clip_config(folder, "gelu")
    write_json(
        folder / OPEN_CLIP_CONFIG, {"model_cfg": OPEN_CLIP, "preprocess_cfg": {"mean": CLIP_MEAN, "std": CLIP_STD}}
    )
    model, _ = build_open_clip("rehearsal", f"local-dir:{folder}")
    write_weights(folder / "open_clip_model.safetensors", randomise(model, 1.5).state_dict())


def write_hps(folder: Path) -> None:
    """HPS_v2.1_compressed.pt: open_clip's state dict under the key state_dict, nothing beside it."""
    model, _ = build_open_clip("rehearsal", HPS_ARCHITECTURE)
    content = {"epoch": 1, "name": "rehearsal", "state_dict": model.half().state_dict()}
    write_pickle(folder / "HPS_v2.1_compressed.pt", content)


def write_aesthetic(folder: Path) -> None:
    """The aesthetic head for embeddings of `PROJECTION`."""
    head = randomise(linear_head((PROJECTION, 1024, 128, 64, 16, 1)))
    state = {f"layers.{name}": tensor for name, tensor in head.state_dict().items()}
    write_pickle(folder / "sac+logos+ava1-l14-linearMSE.pth", state)


def write_owlv2(folder: Path) -> None:
    """OWLv2's repository, which has no tokenizer.json."""
    text = {
        **TEXT,
        "hidden_act": "quick_gelu",
        "hidden_size": PROJECTION,
        "intermediate_size": 32,
        "max_position_embeddings": 16,
    }
    text |= {"model_type": "owlv2_text_model", "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 0}
    vision = {
        **VISION,
        "hidden_act": "quick_gelu",
        "image_size": 64,
        "model_type": "owlv2_vision_model",
        "patch_size": 16,
    }
    settings = {
        "architectures": ["Owlv2ForObjectDetection"],
        "initializer_factor": 1.0,
        "logit_scale_init_value": 2.6592,
        "model_type": "owlv2",
        "projection_dim": PROJECTION,
        "text_config": text,
        "torch_dtype": "float32",
        "transformers_version": "4.35.0.dev0",
        "vision_config": vision,
    }
    write_json(folder / "config.json", settings)
    model = randomise(Owlv2ForObjectDetection(Owlv2Config.from_pretrained(folder)))
    write_weights(folder / "model.safetensors", stored_state(model, folder))
    colours = {"image_mean": list(CLIP_MEAN), "image_std": list(CLIP_STD)}
    steps = dict.fromkeys(("do_normalize", "do_pad", "do_rescale", "do_resize"), True)
    kinds = {"image_processor_type": "Owlv2ImageProcessor", "processor_class": "Owlv2Processor"}
    size = {"resample": 2, "rescale_factor": 1 / 255, "size": {"height": 64, "width": 64}}
    write_json(folder / "preprocessor_config.json", {**colours, **steps, **kinds, **size})
    write_clip(folder, "!", length=16)
