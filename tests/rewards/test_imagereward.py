"""ImageReward equals the original package, whose outputs oracle/imagereward_outputs.py stored."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle.imagereward_outputs import random_images, random_state

from progrpo.errors import UserError
from progrpo.rewards import load_scorer
from progrpo.rewards.imagereward import (
    TEXT_CONFIG,
    WEIGHTS,
    blip_text_model,
    blip_text_state,
    blip_vision_model,
    blip_vision_state,
)

DATA = json.loads((Path(__file__).parent / "data/imagereward.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The official layout with the weights that the original scored with."""
    folder = tmp_path_factory.mktemp("imagereward")
    torch.save(random_state(DATA["shapes"]), folder / WEIGHTS)
    (folder / TEXT_CONFIG).write_text(json.dumps(DATA["med_config"]))
    (folder / "vocab.txt").write_text("\n".join(DATA["vocabulary"]) + "\n")
    return folder


def tensor(image: np.ndarray, count: int) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float().div(255).repeat(count, 1, 1, 1)


def test_imagereward_equals_original(folder):
    """Package 1.5, transformers 4.55.4, image by image; long prompts, unknown words and resized images included."""
    scorer = load_scorer("imagereward", folder, batch_size=2)
    scores = torch.stack(
        [scorer.score(tensor(image, len(DATA["prompts"])), DATA["prompts"]) for image in random_images()]
    )
    assert torch.allclose(scores, torch.tensor(DATA["scores"]), rtol=2e-5, atol=2e-3)
    assert scores.std() > 1


def test_every_full_size_key_finds_its_place():
    """The original's full-size state dict, as names and shapes, fills transformers' classes without a rest."""
    shapes = {key: value for key, value in DATA["full_size_shapes"].items() if "position_ids" not in key}
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
        vision_state = blip_vision_state(state, "blip.visual_encoder.")
        vision = blip_vision_model(vision_state)
        text = blip_text_model(DATA["full_size_med_config"], vision.config.hidden_size)
    vision.load_state_dict(vision_state, strict=True, assign=True)
    text.load_state_dict(blip_text_state(state, "blip.text_encoder."), strict=True, assign=True)
    used = len(vision_state) + len(blip_text_state(state, "blip.text_encoder.")) + 10  # ten tensors of the head
    assert len(shapes) - used == 4  # vision_proj and text_proj, which the score does not use
    sizes = vision.config
    assert (sizes.image_size, sizes.patch_size, sizes.num_hidden_layers, sizes.num_attention_heads) == (224, 16, 24, 16)
    assert (text.config.num_attention_heads, text.config.encoder_hidden_size) == (12, 1024)
    assert (sizes.layer_norm_eps, text.config.layer_norm_eps) == (1e-6, 1e-12)


def test_missing_and_unfit_files_are_one_line(folder, tmp_path):
    with pytest.raises(UserError, match=r"imagereward: .*med_config.json: no such file"):
        load_scorer("imagereward", tmp_path)
    (tmp_path / TEXT_CONFIG).write_text(json.dumps(DATA["med_config"] | {"num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"imagereward: .*ImageReward.pt: no such file"):
        load_scorer("imagereward", tmp_path)
    (tmp_path / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes())
    with pytest.raises(UserError, match=r"key 'encoder.layer.2.*' is missing"):
        load_scorer("imagereward", tmp_path)
    (tmp_path / TEXT_CONFIG).write_text((folder / TEXT_CONFIG).read_text())
    with pytest.raises(UserError, match=r"vocab.txt: no such file"):
        load_scorer("imagereward", tmp_path)
