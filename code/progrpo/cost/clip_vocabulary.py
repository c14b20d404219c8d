"""CLIP's vocabulary as open_clip carries it, for tokenizers of networks with random weights."""

import gzip
from pathlib import Path

START, END = "<|startoftext|>", "<|endoftext|>"  # as the hub's files name them
MERGES = 49152 - 256 - 2  # of the published list, how many CLIP uses


def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's tokens with their numbers, and its merges in their order."""
    from open_clip.tokenizer import SimpleTokenizer, default_bpe

    names = {"<start_of_text>": START, "<end_of_text>": END}
    vocabulary = {names.get(token, token): number for token, number in SimpleTokenizer().encoder.items()}
    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")[1 : MERGES + 1]
    return vocabulary, [(first, second) for first, second in (line.split() for line in lines)]
