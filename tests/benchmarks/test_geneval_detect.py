"""Detection: preprocessing, mmdet's post-processing, the colour classifier, and the command on a folder of images."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny_models import random_clip

import tiny
from progrpo.benchmarks.geneval import color, detector
from progrpo.benchmarks.geneval.detect import detect_images
from progrpo.cli import main
from progrpo.commands.geneval import _configured_models
from progrpo.errors import UserError
from progrpo.files import write_jsonl
from progrpo.miniature.scenes import render
from progrpo.miniature.text import clip_tokenizer
from progrpo.rehearsal.mmdet import random_detector

CLASSES = ("circle", "square", "triangle")
RECORD = {"tag": "colors", "include": [{"class": "circle", "count": 1, "color": "red"}], "prompt": "a red circle"}
SMALL = detector.TestPipeline(shortest=48, longest=80)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    detector.save_detector(folder / "mask2former", detector.Detector(random_detector(CLASSES), SMALL, CLASSES))
    random_clip().save_pretrained(folder / "clip")
    clip_tokenizer().save_pretrained(folder / "clip")
    (folder / "clip" / "color_names.txt").write_text("red\ngreen\nblue\nyellow\n")
    return folder


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(3):
        Image.fromarray(render(RECORD, rng)).save(folder / f"{k}.png")
    write_jsonl(
        folder / "prompts.jsonl",
        [{"image": f"{k}.png", "prompt": RECORD["prompt"], "metadata": RECORD} for k in range(3)],
    )
    return folder


@pytest.mark.parametrize(
    ("size", "resized"),
    [((512, 512), (800, 800)), ((1024, 512), (1333, 667)), ((480, 640), (800, 1067)), ((3000, 1), (1333, 1))],
)
def test_the_resize_keeps_the_ratio_within_800_and_1333(size, resized):
    assert detector.TestPipeline().resized(*size) == resized


@pytest.mark.parametrize("grey", [None, 0.0, 128.0])
def test_preprocessing_pads_the_right_and_bottom_with_zeros_of_normalised_pixels_or_a_grey(grey):
    image = Image.new("RGB", (30, 20), (255, 0, 0))
    pixels, valid = detector.preprocess([image], replace(SMALL, padding=grey))
    assert valid == (48, 72)
    assert pixels.shape == (1, 3, 64, 96)
    mean, std = torch.tensor(detector.IMAGENET_MEAN), torch.tensor(detector.IMAGENET_STD)
    padded = torch.zeros(3) if grey is None else (grey / 255 - mean) / std
    for part in (pixels[0, :, 48:, :], pixels[0, :, :, 72:]):
        torch.testing.assert_close(part, padded.view(3, 1, 1).expand_as(part))
    expected = (1 - detector.IMAGENET_MEAN[0]) / detector.IMAGENET_STD[0]
    torch.testing.assert_close(pixels[0, 0, :48, :72], torch.full((48, 72), expected))


def test_downscaling_does_not_antialias():
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, ::2] = 255  # every output pixel lies between one white and one black column
    stripes[:, 64:] = 255
    pixels, _ = detector.preprocess([Image.fromarray(stripes)], detector.TestPipeline(32, 64, 32, (0,) * 3, (1,) * 3))
    assert pixels[0, 0, 0, 22:].eq(1).all()  # a filter would carry the black columns further to the right


def test_instances_of_a_clean_mask_have_its_tight_box_and_its_score():
    logits = torch.full((2, 8, 8), -20.0)
    logits[0, 2:4, 1:6] = 20.0
    classes = torch.tensor([[0.0, 4.0, 0.0], [0.0, 0.0, 9.0]])  # query 0: class 1; query 1: no object
    found = detector.instances(classes, logits, (8, 8), (8, 8), (8, 8), top=1)
    assert found.labels.tolist() == [1]
    assert found.boxes.tolist() == [[1, 2, 6, 4]]
    assert found.masks.sum() == 10
    torch.testing.assert_close(found.scores, classes.softmax(-1)[:1, 1], rtol=1e-5, atol=1e-5)


def test_instances_crop_the_padding_before_going_to_the_original_size():
    logits = torch.full((1, 8, 8), -20.0)
    logits[0, :, :4] = 20.0  # the left half of the padded input is the whole valid width
    found = detector.instances(torch.tensor([[5.0, 0.0]]), logits, (32, 32), (32, 14), (64, 28))
    assert found.boxes.tolist() == [[0, 0, 28, 64]]


def test_an_empty_mask_scores_zero():
    found = detector.instances(torch.tensor([[5.0, 0.0]]), torch.full((1, 4, 4), -1.0), (4, 4), (4, 4), (4, 4))
    assert (found.scores.item(), found.boxes.tolist()) == (0, [[0, 0, 0, 0]])


def test_post_processing_equals_a_literal_version_of_mmdets():
    torch.manual_seed(3)
    classes, masks = torch.randn(6, 4), torch.randn(6, 12, 16)
    found = detector.instances(classes, masks, (48, 64), (40, 60), (20, 30), top=10)
    up = torch.nn.functional.interpolate(masks[None], size=(48, 64), mode="bilinear", align_corners=False)[0]
    up = torch.nn.functional.interpolate(up[None, :, :40, :60], size=(20, 30), mode="bilinear", align_corners=False)[0]
    scores = classes.softmax(-1)[:, :-1].flatten()
    order = scores.topk(10, sorted=False).indices
    for k, pair in enumerate(order.tolist()):
        query, label = divmod(pair, 3)
        binary = (up[query] > 0).float()
        mean = (up[query].sigmoid() * binary).sum() / (binary.sum() + 1e-6)
        assert found.labels[k] == label
        torch.testing.assert_close(found.scores[k], scores[pair] * mean)
        assert torch.equal(found.masks[k], binary.bool())


def test_batches_and_single_images_give_the_same_detections(models, images):
    detect = detector.load_detector(models / "mask2former")
    colors = color.load_color_classifier(models / "clip")
    single, batched = (detect_images(images, detect, colors, size) for size in (1, 3))
    for pair in zip(single, batched, strict=True):
        # By class and score: scores of an untrained network are so nearly equal that rounding may order them otherwise.
        a, b = (sorted((d["class"], d["score"]) for d in line["detections"]) for line in pair)
        assert [name for name, _ in a] == [name for name, _ in b]
        np.testing.assert_allclose([score for _, score in a], [score for _, score in b], rtol=1e-2, atol=1e-6)


def test_the_crop_shows_the_object_on_grey():
    image = Image.new("RGB", (8, 8), (255, 0, 0))
    mask = np.zeros((8, 8), bool)
    mask[2:4, 2:6] = True
    crop = np.asarray(color.object_crop(image, mask, [2.0, 2.0, 6.0, 5.0]))
    assert crop.shape == (3, 4, 3)
    assert (crop[:2] == (255, 0, 0)).all()
    assert (crop[2] == 153).all()


def test_the_classifiers_pixels_equal_openclips_transform():
    import open_clip

    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 61, 3), np.uint8))
    transform = open_clip.image_transform(32, is_train=False)
    classifier = color.ColorClassifier(random_clip(), clip_tokenizer(), ("red", "blue"))
    torch.testing.assert_close(classifier.pixels(image)[0], transform(image), atol=1e-6, rtol=1e-6)


def test_the_color_is_the_argmax_over_the_mean_of_the_normalised_templates():
    model, tokenizer, names = random_clip(), clip_tokenizer(), ("red", "blue", "green")
    classifier = color.ColorClassifier(model, tokenizer, names)
    crops = [Image.new("RGB", (20, 30), c) for c in ("red", "blue", "green", "white")]
    directions = []
    for name in names:
        texts = [f"a photo of a {name} square", f"a photo of a {name}-colored square", f"a photo of a {name} object"]
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            embedded = model.get_text_features(**tokens).pooler_output
        mean = (embedded / embedded.norm(dim=-1, keepdim=True)).mean(0)
        directions.append(mean / mean.norm())
    with torch.no_grad():
        seen = model.get_image_features(torch.cat([classifier.pixels(c) for c in crops])).pooler_output
    expected = [names[k] for k in (seen @ torch.stack(directions).T).argmax(-1)]
    assert classifier.classify(crops, "square") == expected


def test_a_class_longer_than_the_classifiers_text_is_cut():
    classifier = color.ColorClassifier(random_clip(), clip_tokenizer(), ("red", "blue"))
    (found,) = classifier.classify([Image.new("RGB", (20, 30), "red")], "cup" * 60)
    assert found in ("red", "blue")


def test_plain_gelu_is_refused():
    with pytest.raises(UserError, match="activation is 'gelu'"):
        color.ColorClassifier(random_clip("gelu"), clip_tokenizer(), ("red",))


def run(models, images, out):
    paths = ["--model", str(models / "mask2former"), "--clip", str(models / "clip")]
    return main(["geneval", "detect", "--images", str(images), "--out", str(out), *paths])


def test_the_command_stores_raw_detections_with_the_asked_colors(models, images, tmp_path):
    out = tmp_path / "detections.jsonl"
    assert run(models, images, out) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["image"] for line in lines] == ["0.png", "1.png", "2.png"]
    assert all(line["metadata"] == RECORD for line in lines)
    for line in lines:
        assert len(line["detections"]) == 36  # 12 queries x 3 classes: nothing is thresholded
        for d in line["detections"]:
            assert set(d) == {"class", "box", "score", "color"}
            visible = d["box"][2] > d["box"][0]
            assert (d["color"] is not None) == (d["class"] == "circle" and visible)
    assert main(["geneval", "verdict", "--detections", str(out), "--out", str(tmp_path / "v.jsonl")]) == 0
    assert len((tmp_path / "v.jsonl").read_text().splitlines()) == 3


def write_tier(path, detector_folder, clip):
    path.parent.mkdir(exist_ok=True)
    tier = yaml.safe_load(tiny.write_config(path, path.parent).read_text())
    tier["benchmarks"] = {"geneval": {"detector": str(detector_folder), "color_classifier": str(clip)}}
    path.write_text(yaml.safe_dump(tier))


def test_without_model_the_tiers_models_that_know_the_records_are_used(models, images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    animals = ("cat", "dog", "horse")
    detector.save_detector(tmp_path / "animals", detector.Detector(random_detector(animals), SMALL, animals))
    write_tier(tmp_path / "config" / "a.yaml", tmp_path / "animals", models / "clip")
    write_tier(tmp_path / "config" / "b.yaml", tmp_path / "not-fetched", models / "clip")
    command = ["geneval", "detect", "--images", str(images), "--out", "detections.jsonl"]
    assert main(command) == 2
    assert "circle" in capsys.readouterr().err
    write_tier(tmp_path / "config" / "c.yaml", models / "mask2former", models / "clip")
    assert main(command) == 0
    assert f"detector {models / 'mask2former'}" in capsys.readouterr().out
    assert run(models, images, tmp_path / "named.jsonl") == 0
    assert (tmp_path / "detections.jsonl").read_bytes() == (tmp_path / "named.jsonl").read_bytes()
    for path in (tmp_path / "config").glob("*.yaml"):
        path.unlink()
    assert main(command) == 2
    assert "progrpo fetch mask2former" in capsys.readouterr().err


def test_genevals_own_folder_layout_is_read(models, images, tmp_path):
    for k in range(2):
        folder = tmp_path / "geneval" / f"{k:05d}"
        (folder / "samples").mkdir(parents=True)
        (folder / "metadata.jsonl").write_text(json.dumps(RECORD))
        Image.open(images / "0.png").save(folder / "samples" / "0000.png")
        Image.open(images / "0.png").save(folder / "samples" / "grid.png")
    out = tmp_path / "detections.jsonl"
    assert run(models, tmp_path / "geneval", out) == 0
    names = [json.loads(line)["image"] for line in out.read_text().splitlines()]
    assert names == ["00000/samples/0000.png", "00001/samples/0000.png"]


def broken_image(images):
    (images / "1.png").write_bytes((images / "1.png").read_bytes()[:40])


def empty_folder(images):
    for path in images.iterdir():
        path.unlink()


def lost_image(images):
    (images / "2.png").unlink()


def unknown_color(images):
    text = (images / "prompts.jsonl").read_text().split("\n")
    text[1] = text[1].replace('"color": "red"', '"color": "mauve"')
    (images / "prompts.jsonl").write_text("\n".join(text))


def truncated_line(images):
    (images / "prompts.jsonl").write_text((images / "prompts.jsonl").read_text()[:-20])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (broken_image, "1.png: the image does not open"),
        (empty_folder, "images: no images"),
        (lost_image, "1 of 3 images do not exist, the first is 2.png"),
        (unknown_color, "prompts.jsonl:2: unknown color 'mauve'"),
        (truncated_line, "prompts.jsonl:3: not a JSON object"),
    ],
)
def test_bad_input_is_one_line_and_leaves_earlier_results(models, images, tmp_path, capsys, damage, message):
    damage(images)
    out = tmp_path / "detections.jsonl"
    out.write_text("earlier results\n")
    assert run(models, images, out) == 2
    error = capsys.readouterr().err.strip().split("\n")[-1]
    assert message in error
    assert out.read_text() == "earlier results\n"


def test_colors_without_a_classifier_are_refused(models, images):
    with pytest.raises(UserError, match="--clip"):
        detect_images(images, detector.load_detector(models / "mask2former"), None)


def test_a_wrong_configuration_of_another_tier_is_passed_over(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "mine.yaml").write_text("scorers: {redness: {kind: 'no_such_module:Redness'}}\n")
    assert _configured_models() == []
    assert "config/mine.yaml: passed over" in capsys.readouterr().err
