"""The untrained miniature of ImageReward: BLIP's vision tower, BERT with cross-attention, a linear head."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertTokenizer, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from progrpo.miniature.scenes import CELL, SIZE
from progrpo.miniature.scorer_models import HEADS, LAYERS, TEXT_LAYERS, TEXT_WIDTH, WIDTH, initialise
from progrpo.miniature.text import vocabulary
from progrpo.rewards.imagereward import HEAD_WIDTH, MAX_TOKENS, TEXT_CONFIG, TEXT_KEYS, WEIGHTS
from progrpo.rewards.linear_head import linear_head

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LONGEST = 10  # tokens of a miniature prompt; the scorer pads to 35, which the attention mask makes the same
ORIGINAL_VISION_KEYS = (
    ("embeddings.class_embedding", "cls_token"),
    ("embeddings.position_embedding", "pos_embed"),
    ("embeddings.patch_embedding.", "patch_embed.proj."),
    ("encoder.layers.", "blocks."),
    (".layer_norm", ".norm"),
    (".self_attn.qkv.", ".attn.qkv."),
    (".self_attn.projection.", ".attn.proj."),
    ("post_layernorm.", "norm."),
)


def original_vision_key(key: str) -> str:
    """The original BLIP vision tower's key for one of transformers' BlipVisionModel (the scorer's map inverted)."""
    for new, old in ORIGINAL_VISION_KEYS:
        key = key.replace(new, old)
    return key


class BlipReward(nn.Module):
    """Image and prompt to a raw reward, in the architecture of ImageReward."""

    def __init__(self):
        super().__init__()
        words = [*SPECIAL, *vocabulary()]
        self.tokenizer = BertTokenizer(vocab={word: k for k, word in enumerate(words)})
        self.vision = BlipVisionModel(
            BlipVisionConfig(
                hidden_size=WIDTH,
                intermediate_size=4 * WIDTH,
                num_hidden_layers=LAYERS,
                num_attention_heads=WIDTH // HEAD_WIDTH,
                image_size=SIZE,
                patch_size=CELL,
                layer_norm_eps=1e-6,
            )
        )
        config = BlipTextConfig(
            vocab_size=len(words),
            hidden_size=TEXT_WIDTH,
            num_hidden_layers=TEXT_LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=4 * TEXT_WIDTH,
            max_position_embeddings=MAX_TOKENS,
            hidden_act="gelu",
            layer_norm_eps=1e-12,
            encoder_hidden_size=WIDTH,
            is_decoder=True,
            bos_token_id=None,
            sep_token_id=None,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.bert = BlipTextModel(config, add_pooling_layer=False)
        self.head = linear_head((TEXT_WIDTH, 64, 32, 16, 8, 1)).eval()  # without dropout: too narrow for it to help
        initialise(self.vision)
        initialise(self.bert)

    def tokens(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (P, 10), padded with 0."""
        return self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=LONGEST, return_tensors="pt"
        ).input_ids

    def text(self, tokens: Tensor) -> Tensor:
        """[CLS] states (P, D) without an image."""
        return self.bert(input_ids=tokens, attention_mask=(tokens > 0).long()).last_hidden_state[:, 0]

    def text_parameters(self) -> list[nn.Parameter]:
        """Of the text tower."""
        return list(self.bert.parameters())

    def scores(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Raw rewards (P, K), mean patch states (P K, D) and text-only states (P, D') of pixels and tokens.

        pixels: (P, K, 3, S, S), K images for each of P prompts; tokens: (P, T).
        """
        patches = self.vision(pixel_values=pixels.flatten(0, 1)).last_hidden_state
        repeated = tokens.repeat_interleave(pixels.shape[1], 0)
        hidden = self.bert(
            input_ids=repeated,
            attention_mask=(repeated > 0).long(),
            encoder_hidden_states=patches,
            encoder_attention_mask=torch.ones(patches.shape[:2], dtype=torch.long),
        ).last_hidden_state
        return self.head(hidden[:, 0]).view(pixels.shape[:2]), patches[:, 1:].mean(1), self.text(tokens)

    def save(self, folder: Path) -> None:
        """ImageReward.pt in float16 with the original keys, med_config.json, vocab.txt and the tokenizer's files."""
        self.half()
        state = {
            f"blip.visual_encoder.{original_vision_key(key)}": value for key, value in self.vision.state_dict().items()
        }
        state |= {f"blip.text_encoder.{key}": value for key, value in self.bert.state_dict().items()}
        state |= {f"mlp.layers.{key}": value for key, value in self.head.state_dict().items()}
        torch.save(state, folder / WEIGHTS)
        config = {key: getattr(self.bert.config, key) for key in TEXT_KEYS}
        (folder / TEXT_CONFIG).write_text(json.dumps(config, indent=1) + "\n")
        (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in [*SPECIAL, *vocabulary()]))
        self.tokenizer.save_pretrained(folder)
