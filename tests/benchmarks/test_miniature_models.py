"""The miniature detector, colour classifier and BLIP-VQA: their training data, and what is saved loads as the real ones do."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from progrpo.benchmarks.compbench.blip import load_vqa
from progrpo.benchmarks.compbench.chunks import TemplateChunker
from progrpo.benchmarks.geneval.color import load_color_classifier
from progrpo.benchmarks.geneval.detector import load_detector
from progrpo.miniature import detector_training, vqa_training
from progrpo.miniature.prompts import CLASSES, COLORS, TAGS, all_records, held_out_records, training_records
from progrpo.miniature.scenes import SceneObject, sample_objects

RESULTS = Path(__file__).parents[2] / "results" / "miniature"


def test_every_chunk_of_a_prompt_holds_in_a_faithful_scene():
    rng = np.random.default_rng(0)
    for record in (r for tag in TAGS for r in all_records(tag)):
        objects = sample_objects(record, rng)
        for chunk in TemplateChunker().chunks(record["prompt"]):
            assert vqa_training.holds(chunk, objects), (record["prompt"], objects)


@pytest.mark.parametrize(
    ("chunk", "true"),
    [
        ("a circle", True),
        ("a red circle", True),
        ("a blue circle", False),
        ("a striped red circle", False),
        ("a striped blue square", True),
        ("two red circles", True),
        ("three red circles", False),
        ("a triangle", False),
    ],
)
def test_answers_are_read_off_the_scene(chunk, true):
    red = [SceneObject("circle", "red", "solid", (0, k), (0, 0)) for k in range(2)]
    scene = [*red, SceneObject("square", "blue", "striped", (2, 2), (0, 0))]
    assert vqa_training.holds(chunk, scene) is true


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
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) < 500_000


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
    trained = {r["prompt"] for r in training_records()}
    assert not trained & {r["prompt"] for r in held_out_records()}
