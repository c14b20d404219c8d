"""PickScore equals the formula of its README on transformers' classes."""

import shutil

import pytest
import torch
from tiny_scorers import PROMPTS, make_clip_folder
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPProcessor

from progrpo.errors import UserError
from progrpo.rewards import load_scorer


@pytest.fixture(scope="module")
def original(clip_folder, pil_images):
    """exp(logit_scale) * cosine, written as in the README (with transformers 5's pooler_output)."""
    model, processor = CLIPModel.from_pretrained(clip_folder).eval(), CLIPProcessor.from_pretrained(clip_folder)
    pixels = CLIPImageProcessorPil.from_pretrained(clip_folder)(pil_images, return_tensors="pt")
    text = processor.tokenizer(PROMPTS, padding=True, truncation=True, max_length=12, return_tensors="pt")
    with torch.no_grad():
        image_embs = model.get_image_features(pixel_values=pixels.pixel_values).pooler_output
        image_embs = image_embs / torch.norm(image_embs, dim=-1, keepdim=True)
        text_embs = model.get_text_features(**text).pooler_output
        text_embs = text_embs / torch.norm(text_embs, dim=-1, keepdim=True)
        return (model.logit_scale.exp() * text_embs @ image_embs.T).diagonal()


def test_pickscore_equals_original(clip_folder, images, original):
    scores = load_scorer("pickscore", clip_folder, batch_size=2).score(images, PROMPTS)
    assert torch.allclose(scores, original, atol=1e-3)
    assert scores.std() > 0.1


def test_scale_gives_the_flow_grpo_reward(clip_folder, images, original):
    reward = load_scorer("pickscore", clip_folder, scale=1 / 26).score(images, PROMPTS)
    assert torch.allclose(reward, original / 26, atol=1e-4)


def test_a_prompt_is_padded_without_effect(clip_folder, images):
    """The score of a pair does not depend on the longer prompts scored beside it."""
    scorer = load_scorer("pickscore", clip_folder)
    alone = torch.cat([scorer.score(images[k : k + 1], PROMPTS[k : k + 1]) for k in range(4)])
    assert torch.allclose(scorer.score(images, PROMPTS), alone, atol=1e-3)


def test_the_tokenizer_may_lie_elsewhere(clip_folder, images, original, tmp_path):
    shutil.copytree(clip_folder, tmp_path / "model", ignore=shutil.ignore_patterns("tokenizer*"))
    scorer = load_scorer("pickscore", tmp_path / "model", tokenizer=str(clip_folder))
    assert torch.allclose(scorer.score(images, PROMPTS), original, atol=1e-3)


def test_damaged_folders_are_one_line(clip_folder, tmp_path):
    with pytest.raises(UserError, match=r"pickscore: .*config.json: no such file"):
        load_scorer("pickscore", tmp_path)
    folder = make_clip_folder(tmp_path / "truncated")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"truncated: cannot be loaded .*fetch"):
        load_scorer("pickscore", folder)


@pytest.mark.parametrize("name", ["pickscore", "clip_score"])
def test_a_tokenizer_without_its_vocabulary_is_one_line(clip_folder, tmp_path, name):
    """transformers makes one of two tokens, for which all prompts are alike."""
    shutil.copytree(clip_folder, tmp_path / "model", ignore=shutil.ignore_patterns("tokenizer.json"))
    with pytest.raises(UserError, match="the tokenizer: cannot be loaded") as refused:
        load_scorer(name, tmp_path / "model")
    assert len(str(refused.value).splitlines()) == 1
