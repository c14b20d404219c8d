"""CLIP score equals the cosine of either library, in either layout."""

import json
import shutil

import open_clip
import pytest
import safetensors.torch
import torch
from tiny_scorers import PROMPTS, TINY_OPEN_CLIP, spread
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPProcessor

from progrpo.errors import UserError
from progrpo.model_files import holds_safetensors
from progrpo.rewards import load_scorer


def test_clip_score_equals_original_transformers(clip_folder, pil_images, images):
    model, processor = CLIPModel.from_pretrained(clip_folder).eval(), CLIPProcessor.from_pretrained(clip_folder)
    inputs = processor.tokenizer(PROMPTS, padding=True, return_tensors="pt")
    pixels = CLIPImageProcessorPil.from_pretrained(clip_folder)(pil_images, return_tensors="pt").pixel_values
    with torch.no_grad():
        logits = model(pixel_values=pixels, **inputs).logits_per_image / model.logit_scale.exp()
    scores = load_scorer("clip_score", clip_folder).score(images, PROMPTS)
    assert torch.allclose(scores, logits.diagonal(), atol=1e-4)
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
    assert torch.allclose(load_scorer("clip_score", tmp_path).score(images, PROMPTS), expected, atol=1e-4)


def test_an_empty_folder_is_one_line(tmp_path):
    with pytest.raises(UserError, match="clip_score: .*neither model.safetensors nor open_clip_model.safetensors"):
        load_scorer("clip_score", tmp_path)


def test_open_clips_weights_beside_pickled_ones_of_transformers_do_not_matter(clip_folder, tmp_path, images):
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "open_clip_model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    expected = load_scorer("clip_score", clip_folder).score(images, PROMPTS)
    assert torch.equal(load_scorer("clip_score", folder).score(images, PROMPTS), expected)


def test_weights_under_the_names_of_the_libraries_are_known_as_safetensors(tmp_path):
    names = ("model.safetensors", "diffusion_pytorch_model.safetensors", "model.safetensors.index.json")
    variants = ("diffusion_pytorch_model.fp16.safetensors", "model.safetensors.index.fp16.json")
    for name in (*names, *variants, "adapter_model.safetensors", "open_clip_model.safetensors"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(b"")
        assert holds_safetensors(tmp_path / name) == (name in names)
        assert holds_safetensors(tmp_path / name, "fp16") == (name in variants)
