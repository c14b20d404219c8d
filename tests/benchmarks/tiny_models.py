"""A small random CLIP and a small vocabulary, for this folder's tests."""

import torch
from transformers import BertTokenizer, CLIPConfig, CLIPModel

from progrpo.miniature.text import clip_tokenizer


def random_clip(activation: str = "quick_gelu", seed: int = 0) -> CLIPModel:
    """A CLIP of 32 px with the miniature world's tokenizer."""
    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    tower = dict(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, hidden_act=activation
    )
    text = dict(
        tower,
        vocab_size=len(tokenizer),
        max_position_embeddings=24,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    vision = dict(tower, image_size=32, patch_size=8)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()


VQA_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "yes", "no", "?", "a", "red", "blue", "green"]
VQA_WORDS += ["bench", "bowl", "circle", "square", "the", "large"]


def vqa_tokenizer(folder) -> BertTokenizer:
    """A BERT tokenizer of a few words, as a folder would hold it."""
    (folder / "vocab.txt").write_text("\n".join(VQA_WORDS) + "\n")
    return BertTokenizer.from_pretrained(folder)
