"""Tokenizers and untrained text encoders of the miniature pipelines: CLIP for both families, T5 for the flow family."""

import progrpo.torchvision_schemas  # noqa: F401, I001  (before transformers)
import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from progrpo.miniature.prompts import TAGS, all_records

CLIP_TOKENS = 10  # start, at most eight words, end
T5_TOKENS = 9  # at most eight words, end


def vocabulary() -> list[str]:
    """Every word of every prompt, sorted."""
    return sorted({word for tag in TAGS for record in all_records(tag) for word in record["prompt"].split()})


def clip_tokenizer(words: list[str] | None = None, length: int = CLIP_TOKENS) -> CLIPTokenizer:
    """A real CLIP tokenizer whose byte-pair merges make every word (default: of the prompts) one token."""
    words = words or vocabulary()
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    bpe.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    alphabet = sorted({letter for word in words for letter in word})
    trainer = trainers.BpeTrainer(
        vocab_size=1000, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(words, trainer)
    model = bpe.model
    vocab = bpe.get_vocab()
    for token in ("<|startoftext|>", "<|endoftext|>"):
        vocab[token] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=_merges(model), model_max_length=length)


def _merges(model: models.BPE) -> list[tuple[str, str]]:
    return [tuple(merge) for merge in json.loads(model.__getstate__())["merges"]]


def t5_tokenizer() -> T5Tokenizer:
    """A real T5 (unigram) tokenizer with one piece per word."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)] + [("▁" + word, -1.0) for word in vocabulary()]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=T5_TOKENS)


def clip_text_encoder(tokenizer: CLIPTokenizer, width: int, projection: int | None = None):
    """An untrained two-layer CLIP text encoder; with `projection`, the class with a projected pooled output."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CLIP_TOKENS,
        projection_dim=projection or width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)


def t5_encoder(tokenizer: T5Tokenizer, width: int) -> T5EncoderModel:
    """An untrained two-layer T5 encoder."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_kv=width // 2,
            d_ff=2 * width,
            num_layers=2,
            num_heads=2,
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
        )
    )
