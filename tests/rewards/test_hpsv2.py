"""HPS-v2.1 equals open_clip's own path from a checkpoint to a cosine."""

import json
import os

import open_clip
import pytest
import torch
from tiny_scorers import PROMPTS, TINY_OPEN_CLIP, spread

from progrpo.errors import UserError
from progrpo.rewards import hpsv2, load_scorer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The official layout (one .pt file with the key state_dict), for a small architecture named hps-tiny."""
    folder, registry = tmp_path_factory.mktemp("hps"), tmp_path_factory.mktemp("registry")
    (registry / "hps-tiny.json").write_text(json.dumps(TINY_OPEN_CLIP))
    open_clip.add_model_config(registry)
    model = spread(open_clip.create_model("hps-tiny"))
    torch.save({"epoch": 1, "name": "x", "state_dict": model.state_dict()}, folder / hpsv2.WEIGHTS)
    return folder


@pytest.fixture
def scorer(folder, monkeypatch):
    """The scorer on that folder, with hps-tiny in the place of ViT-H-14."""
    monkeypatch.setattr(hpsv2, "VIT_H", "hps-tiny")
    return load_scorer("hpsv2", folder, batch_size=3)


def test_hpsv2_equals_original(folder, scorer, pil_images, images):
    """create_model_and_transforms, encode_image, encode_text, cosine: hpsv2's score() without autocast, as on a CPU."""
    model, _, preprocess = open_clip.create_model_and_transforms("hps-tiny", pretrained=str(folder / hpsv2.WEIGHTS))
    tokens = open_clip.get_tokenizer("hps-tiny")(PROMPTS)
    with torch.no_grad():
        image = model.eval().encode_image(torch.stack([preprocess(i) for i in pil_images]), normalize=True)
        expected = (image @ model.encode_text(tokens, normalize=True).T).diagonal()
    scores = scorer.score(images, PROMPTS)
    assert scores.dtype == torch.float32
    assert torch.allclose(scores, expected, atol=1e-4)
    assert scores.std() > 0.01


def test_the_architecture_of_the_official_file_is_vit_h_14():
    config = open_clip.get_model_config(hpsv2.VIT_H)
    assert (config["embed_dim"], config["vision_cfg"]["width"], config["vision_cfg"]["layers"]) == (1024, 1280, 32)
    assert (config["text_cfg"]["width"], config["text_cfg"]["layers"]) == (1024, 24)
    assert not config.get("quick_gelu", False)


def test_a_config_beside_the_weights_names_another_architecture(folder, scorer, images, tmp_path):
    (tmp_path / hpsv2.WEIGHTS).write_bytes((folder / hpsv2.WEIGHTS).read_bytes())
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY_OPEN_CLIP, "preprocess_cfg": {}}))
    scores = load_scorer("hpsv2", tmp_path).score(images, PROMPTS)
    assert torch.allclose(scores, scorer.score(images, PROMPTS), atol=1e-4)


def test_preprocess_is_an_option_that_changes_scores(folder, scorer, images, monkeypatch):
    monkeypatch.setattr(hpsv2, "VIT_H", "hps-tiny")
    large = torch.nn.functional.interpolate(images, (160, 160))
    other = load_scorer("hpsv2", folder, preprocess="tensor_noaa")
    assert not torch.allclose(other.score(large, PROMPTS), scorer.score(large, PROMPTS), atol=1e-4)


def test_low_precision_stays_near_fp32(folder, scorer, images, monkeypatch):
    """Published HPS values are autocast fp16; the tolerance of the reference is 2e-4 for the real, trained model."""
    low, full = hpsv2.HPSv2.load(folder, "cpu", precision="bf16").score(images, PROMPTS), scorer.score(images, PROMPTS)
    assert low.dtype == torch.float32
    assert (low - full).abs().mean() < 0.25 * full.std()


def test_missing_and_unfit_checkpoints_are_one_line(folder, scorer, tmp_path):
    with pytest.raises(UserError, match=r"hpsv2: .*HPS_v2.1_compressed.pt: no such file; fetch"):
        load_scorer("hpsv2", tmp_path)
    state = torch.load(folder / hpsv2.WEIGHTS, weights_only=True)["state_dict"]
    state["visual.conv1.weight"] = torch.zeros(32, 3, 4, 4)
    torch.save({"state_dict": state}, tmp_path / hpsv2.WEIGHTS)
    with pytest.raises(UserError, match=r"visual.conv1.weight has shape \(32, 3, 4, 4\), the architecture needs"):
        load_scorer("hpsv2", tmp_path)
    del state["visual.conv1.weight"]
    torch.save({"state_dict": state}, tmp_path / hpsv2.WEIGHTS)
    with pytest.raises(UserError, match="key 'visual.conv1.weight' is missing"):
        load_scorer("hpsv2", tmp_path)


class Surprise:
    """An object that runs code when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("surprise",)


def test_a_pickle_with_more_than_tensors_is_refused_and_not_run(folder, scorer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = torch.load(folder / hpsv2.WEIGHTS, weights_only=True)["state_dict"]
    torch.save({"state_dict": state, "more": Surprise()}, tmp_path / hpsv2.WEIGHTS)
    with pytest.raises(UserError, match="holds more than tensors"):
        load_scorer("hpsv2", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [hpsv2.WEIGHTS]


def test_a_truncated_checkpoint_is_one_line(folder, scorer, tmp_path):
    (tmp_path / hpsv2.WEIGHTS).write_bytes((folder / hpsv2.WEIGHTS).read_bytes()[:2000])
    with pytest.raises(UserError, match="fetch it again"):
        load_scorer("hpsv2", tmp_path)
