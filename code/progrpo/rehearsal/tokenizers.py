"""Tokenizer files as the hub serves them: CLIP's own vocabulary, and small vocabularies for T5 and BERT."""

import io
from pathlib import Path
from typing import Any

from progrpo.cost.clip_vocabulary import END, START, clip_vocabulary
from progrpo.files import write_json, write_text

BERT_WORDS = 30522
T5_WORDS = 100  # pieces, to which the 100 extra ids are added


def _added(content: str, normalized: bool = True) -> dict[str, Any]:
    """An added token as tokenizer files of transformers 4 hold it."""
    flags = {"lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False}
    return {"__type": "AddedToken", "content": content, **flags}


def write_clip(folder: Path, pad: str = END, length: int = 77) -> None:
    """CLIP's tokenizer: the published vocabulary and merges, which open_clip carries, under the names of the hub's files."""
    from transformers import CLIPTokenizer

    vocab, merges = clip_vocabulary()
    write_json(folder / "vocab.json", vocab)
    write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *map(" ".join, merges), ""]))
    special: dict[str, Any] = {
        "bos_token": _added(START),
        "eos_token": _added(END),
        "pad_token": pad,
        "unk_token": _added(END),
    }
    plain = {
        name: {k: v for k, v in token.items() if k != "__type"}
        for name, token in special.items()
        if name != "pad_token"
    }
    write_json(folder / "special_tokens_map.json", {**plain, "pad_token": pad})
    settings = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": length}
    write_json(folder / "tokenizer_config.json", {**settings, **special, "tokenizer_class": "CLIPTokenizer"})
    write_json(folder / "added_tokens.json", {END: vocab[END], START: vocab[START]})
    CLIPTokenizer(vocab=vocab, merges=merges).backend_tokenizer.save(str(folder / "tokenizer.json"))


def write_t5(folder: Path, texts: list[str]) -> None:
    """T5's tokenizer: a sentencepiece model of a hundred pieces learnt from `texts`, and the same as tokenizer.json."""
    import sentencepiece
    from transformers import T5Tokenizer

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=T5_WORDS,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    scored = [(pieces.id_to_piece(k), pieces.get_score(k)) for k in range(pieces.get_piece_size())]
    T5Tokenizer(vocab=scored, extra_ids=100).backend_tokenizer.save(str(folder / "tokenizer.json"))
    extra = [f"<extra_id_{k}>" for k in range(100)]
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "additional_special_tokens": extra}
    write_json(folder / "special_tokens_map.json", special)
    settings = {"extra_ids": 100, "legacy": True, "model_max_length": 512, "sp_model_kwargs": {}}
    write_json(folder / "tokenizer_config.json", {**settings, **special, "tokenizer_class": "T5Tokenizer"})


def write_bert(folder: Path, texts: list[str]) -> None:
    """bert-base-uncased: special tokens at the published numbers, letters and the words of `texts`, filled up to 30,522 lines."""
    from transformers import BertTokenizer

    words = sorted({word for text in texts for word in text.lower().split() if word.isalpha()} | {"yes", "no"})
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    head = ["[PAD]", *(f"[unused{k}]" for k in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    known = list(dict.fromkeys([*head, *letters, *(f"##{letter}" for letter in letters), *words]))
    lines = known + [f"[unused{k}]" for k in range(99, 99 + BERT_WORDS - len(known))]
    write_text(folder / "vocab.txt", "".join(f"{line}\n" for line in lines))
    write_json(
        folder / "config.json", {"architectures": ["BertForMaskedLM"], "model_type": "bert", "vocab_size": BERT_WORDS}
    )
    write_json(folder / "tokenizer_config.json", {"do_lower_case": True, "model_max_length": 512})
    vocab = {word: number for number, word in enumerate(lines)}
    BertTokenizer(vocab=vocab, do_lower_case=True).backend_tokenizer.save(str(folder / "tokenizer.json"))
