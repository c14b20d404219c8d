"""Tokenizers and untrained text encoders of the miniature pipelines: CLIP for both families, T5 for the flow family."""

from collections import Counter
from itertools import pairwise

from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from progrpo.miniature.prompts import records_by_prompt

CLIP_TOKENS = 10  # start, at most eight words, end
T5_TOKENS = 9  # at most eight words, end


def vocabulary() -> list[str]:
    """Every word of every prompt, sorted."""
    return sorted({word for prompt in records_by_prompt() for word in prompt.split()})


def clip_tokenizer(words: list[str] | None = None, length: int = CLIP_TOKENS) -> CLIPTokenizer:
    """A real CLIP tokenizer whose byte-pair merges make every word (default: of the prompts) one token."""
    vocab, merges = byte_pairs(words or vocabulary())
    for token in ("<|startoftext|>", "<|endoftext|>"):
        vocab[token] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=length)


def byte_pairs(words: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of byte-pair encoding, until each word is one symbol ending in `</w>`.

    Ties go to the first pair in the alphabet; the `tokenizers` library leaves them to its hash order, another one in every process.
    """
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in sorted(set(words))]
    letters = sorted({letter for word in words for letter in word})
    symbols, merges = letters + [letter + "</w>" for letter in letters], []
    while any(len(word) > 1 for word in spelled):
        counts = Counter(pair for word in spelled for pair in pairwise(word))
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        symbols.append("".join(best))
        spelled = [_merged(word, best) for word in spelled]
    return {symbol: index for index, symbol in enumerate(symbols)}, merges


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for symbol in word:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


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
