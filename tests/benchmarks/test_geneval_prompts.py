"""The regenerated prompts are the benchmark's, byte for byte."""

import collections
import hashlib
from importlib import resources

import pytest

from progrpo.benchmarks.geneval.prompts import geneval_records, write_prompts
from progrpo.benchmarks.geneval.vocabulary import detector_classes, geneval_vocabulary
from progrpo.benchmarks.prompt_sets import load_prompts, validate_record
from progrpo.commands.geneval import vocabulary_of
from progrpo.files import sha256, write_json
from progrpo.miniature.prompts import COLORS

TAGS = {"single_object": 80, "two_object": 99, "counting": 80, "colors": 94, "position": 100, "color_attr": 100}


def test_the_file_has_the_published_hash_and_size(tmp_path):
    path = tmp_path / "evaluation_metadata.jsonl"
    assert write_prompts(path) == 553
    assert path.stat().st_size == 85209
    assert sha256(path) == "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"


def test_the_plain_prompts_have_the_published_hash():
    text = "".join(record["prompt"] + "\n" for record in geneval_records())
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "55b6e3650e980c13daf30569eb666e000faf19bfc2b7b4cbe999fcdb7aa9d680"
    )


def test_counts_per_tag_and_validity(tmp_path):
    write_prompts(tmp_path / "prompts.jsonl")
    records = [p.metadata for p in load_prompts(tmp_path / "prompts.jsonl")]
    for record in records:
        validate_record(record, "prompts.jsonl", geneval_vocabulary())
    assert collections.Counter(r["tag"] for r in records) == TAGS
    assert collections.Counter(r["include"][0]["count"] for r in records if r["tag"] == "counting") == {
        2: 26,
        3: 28,
        4: 26,
    }


def test_other_seeds_give_the_other_known_numbers_of_prompts():
    assert (len(geneval_records(seed=42)), len(geneval_records(seed=0))) == (559, 548)


def test_the_class_names_are_the_benchmarks_file():
    packaged = resources.files("progrpo.benchmarks.geneval").joinpath("object_names.txt").read_bytes()
    digest = "608f6a0e5c8ca1c7a92b818430141fe268c85b7930b50f4160f1d65893b5bacd"
    assert hashlib.sha256(packaged).hexdigest() == digest


RENAMED = {"computer mouse": "mouse", "tv remote": "remote", "computer keyboard": "keyboard"}
SOFA = {"couch": "sofa"}  # as transformers' converters of mmdet's models have it
PASCAL = {**SOFA, "airplane": "aeroplane", "motorcycle": "motorbike", "potted plant": "pottedplant", "tv": "tvmonitor"}


@pytest.mark.parametrize(
    "spelt", [{}, RENAMED, {**RENAMED, **SOFA}, {**RENAMED, **PASCAL, "dining table": "diningtable"}]
)
def test_coco_labels_take_genevals_names_by_index_however_they_are_spelt(tmp_path, spelt):
    names = list(geneval_vocabulary().classes)
    coco = [spelt.get(name, name) for name in names]
    write_json(tmp_path / "config.json", {"id2label": {str(k): name for k, name in enumerate(coco)}})
    assert detector_classes(tmp_path) == tuple(names)
    for own in (["unicorn", *coco[1:]], coco[:-1], [*coco[1:], coco[0]]):  # another vocabulary keeps its own
        write_json(tmp_path / "config.json", {"id2label": {str(k): name for k, name in enumerate(own)}})
        assert detector_classes(tmp_path) == tuple(own)
    (tmp_path / "object_names.txt").write_text("circle\nsquare\n")
    assert detector_classes(tmp_path) == ("circle", "square")


def test_the_vocabulary_of_records_is_the_one_that_has_their_first_class():
    assert vocabulary_of([{"include": [{"class": "triangle"}]}]).colors == COLORS
    assert (
        vocabulary_of([{"include": [{"class": "dog"}]}, {"include": [{"class": "triangle"}]}]) == geneval_vocabulary()
    )
    assert vocabulary_of([{"include": [{"class": "unicorn"}]}]) == geneval_vocabulary()
    for nothing in (None, 3, {}, {"include": []}, {"include": {"class": "dog"}}, {"include": [None, {"class": 3}]}):
        assert vocabulary_of([nothing]) == geneval_vocabulary()
        assert vocabulary_of([nothing, {"exclude": [{"class": "triangle"}]}]).colors == COLORS
