"""The miniature detector, colour classifier and BLIP-VQA: their training data, and what is saved loads as the real ones do."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from meaning import meaning
from progrpo.benchmarks.compbench.blip import load_vqa
from progrpo.benchmarks.compbench.chunks import TemplateChunker
from progrpo.benchmarks.compbench.spatial import SHORT_FORMS, find_locality, find_objects
from progrpo.benchmarks.geneval.color import load_color_classifier
from progrpo.benchmarks.geneval.detector import load_detector
from progrpo.benchmarks.prompt_sets import validate_record
from progrpo.miniature import detector_training, vqa_training
from progrpo.miniature.prompts import (
    CLASSES,
    COLORS,
    TAGS,
    all_records,
    held_out_records,
    noun_phrase,
    training_records,
)
from progrpo.miniature.scenes import SceneObject, sample_objects
from progrpo.miniature.world import COMPBENCH_TAGS

RESULTS = Path(__file__).parents[2] / "results" / "miniature"


@pytest.mark.parametrize("tag", COMPBENCH_TAGS.values())
def test_the_chunks_of_a_prompt_are_its_clauses(tag):
    for record in all_records(tag):
        phrases = [noun_phrase(clause) for clause in record["include"]]
        assert sorted(TemplateChunker().chunks(record["prompt"])) == sorted(phrases)


def test_spatial_prompts_name_subject_and_reference():
    for record in all_records("position"):
        reference, subject = record["include"]
        assert find_objects(record["prompt"], TemplateChunker()) == (subject["class"], reference["class"])
        assert find_locality(record["prompt"]) == SHORT_FORMS[subject["position"][0]]


@pytest.mark.parametrize("tag", TAGS)
def test_every_record_is_valid_by_geneval_and_what_it_asks_for_is_shown(tag):
    rng = np.random.default_rng(0)
    for record in all_records(tag):
        validate_record(record, "here", detector_training.VOCABULARY)
        objects = sample_objects(record, rng)
        assert all(vqa_training.shows(clause, objects) for clause in record["include"])


@pytest.mark.parametrize(
    ("clause", "true"),
    [
        ({"class": "circle"}, True),
        ({"class": "circle", "color": "red"}, True),
        ({"class": "circle", "color": "blue"}, False),
        ({"class": "circle", "color": "red", "texture": "striped"}, False),
        ({"class": "square", "color": "blue", "texture": "striped"}, True),
        ({"class": "circle", "color": "red", "count": 2}, True),
        ({"class": "circle", "color": "red", "count": 3}, False),
        ({"class": "triangle"}, False),
    ],
)
def test_answers_are_read_off_the_scene(clause, true):
    red = [SceneObject("circle", "red", "solid", (0, k), (0, 0)) for k in range(2)]
    scene = [*red, SceneObject("square", "blue", "striped", (2, 2), (0, 0))]
    assert vqa_training.shows({"count": 1, **clause}, scene) is true


def test_half_of_the_questions_are_true_and_all_words_are_tokens():
    vqa = vqa_training.build(0)
    sampler = vqa_training.Sampler(training_records(), 0)
    images, asked, answers = sampler.batch(400)
    assert 0.4 < answers.float().mean() < 0.6
    assert images[0].shape == (24, 24, 3)
    unknown = vqa.tokenizer.convert_tokens_to_ids("[UNK]")
    assert not any(unknown in vqa.tokens(question) for question in asked)


def test_silhouettes_fill_the_stripes_and_reach_the_box():
    for name in CLASSES:
        solid, striped = (SceneObject(name, "red", t, (1, 2), (1, -1)) for t in ("solid", "striped"))
        mask = detector_training.silhouette(solid)
        assert np.array_equal(mask, detector_training.silhouette(striped))
        y, x = np.nonzero(mask)
        x0, y0, x1, y1 = solid.box
        assert x0 <= x.min() <= x0 + 1
        assert x1 - 1 <= x.max() + 1
        assert y0 <= y.min() <= y0 + 1
        assert y.max() + 1 == y1


def test_imperfect_crops_show_the_asked_object():
    scenes = detector_training.Scenes(training_records(), 0)
    crop = np.asarray(detector_training.imperfect_crop(scenes, "square", "blue")).reshape(-1, 3).mean(0)
    assert crop[2] > crop[0]


def test_the_saved_detector_and_classifier_load_as_the_real_ones_do(tmp_path):
    report = detector_training.train(tmp_path, detector_steps=1, color_steps=1, scenes=7)
    detector = load_detector(tmp_path / "detector")
    assert (detector.classes, detector.pipeline) == (CLASSES, detector_training.PIPELINE)
    assert next(detector.model.parameters()).dtype == torch.float32
    assert load_color_classifier(tmp_path / "color").colors == COLORS
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["scenes"] == report["scenes"] == 7
    assert sum(p.stat().st_size for p in (tmp_path / "detector").iterdir()) < 1_000_000
    assert sum(p.stat().st_size for p in (tmp_path / "color").iterdir()) < 300_000


def test_the_saved_vqa_loads_as_the_real_one_does(tmp_path):
    vqa_training.train(tmp_path, steps=1, scenes=4)
    vqa = load_vqa(tmp_path)
    assert vqa.image_size == 24
    assert vqa.tokens("a red circle?")[0] == vqa.enc
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) < 700_000


def test_training_is_reproducible(tmp_path):
    states = []
    for _ in range(2):
        vqa = vqa_training.build(3)
        vqa_training.fit(vqa, 2, 3)
        states.append(vqa.model.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def read_report(name):
    path = RESULTS / name / "report.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there: `dvc pull` or train it")
    return json.loads(path.read_text())


def test_the_trained_detector_judges_faithful_scenes_right():
    report = read_report("detector")
    assert report["class_and_box_recall"] > 0.9
    assert report["verdicts_of_faithful_scenes"] > 0.8
    assert report["verdicts_of_mismatched_scenes"] < 0.2


def test_the_trained_vqa_tells_faithful_from_mismatched_scenes():
    report = read_report("blip_vqa")
    assert report["held_out_answers_right"] > 0.9
    assert report["faithful_score"] > 0.8
    assert report["mismatched_score"] < 0.4


def test_held_out_records_are_in_no_training():
    trained = {meaning(r) for r in training_records()}
    assert not trained & {meaning(r) for r in held_out_records()}
