"""ImageReward v1.0 (Xu et al., arXiv 2304.05977; public code THUDM/ImageReward) on transformers' BLIP classes."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from progrpo.errors import UserError
from progrpo.files import read_object
from progrpo.plugins import SCORER_FILES
from progrpo.rewards.base import BatchedScorer, freeze, load_state, load_weights, require_file
from progrpo.rewards.linear_head import load_linear_head
from progrpo.rewards.preprocess import check_mode, clip_pixels

(WEIGHTS,) = SCORER_FILES["imagereward"]
TEXT_CONFIG = "med_config.json"
MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the raw score on the authors' data
MAX_TOKENS = 35
HEAD_WIDTH = 64  # of an attention head in all of BLIP's towers (1024 / 16 in ViT-L)
TEXT_KEYS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
)
VISION_KEYS = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^blocks\.(\d+)\.norm(\d)\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.\1.self_attn.qkv."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"^blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
    (r"^norm\.", "post_layernorm."),
)


def blip_vision_state(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The original BLIP vision tower's entries under `prefix`, renamed to the keys of transformers' BlipVisionModel."""
    renamed = {}
    for key, value in state.items():
        if key.startswith(prefix):
            key = key.removeprefix(prefix)
            for old, new in VISION_KEYS:
                key = re.sub(old, new, key)
            renamed[key] = value
    return renamed


def blip_text_state(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The original BLIP text tower's entries under `prefix` for BlipTextModel, whose state has no `position_ids`."""
    return {
        key.removeprefix(prefix): value
        for key, value in state.items()
        if key.startswith(prefix) and not key.endswith("position_ids")
    }


def blip_vision_model(state: dict[str, Tensor]) -> nn.Module:
    """A BlipVisionModel of the sizes in the renamed state dict; layer-norm epsilon is the original's 1e-6, not 1e-5."""
    from transformers import BlipVisionConfig, BlipVisionModel

    width, _, patch, _ = state["embeddings.patch_embedding.weight"].shape
    patches = state["embeddings.position_embedding"].shape[1] - 1
    return BlipVisionModel(
        BlipVisionConfig(
            hidden_size=width,
            intermediate_size=state["encoder.layers.0.mlp.fc1.weight"].shape[0],
            num_hidden_layers=1 + max(int(k.split(".")[2]) for k in state if k.startswith("encoder.layers.")),
            num_attention_heads=max(1, width // HEAD_WIDTH),
            image_size=round(patches**0.5) * patch,
            patch_size=patch,
            layer_norm_eps=1e-6,
        )
    )


def blip_text_model(med_config: dict, vision_width: int) -> nn.Module:
    """A BlipTextModel (BERT with cross-attention) of the sizes in med_config.json."""
    from transformers import BlipTextConfig, BlipTextModel

    sizes = {key: med_config[key] for key in TEXT_KEYS}
    unused = {"bos_token_id": None, "sep_token_id": None}  # of the decoder; their defaults exceed a small vocabulary
    config = BlipTextConfig(**sizes, **unused, encoder_hidden_size=vision_width, is_decoder=True)
    return BlipTextModel(config, add_pooling_layer=False)


def networks_from_original(
    scorer: str, path: Path, state: dict[str, Tensor], med_config: dict
) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Vision tower, text tower and head with the original state dict's weights; UserError when one does not fit."""
    vision_state = blip_vision_state(state, "blip.visual_encoder.")
    head = {key.removeprefix("mlp."): value for key, value in state.items() if key.startswith("mlp.")}
    try:
        vision: Any = blip_vision_model(vision_state)
        text = blip_text_model(med_config, vision.config.hidden_size)
    except (KeyError, ValueError) as error:
        raise UserError(f"{scorer}: {path}: {error} is missing or unfit in {WEIGHTS} or {TEXT_CONFIG}") from None
    load_state(scorer, path / WEIGHTS, vision, vision_state)
    load_state(scorer, path / WEIGHTS, text, blip_text_state(state, "blip.text_encoder."))
    return vision, text, load_linear_head(scorer, path / WEIGHTS, head)


class ImageReward(BatchedScorer):
    """The reward of the [CLS] state of BERT reading the prompt with cross-attention to the image, about N(0, 1).

    The folder holds ImageReward.pt, med_config.json and the tokenizer files of bert-base-uncased (or `tokenizer`
    names their folder).
    """

    files = (WEIGHTS,)

    def __init__(
        self,
        networks: tuple[nn.Module, nn.Module, nn.Module],
        tokenizer,
        device: torch.device | str,
        precision: str = "fp32",
        batch_size: int = 16,
        *,
        preprocess: str = "pil",
    ):
        super().__init__("imagereward", device, precision, batch_size)
        self.preprocess = check_mode(self.name, preprocess)
        self.vision, self.text, self.head = (freeze(network, self.device) for network in networks)
        self.tokenizer = tokenizer

    @classmethod
    def load(
        cls, path: Path, device: torch.device | str, *, tokenizer: str | None = None, preprocess: str = "pil", **common
    ) -> "ImageReward":
        """From a folder with ImageReward.pt, med_config.json and the tokenizer."""
        med_config = read_object(require_file("imagereward", path / TEXT_CONFIG))
        state = load_weights("imagereward", path / WEIGHTS)
        networks = networks_from_original("imagereward", path, state, med_config)
        bert = load_bert_tokenizer("imagereward", Path(tokenizer) if tokenizer else path)
        return cls(networks, bert, device, preprocess=preprocess, **common)

    def score_batch(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Standardised rewards (b,) of images (b, 3, H, W) and prompts."""
        pixels = clip_pixels(images.to(self.device), self.vision.config.image_size, self.preprocess)
        tokens = self.tokenizer(
            prompts, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(self.device)
        with self.autocast():
            patches = self.vision(pixel_values=pixels).last_hidden_state
            hidden = self.text(
                input_ids=tokens.input_ids,
                attention_mask=tokens.attention_mask,
                encoder_hidden_states=patches,
                encoder_attention_mask=torch.ones(patches.shape[:2], dtype=torch.long, device=self.device),
            ).last_hidden_state
        return (self.head(hidden[:, 0].float())[:, 0] - MEAN) / STD


def load_bert_tokenizer(scorer: str, folder: Path):
    """The BertTokenizer of a folder; UserError without vocab.txt (transformers would build an empty vocabulary)."""
    from transformers import BertTokenizer

    if not (folder / "tokenizer.json").is_file():
        require_file(scorer, folder / "vocab.txt")
    return BertTokenizer.from_pretrained(folder, local_files_only=True)
