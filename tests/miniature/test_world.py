"""Scenes, prompts, checker, tokenizers and autoencoder of the miniature world."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from progrpo.files import read_jsonl
from progrpo.miniature import checker, scenes, text, world
from progrpo.miniature.autoencoder import any_scenes, build_autoencoder, rendered, standardise_latents
from progrpo.miniature.prompts import (
    RELATIONS,
    TAGS,
    all_records,
    balanced,
    held_out_records,
    split_records,
    training_records,
)

RECORDS = {record["prompt"]: record for tag in TAGS for record in all_records(tag)}


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
    ("prompt", "objects", "verdict"),
    [
        ("a red circle", [thing()], 1),
        ("a red circle", [thing(color="blue")], 0),
        ("a red circle", [thing(), thing(cell=(0, 0))], 0),  # one too many
        ("a red circle", [thing(), thing("square", "blue", cell=(0, 0))], 0),  # something else beside it
        ("a red circle", [thing(texture="striped")], 1),  # a texture that was not asked for is free
        ("a striped red circle", [thing()], 0),
        ("two red circles", [thing(), thing(cell=(0, 0))], 1),
        ("two red circles", [thing()], 0),
        ("a circle and a square", [thing(color="green"), thing("square", cell=(2, 0))], 1),
        ("a red circle left of a blue square", [thing(cell=(1, 0)), thing("square", "blue", cell=(1, 2))], 1),
        ("a red circle left of a blue square", [thing(cell=(1, 2)), thing("square", "blue", cell=(1, 0))], 0),
        ("a red circle and a blue square", [thing(color="blue"), thing("square", "red", cell=(0, 0))], 0),
    ],
)
def test_strict_verdicts_by_hand(prompt, objects, verdict):
    assert checker.strict(image_of(*objects), [RECORDS[prompt]]).item() == verdict


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

    record = RECORDS[f"a red circle {relation} a blue square"]
    rng = np.random.default_rng(0)
    for _ in range(100):
        reference, subject = scenes.sample_objects(record, rng)
        x0, y0, x1, y1 = subject.box
        assert relation in relative_position(subject.box, reference.box)
        assert 0 <= x0 < x1 <= scenes.SIZE
        assert 0 <= y0 < y1 <= scenes.SIZE


@pytest.mark.parametrize("tag", TAGS)
def test_a_quarter_of_each_tag_is_held_out(tag):
    training, held_out = split_records(tag)
    prompts = {record["prompt"] for record in training}
    assert not prompts & {record["prompt"] for record in held_out}
    assert len(held_out) == max(1, round(len(all_records(tag)) / 4))
    assert split_records(tag)[1] == held_out


def test_balanced_samples_have_every_tag_equally_often():
    tags = [record["tag"] for record in balanced(held_out_records(), 70, 5)]
    assert {tags.count(tag) for tag in TAGS} == {10}


def test_prompt_files_hold_no_training_prompt_outside_train(tmp_path):
    world.write_prompts(tmp_path)
    training = {record["prompt"] for record in training_records()}
    for path in tmp_path.glob("*.jsonl"):
        prompts = [record["prompt"] for _, record in read_jsonl(path)]
        assert set(prompts) <= training if path.stem == "train" else not set(prompts) & training


def test_every_word_is_one_token_of_both_tokenizers():
    clip, t5 = text.clip_tokenizer(), text.t5_tokenizer()
    for word in text.vocabulary():
        assert len(clip(word).input_ids) == 3  # start, word, end
        assert len(t5(word).input_ids) == 2  # word, end
    longest = max(RECORDS, key=lambda prompt: len(prompt.split()))
    assert len(clip(longest).input_ids) <= text.CLIP_TOKENS
    assert len(t5(longest).input_ids) <= text.T5_TOKENS
    assert len({tuple(clip(prompt).input_ids) for prompt in RECORDS}) == len(RECORDS)


def test_the_vocabulary_is_the_same_in_every_process():
    script = "from progrpo.miniature import text; print(text.byte_pairs(text.vocabulary()))"
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
        torch.testing.assert_close(vae.decode(after.mean).sample, decoded, atol=1e-4, rtol=1e-4)
    assert after.mean.mean((0, 2, 3)).abs().max() < 1e-3
    torch.testing.assert_close(after.mean.std((0, 2, 3)), torch.ones(8), atol=1e-3, rtol=0)
    scale = before.mean.std((0, 2, 3))
    torch.testing.assert_close(after.std * scale.view(1, -1, 1, 1), before.std, atol=1e-4, rtol=1e-3)
