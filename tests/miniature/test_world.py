"""Scenes, prompts, checker, tokenizers and autoencoder of the miniature world."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from meaning import meaning
from progrpo.files import read_jsonl
from progrpo.miniature import checker, scenes, text, world
from progrpo.miniature.autoencoder import any_scenes, build_autoencoder, rendered, standardise_latents
from progrpo.miniature.prompts import (
    PLACES,
    RELATIONS,
    TAGS,
    all_records,
    balanced,
    held_out_records,
    records_by_prompt,
    split_records,
    training_records,
)
from progrpo.miniature.scorer_blip import LONGEST, BlipReward

RECORDS = records_by_prompt()
LEAST = {"test": 500, "train": 2000}  # distinct prompts; 200 in every other set
PAIR = [{"class": "circle", "count": 1, "color": "red"}, {"class": "square", "count": 1, "color": "blue"}]
RED_AND_BLUE = {"tag": "color_attr", "include": PAIR, "prompt": "a red circle and a blue square"}


def related(relation: str) -> dict:
    """A red circle in a relation to a blue square, whether or not the world says it from this side."""
    subject, reference = PAIR
    include = [reference, subject | {"position": [relation, 0]}]
    return {"tag": "position", "include": include, "prompt": f"a red circle {relation} a blue square"}


def image_of(*objects: scenes.SceneObject) -> torch.Tensor:
    return torch.from_numpy(scenes.draw(list(objects))).permute(2, 0, 1)[None].float() / 255


def thing(name="circle", color="red", texture="solid", cell=(1, 1), jitter=(0, 0)) -> scenes.SceneObject:
    return scenes.SceneObject(name, color, texture, cell, jitter)


@pytest.mark.parametrize("tag", TAGS)
def test_faithful_images_of_every_prompt_are_strictly_correct(tag):
    records = all_records(tag)
    images = rendered(records, seed=3)
    assert checker.strict(images, records).min() == 1
    assert checker.soft(images, records).min() > 0.99


def test_the_checker_survives_noise_but_not_an_unrecognisable_image():
    records = balanced(held_out_records(), 70, 0)
    images = rendered(records, 1)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    assert checker.strict((images + 0.08 * noise).clamp(0, 1), records).mean() > 0.95
    assert checker.strict((0.5 + 0 * images), records).max() == 0


@pytest.mark.parametrize(
    ("record", "objects", "verdict"),
    [
        ("a red circle", [thing()], 1),
        ("a red circle", [thing(color="blue")], 0),
        ("a red circle", [thing(), thing(cell=(0, 0))], 0),  # one too many
        ("a red circle", [thing(), thing("square", "blue", cell=(0, 0))], 0),  # something else beside it
        ("a red circle", [thing(texture="striped")], 1),  # a texture that was not asked for is free
        ("a striped red circle", [thing()], 0),
        ("a striped red circle", [thing(texture="barred")], 0),
        ("a red circle in the middle", [thing()], 1),
        ("a red circle in the middle", [thing(cell=(0, 0))], 0),
        ("a circle in a corner", [thing(cell=(2, 0))], 1),
        ("a circle in a corner", [thing(cell=(2, 1))], 0),
        ("a barred circle outside the middle", [thing(texture="barred", cell=(0, 1))], 1),
        ("a barred circle outside the middle", [thing(texture="barred")], 0),
        ("two red circles", [thing(), thing(cell=(0, 0))], 1),
        ("two red circles", [thing()], 0),
        ("two checkered circles", [thing(texture="checkered"), thing(cell=(0, 0), texture="checkered")], 1),
        ("two checkered circles", [thing(texture="checkered"), thing(cell=(0, 0))], 0),
        (related("left of"), [thing(cell=(1, 0)), thing("square", "blue", cell=(1, 2))], 1),
        (related("left of"), [thing(cell=(1, 2)), thing("square", "blue", cell=(1, 0))], 0),
        (RED_AND_BLUE, [thing(), thing("square", "blue", cell=(0, 0))], 1),
        (RED_AND_BLUE, [thing(color="blue"), thing("square", "red", cell=(0, 0))], 0),
    ],
)
def test_strict_verdicts_by_hand(record, objects, verdict):
    record = RECORDS[record] if isinstance(record, str) else record
    assert checker.strict(image_of(*objects), [record]).item() == verdict


def test_soft_scores_know_places():
    """Of two terms, the clause's and that of extra objects, the first is lost in the wrong place."""
    record = RECORDS["a red circle in the middle"]
    right, wrong = (checker.soft(image_of(thing(cell=cell)), [record]).item() for cell in ((1, 1), (0, 1)))
    assert right == pytest.approx(1, abs=0.01)
    assert wrong == pytest.approx(0.5, abs=0.01)


def test_places_are_different_cells_of_the_grid():
    assert len(set(PLACES.values())) == len(PLACES)
    assert all(place and place < {divmod(k, scenes.GRID) for k in range(9)} for place in PLACES.values())


def test_kinds_differ_by_more_than_the_checker_needs():
    """The nearest templates of two kinds are several temperatures apart."""
    templates, kinds = checker._templates()
    error = torch.cdist(templates, templates).square() / templates.shape[1]
    assert error[kinds[:, None] != kinds].min() > 4 * checker.TEMPERATURE


def test_soft_scores_grade_what_strict_ones_do_not():
    record = RECORDS["three red circles"]
    scores = []
    for count in (1, 2, 3):
        objects = [thing(cell=(k, k)) for k in range(count)]
        scores.append(checker.soft(image_of(*objects), [record]).item())
    assert scores == sorted(scores)
    assert scores[0] == pytest.approx(1 / 3, abs=0.01)
    assert scores[2] == pytest.approx(1, abs=0.01)


def test_soft_scores_have_a_gradient_in_the_pixels():
    image = image_of(thing(color="blue")).requires_grad_(True)
    checker.soft(0.5 * image + 0.5 * image_of(thing()), [RECORDS["a red circle"]]).sum().backward()
    assert image.grad.abs().max() > 0


@pytest.mark.parametrize("relation", RELATIONS)
def test_relations_hold_in_every_rendered_scene_by_the_benchmarks_own_rule(relation):
    from progrpo.benchmarks.geneval.verdict import relative_position

    record = related(relation)
    rng = np.random.default_rng(0)
    for _ in range(100):
        reference, subject = scenes.sample_objects(record, rng)
        x0, y0, x1, y1 = subject.box
        assert relation in relative_position(subject.box, reference.box)
        assert 0 <= x0 < x1 <= scenes.SIZE
        assert 0 <= y0 < y1 <= scenes.SIZE


def test_no_two_records_have_one_meaning_or_one_prompt():
    records = [record for tag in TAGS for record in all_records(tag)]
    assert len({record["prompt"] for record in records}) == len(records)
    assert len({meaning(record) for record in records}) == len(records)


def test_meaning_does_not_depend_on_how_a_record_says_it():
    mirrored = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for relation in RELATIONS:
        circle, square = PAIR
        same = {"include": [circle, square | {"position": [mirrored[relation], 0]}]}
        assert meaning(related(relation)) == meaning(same)
        assert meaning(related(relation)) != meaning(related(mirrored[relation]))
    assert meaning(RED_AND_BLUE) == meaning({"include": PAIR[::-1]})


@pytest.mark.parametrize("tag", TAGS)
def test_at_least_a_quarter_of_each_tag_is_held_out_by_prompt_and_by_meaning(tag):
    training, held_out = split_records(tag)
    for key in (meaning, lambda record: record["prompt"]):
        assert not {key(record) for record in training} & {key(record) for record in held_out}
    assert len(held_out) >= len(all_records(tag)) // 4
    assert split_records(tag)[1] == held_out


def test_every_beginning_of_a_balanced_sample_has_every_tag_equally_often():
    tags = [record["tag"] for record in balanced(held_out_records(), 70, 5)]
    assert all({tags[:k].count(tag) for tag in TAGS} == {k // 7} for k in range(7, 71, 7))


def test_prompt_sets_are_distinct_and_large_enough_and_have_one_mix():
    sets = world.prompt_sets()
    training = {meaning(record) for record in training_records()}
    for name, records in sets.items():
        meanings = {meaning(record) for record in records}
        assert len(meanings) == len({record["prompt"] for record in records}) == len(records) >= LEAST.get(name, 200)
        assert meanings <= training if name == "train" else not meanings & training
        tags = [record["tag"] for record in records]
        counts = {tag: tags.count(tag) for tag in dict.fromkeys(tags)}
        assert len(set(counts.values())) == 1, name
        assert len(counts) == 1 or min(counts.values()) >= 40
        if not name.startswith(("geneval", "t2i")):
            assert set(counts) == set(TAGS)


def test_the_tiers_take_whole_sets_or_equal_shares_of_the_tags():
    root = Path(__file__).parents[2]
    for tier in ("smoke", "mini"):
        for name, chosen in yaml.safe_load((root / f"config/{tier}.yaml").read_text())["prompt_sets"].items():
            records = world.prompt_sets()[Path(chosen["path"]).stem]
            part = [record["tag"] for record in records[: chosen.get("limit")]]
            assert len({part.count(tag) for tag in set(part)}) == 1
            assert tier == "smoke" or name in ("qualitative", "held_out") or len(part) == len(records)


def test_prompt_files_are_the_prompt_sets(tmp_path):
    world.write_prompts(tmp_path)
    for name, records in world.prompt_sets().items():
        assert [record for _, record in read_jsonl(tmp_path / f"{name}.jsonl")] == records


def test_every_word_is_one_token_of_both_tokenizers():
    clip, t5 = text.clip_tokenizer(), text.t5_tokenizer()
    for word in text.vocabulary():
        assert len(clip(word).input_ids) == 3  # start, word, end
        assert len(t5(word).input_ids) == 2  # word, end


def test_no_prompt_is_truncated():
    clip, t5 = text.clip_tokenizer(), text.t5_tokenizer()
    assert max(len(tokens) for tokens in clip(list(RECORDS)).input_ids) <= text.CLIP_TOKENS
    assert max(len(tokens) for tokens in t5(list(RECORDS)).input_ids) <= text.T5_TOKENS
    assert len({tuple(tokens) for tokens in clip(list(RECORDS)).input_ids}) == len(RECORDS)
    assert max(len(tokens) for tokens in BlipReward().tokenizer(list(RECORDS)).input_ids) <= LONGEST
    for tier in ("smoke", "mini"):
        config = yaml.safe_load((Path(__file__).parents[2] / f"config/{tier}.yaml").read_text())
        assert config["models"]["sd35m"]["max_sequence_length"] == text.T5_TOKENS


def test_the_vocabulary_is_the_same_in_every_process():
    stand_in = (
        "import sys, unittest.mock; sys.modules['transformers'] = unittest.mock.MagicMock(); "  # takes ten seconds
    )
    script = stand_in + "from progrpo.miniature import text; print(text.byte_pairs(text.vocabulary()))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{text.byte_pairs(text.vocabulary())}\n"}


def test_standardising_latents_changes_them_but_not_the_images():
    torch.manual_seed(0)
    vae = build_autoencoder()
    images = any_scenes(64, 0)
    with torch.no_grad():
        before = vae.encode(2 * images - 1).latent_dist
        decoded = vae.decode(before.mean).sample
        standardise_latents(vae, images)
        after = vae.encode(2 * images - 1).latent_dist
        torch.testing.assert_close(vae.decode(after.mean).sample, decoded, atol=1e-3, rtol=1e-3)
    assert after.mean.mean((0, 2, 3)).abs().max() < 1e-3
    torch.testing.assert_close(after.mean.std((0, 2, 3)), torch.ones(8), atol=1e-3, rtol=0)
    scale = before.mean.std((0, 2, 3))
    torch.testing.assert_close(after.std * scale.view(1, -1, 1, 1), before.std, atol=1e-4, rtol=1e-3)
