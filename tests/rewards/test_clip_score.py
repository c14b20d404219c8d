"""CLIP score equals the cosine of either library, in either layout."""

import json

import open_clip
import pytest
import safetensors.torch
import torch
from tiny_scorers import PROMPTS, TINY_OPEN_CLIP, spread
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPProcessor

from progrpo.errors import UserError
from progrpo.rewards import load_scorer


def test_clip_score_equals_original_transformers(clip_folder, pil_images, images):
    model, processor = CLIPModel.from_pretrained(clip_folder).eval(), CLIPProcessor.from_pretrained(clip_folder)
    inputs = processor.tokenizer(PROMPTS, padding=True, return_tensors="pt")
    pixels = CLIPImageProcessorPil.from_pretrained(clip_folder)(pil_images, return_tensors="pt").pixel_values
    with torch.no_grad():
        logits = model(pixel_values=pixels, **inputs).logits_per_image / model.logit_scale.exp()
    scores = load_scorer("clip_score", clip_folder).score(images, PROMPTS)
    assert torch.allclose(scores, logits.diagonal(), atol=1e-6)
    assert scores.std() > 0.01


def test_clip_score_equals_original_open_clip(tmp_path, pil_images, images):
    """The files of an open_clip hub folder: open_clip_config.json and open_clip_model.safetensors."""
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY_OPEN_CLIP, "preprocess_cfg": {}}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))  # as the hub folder has it, too
    model = spread(open_clip.create_model(f"local-dir:{tmp_path}", load_weights=False))
    safetensors.torch.save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(PROMPTS)
    with torch.no_grad():
        image = model.eval().encode_image(torch.stack([preprocess(i) for i in pil_images]), normalize=True)
        expected = (image * model.encode_text(tokens, normalize=True)).sum(-1)
    assert torch.allclose(load_scorer("clip_score", tmp_path).score(images, PROMPTS), expected, atol=1e-6)


def test_an_empty_folder_is_one_line(tmp_path):
    with pytest.raises(UserError, match="clip_score: .*neither model.safetensors nor open_clip_model.safetensors"):
        load_scorer("clip_score", tmp_path)
