"""The aesthetic predictor equals the original's formula; the published head gives its two published values."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from tiny_scorers import PROMPTS, make_clip_folder
from torch import nn
from transformers import CLIPImageProcessorPil, CLIPModel

from progrpo.errors import UserError
from progrpo.rewards import load_scorer
from progrpo.rewards.aesthetic import HEAD
from progrpo.rewards.base import load_weights
from progrpo.rewards.linear_head import load_linear_head


class MLP(nn.Module):
    """The head as the original lays it out: no activation between the layers."""

    def __init__(self, width: int):
        super().__init__()
        sizes = (nn.Linear(width, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2))
        self.layers = nn.Sequential(*sizes, nn.Linear(128, 64), nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1))


def test_aesthetic_equals_original(aesthetic_folder, pil_images, images):
    model = CLIPModel.from_pretrained(aesthetic_folder).eval()
    head = MLP(16).eval()
    head.load_state_dict(torch.load(aesthetic_folder / HEAD, weights_only=True))
    pixels = CLIPImageProcessorPil.from_pretrained(aesthetic_folder)(pil_images, return_tensors="pt").pixel_values
    with torch.no_grad():
        embedding = model.get_image_features(pixel_values=pixels).pooler_output
        normalised = embedding.numpy().astype("float64")
        normalised /= (normalised**2).sum(-1, keepdims=True) ** 0.5
        expected = head.layers(torch.from_numpy(normalised).float())[:, 0]
    scores = load_scorer("aesthetic", aesthetic_folder, batch_size=3).score(images, PROMPTS)
    assert (scores - expected).abs().max() < 1e-3 * expected.std()
    assert scores.std() > 0.01


def test_plain_gelu_is_refused(tmp_path, aesthetic_folder):
    """The trap that random weights cannot show: the same weights under the wrong activation load without a word."""
    folder = make_clip_folder(tmp_path / "gelu", "gelu")
    (folder / HEAD).write_bytes((aesthetic_folder / HEAD).read_bytes())
    with pytest.raises(UserError, match="activation is 'gelu', but OpenAI's CLIP L/14 has 'quick_gelu'"):
        load_scorer("aesthetic", folder)


def test_the_head_may_lie_elsewhere(tmp_path, aesthetic_folder, images):
    folder = tmp_path / "clip"
    shutil.copytree(aesthetic_folder, folder, ignore=shutil.ignore_patterns(HEAD))
    head = str(aesthetic_folder / HEAD)
    expected = load_scorer("aesthetic", aesthetic_folder).score(images, PROMPTS)
    assert torch.equal(load_scorer("aesthetic", folder, head=head).score(images, PROMPTS), expected)
    with pytest.raises(UserError, match="no such file"):
        load_scorer("aesthetic", folder, head=str(tmp_path / "no.pth"))


def test_a_head_for_another_tower_is_refused(tmp_path):
    folder = make_clip_folder(tmp_path / "clip", "quick_gelu")
    torch.save(MLP(20).state_dict(), folder / HEAD)
    with pytest.raises(UserError, match="reads 20 features, the CLIP model in .* gives 16"):
        load_scorer("aesthetic", folder)


def test_the_published_head_gives_its_published_values():
    """MLP(0) and MLP(e0) of the real file, in the folder PROGRPO_WEIGHTS (default `data`) when it was fetched."""
    root = Path(os.environ.get("PROGRPO_WEIGHTS", Path(__file__).parents[2] / "data"))
    found = sorted(root.rglob(HEAD))
    if not found:
        pytest.skip(f"no {HEAD} under the folder of weights (progrpo fetch)")
    head = load_linear_head("aesthetic", found[0], load_weights("aesthetic", found[0])).eval()
    with torch.no_grad():
        at_zero, at_first = head(torch.zeros(768)).item(), head(torch.eye(768)[0]).item()
        slope = head(torch.eye(768))[:, 0] - at_zero
    assert at_zero == pytest.approx(5.236645698547363, abs=1e-5)
    assert at_first == pytest.approx(4.545052528381348, abs=1e-5)
    assert slope.norm().item() == pytest.approx(17.9956, abs=1e-3)
