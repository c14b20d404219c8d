"""Noun chunks: the rules against stored answers of spaCy, and which chunker is used when."""

import json
from pathlib import Path

import pytest

from progrpo.benchmarks.compbench import chunks
from progrpo.benchmarks.compbench.chunks import StoredChunker, TemplateChunker
from progrpo.benchmarks.compbench.spatial import find_objects
from progrpo.benchmarks.compbench.vqa import questions
from progrpo.benchmarks.prompt_sets import load_prompts
from progrpo.errors import UserError
from progrpo.miniature.prompts import all_records
from progrpo.miniature.world import COMPBENCH_TAGS

PROMPTS = Path(__file__).parents[1] / "data" / "t2i_compbench"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a green bench and a blue bowl", ["a green bench", "a blue bowl"]),
        ("rubber sole shoes and fluffy clouds", ["rubber sole shoes", "fluffy clouds"]),
        (
            "a black bathroom with a black and white shower curtain",
            ["a black bathroom", "a black and white shower curtain"],
        ),
        ("A woman in a white shirt holds a pink umbrella.", ["A woman", "a white shirt", "a pink umbrella"]),
        ("a triangular slice of cheese and a board", ["a triangular slice", "cheese", "a board"]),
        ("three striped red circles", ["three striped red circles"]),
        ("a red circle left of a blue square", ["a red circle", "a blue square"]),
        ("and", []),
    ],
)
def test_the_rules_on_typical_prompts(prompt, expected):
    assert TemplateChunker().chunks(prompt) == expected


@pytest.mark.parametrize(("category", "at_least"), [("color", 270), ("shape", 245), ("texture", 260), ("spatial", 300)])
def test_the_rules_agree_with_spacy_on_most_of_the_benchmarks_prompts(category, at_least):
    prompts = [p.prompt for p in load_prompts(PROMPTS / f"{category}_val.txt")]
    stored, rules = StoredChunker(), TemplateChunker()
    assert len(prompts) == 300
    assert all(prompt in stored._stored for prompt in prompts)
    agree = sum(questions(stored.chunks(p)) == questions(rules.chunks(p)) for p in prompts)
    assert agree >= at_least


def test_the_objects_of_every_spatial_prompt_are_the_same_by_rules_and_by_spacy():
    prompts = [p.prompt for p in load_prompts(PROMPTS / "spatial_val.txt")]
    stored, rules = StoredChunker(), TemplateChunker()
    objects = [find_objects(p, stored) for p in prompts]
    assert objects == [find_objects(p, rules) for p in prompts]
    assert len({noun for pair in objects for noun in pair}) == 46


def test_every_object_of_a_miniature_prompt_is_one_chunk():
    for record in (r for tag in COMPBENCH_TAGS.values() for r in all_records(tag)):
        found = TemplateChunker().chunks(record["prompt"])
        assert len(found) == len(record["include"]), record["prompt"]


def test_spacy_is_asked_for_only_where_it_is_installed(monkeypatch):
    chunks.load_chunker.cache_clear()
    monkeypatch.setattr(chunks, "find_spec", lambda name: None)
    assert chunks.load_chunker("auto").name.startswith("stored answers of spacy en_core_web_sm")
    assert chunks.load_chunker("template").name == "template"
    with pytest.raises(UserError, match="unknown"):
        chunks.load_chunker("nltk")
    chunks.load_chunker.cache_clear()


def test_a_missing_spacy_model_is_one_clear_error():
    with pytest.raises(UserError, match="--chunker template"):
        chunks.SpacyChunker("no_such_model")


def test_stored_answers_are_spacys_where_its_model_is_installed():
    spacy = pytest.importorskip("spacy")
    if not spacy.util.is_package("en_core_web_sm"):
        pytest.skip("spaCy's model en_core_web_sm is not installed")
    asked, stored = chunks.SpacyChunker(), StoredChunker()
    agree = [asked.chunks(prompt) == answer["chunks"] for prompt, answer in stored._stored.items()]
    assert sum(agree) >= 0.95 * len(agree)


def test_stored_answers_round_trip(tmp_path):
    chunks.write_stored_chunks(tmp_path / "chunks.json", ["a red book and a dog", "a cat", "a cat"], TemplateChunker())
    stored = json.loads((tmp_path / "chunks.json").read_text())
    assert stored["source"] == "template"
    assert stored["prompts"] == {
        "a red book and a dog": {"chunks": ["a red book", "a dog"], "nouns": ["book", "dog"]},
        "a cat": {"chunks": ["a cat"], "nouns": ["cat"]},
    }


def test_questions_skip_the_benchmarks_phrases_and_are_cleaned():
    assert questions(["The red Book", "the left", "top", "the side", "the right", "a (blue) car!"]) == [
        "the red book?",
        "a blue car?",
    ]
    assert len(questions([f"a thing{k}" for k in range(12)])) == 8
    assert questions(["a " * 60 + "dog"])[0].count(" ") == 49
