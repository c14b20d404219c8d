"""The key map from mmdet's Mask2Former to transformers': complete, invertible, right where they compute differently."""

import pytest
import torch
from transformers import Mask2FormerConfig, SwinConfig
from transformers.models.swin.modeling_swin import SwinPatchMerging, SwinRelativePositionBias

from progrpo.benchmarks.geneval import detector, mmdet_checkpoint
from progrpo.benchmarks.geneval.vocabulary import geneval_vocabulary
from progrpo.errors import UserError
from progrpo.model_files import check_model_folder
from progrpo.rehearsal.mmdet import FILE, detector_config, random_detector, to_mmdet, write_mask2former

CLASSES = ("circle", "square", "triangle")


def test_a_fabricated_mmdet_checkpoint_converts_back_to_the_model_it_came_from():
    model = random_detector(CLASSES)
    converted, unknown = mmdet_checkpoint.convert_mmdet(to_mmdet(model))
    own = model.state_dict()
    assert unknown == []
    assert set(own) - set(converted) == set(mmdet_checkpoint.NOT_IN_MMDET)
    assert set(converted) <= set(own)
    assert all(torch.equal(converted[key], own[key]) for key in converted)


def test_patch_merging_equals_mmdets_unfold_after_the_reordering():
    torch.manual_seed(0)
    channels, image = 6, torch.randn(2, 8, 4, 6)  # (batch, height, width, channels)
    norm_weight, norm_bias = torch.randn(2, 4 * channels)
    reduction = torch.randn(2 * channels, 4 * channels)
    unfolded = torch.nn.Unfold(kernel_size=2, stride=2)(image.permute(0, 3, 1, 2)).transpose(1, 2)  # mmdet's sampler
    mmdet = torch.nn.functional.layer_norm(unfolded, (4 * channels,), norm_weight, norm_bias) @ reduction.T
    ours = SwinPatchMerging(channels)
    reorder = mmdet_checkpoint.swin_merging_order
    state = {"reduction.weight": reduction, "norm.weight": norm_weight, "norm.bias": norm_bias}
    ours.load_state_dict({key: reorder(value) for key, value in state.items()})
    with torch.no_grad():
        result = ours(image.reshape(2, 32, channels), (8, 4))
    torch.testing.assert_close(result, mmdet, atol=1e-5, rtol=1e-5)


def test_relative_position_tables_have_mmdets_order():
    height, width = 4, 4
    step = (torch.arange(height)[:, None] * (2 * width - 1) + torch.arange(width)[None]).reshape(1, -1)
    mmdet_index = (step + step.T).flip(1)
    ours = SwinRelativePositionBias(num_heads=2, window_size=(height, width)).relative_position_index
    assert torch.equal(ours.view(16, 16), mmdet_index)


def test_split_attention_matrices_compute_what_the_joint_one_does():
    model = random_detector(CLASSES)
    state = to_mmdet(model)
    joint = state["panoptic_head.transformer_decoder.layers.1.attentions.1.attn.in_proj_weight"]
    converted, _ = mmdet_checkpoint.convert_mmdet(state)
    x = torch.randn(5, 32)
    parts = [
        x @ converted[f"model.transformer_module.decoder.layers.1.self_attn.{letter}_proj.weight"].T for letter in "qkv"
    ]
    torch.testing.assert_close(torch.cat(parts, -1), x @ joint.T)


def swin_s() -> Mask2FormerConfig:
    """The benchmark's detector as mmdet's mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco.py has it."""
    stages = ["stage1", "stage2", "stage3", "stage4"]
    sizes = {"embed_dim": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24], "window_size": 7}
    names = geneval_vocabulary().classes
    return Mask2FormerConfig(
        backbone_config=SwinConfig(image_size=224, out_features=stages, **sizes),
        num_queries=100,
        encoder_layers=6,
        decoder_layers=10,  # transformers counts the prediction from the queries themselves
        id2label=dict(enumerate(names)),
        label2id={name: k for k, name in enumerate(names)},
    )


@pytest.mark.parametrize("config", [swin_s(), detector_config(geneval_vocabulary().classes)], ids=["swin_s", "tiny"])
def test_the_sizes_of_a_checkpoint_are_those_of_its_shapes(config):
    with torch.device("meta"):
        model = detector.Mask2FormerForUniversalSegmentation(config)
        found = detector.config_of(model.state_dict())
    expected, own = config.to_dict(), found.to_dict()
    assert own.pop("backbone_config") | {"image_size": None} == expected.pop("backbone_config") | {"image_size": None}
    assert own == expected


def test_every_key_of_the_benchmarks_detector_has_a_rule():
    with torch.device("meta"):
        model = detector.Mask2FormerForUniversalSegmentation(swin_s())
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 68.7
    produced = set()
    for key in to_mmdet_names(model):
        name = mmdet_checkpoint.convert_key(key)
        assert name is not None, key
        produced |= {name.format(qkv=letter) for letter in "qkv"}
    assert produced == set(model.state_dict()) - set(mmdet_checkpoint.NOT_IN_MMDET)


def to_mmdet_names(model):
    """mmdet's keys of a model on the meta device."""
    return [key for key in to_mmdet(model) if not key.endswith("relative_position_index")]


@pytest.fixture
def checkpoint(tmp_path):
    model = random_detector(CLASSES)
    path = tmp_path / "mask2former.pth"
    torch.save({"meta": {"epoch": 50, "CLASSES": CLASSES}, "state_dict": to_mmdet(model)}, path)
    return path, model


def test_a_pth_file_loads_into_the_model_and_saves_as_a_folder(checkpoint, tmp_path):
    path, model = checkpoint
    config_folder = tmp_path / "config"
    detector_config(CLASSES).save_pretrained(config_folder)
    loaded = detector.load_detector(path, config_from=config_folder)
    assert loaded.classes == CLASSES
    detector.save_detector(tmp_path / "converted", loaded)
    again = detector.load_detector(tmp_path / "converted")
    pixels = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected, found = model(pixel_values=pixels), again.model(pixel_values=pixels)
    assert torch.equal(expected.class_queries_logits, found.class_queries_logits)
    assert torch.equal(expected.masks_queries_logits, found.masks_queries_logits)
    assert (again.pipeline, again.classes) == (loaded.pipeline, CLASSES)
    # mmdet pads before it normalises; detectron2, whose weights the hub has, after
    assert loaded.pipeline.padding == detector.MMDET_GREY
    (tmp_path / "converted" / "preprocessor_config.json").unlink()
    assert detector.load_detector(tmp_path / "converted").pipeline.padding is None


def test_the_benchmarks_own_file_needs_nothing_beside_it(tmp_path):
    write_mask2former(tmp_path)
    loaded = detector.load_detector(tmp_path / FILE)
    assert loaded.classes == geneval_vocabulary().classes
    assert loaded.pipeline == detector.TestPipeline(padding=detector.MMDET_GREY)


def test_a_missing_weight_is_named(checkpoint, tmp_path):
    path, model = checkpoint
    state = to_mmdet(model)
    del state["panoptic_head.cls_embed.bias"]
    torch.save({"state_dict": state}, path)
    with pytest.raises(UserError, match="'class_predictor.bias' is missing"):
        detector.from_mmdet(path, detector_config(CLASSES))


def test_an_unknown_key_is_named(checkpoint):
    path, model = checkpoint
    torch.save({"state_dict": {**to_mmdet(model), "bbox_head.weight": torch.zeros(1)}}, path)
    with pytest.raises(UserError, match="unexpected key 'bbox_head.weight'"):
        detector.from_mmdet(path, detector_config(CLASSES))


def test_a_folder_without_weights_or_of_another_model_is_refused(tmp_path):
    detector_config(CLASSES).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="weights .* are missing"):
        detector.load_detector(tmp_path)
    with pytest.raises(UserError, match="type 'mask2former'; expected 'clip'"):
        check_model_folder(tmp_path, "clip")
    with pytest.raises(UserError, match="no model there"):
        detector.load_detector(tmp_path / "nothing")
