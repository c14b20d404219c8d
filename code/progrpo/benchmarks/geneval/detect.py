"""Detections of a folder of images: run once, stored as JSON lines, judged later as often as one likes."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

if typing.TYPE_CHECKING:  # who only judges stored detections imports no torch
    from progrpo.benchmarks.geneval.color import ColorClassifier
    from progrpo.benchmarks.geneval.detector import Detector, Instances
from progrpo.benchmarks.geneval.vocabulary import COLORS
from progrpo.benchmarks.images import BenchmarkImage, list_images, open_image, require_records
from progrpo.benchmarks.prompt_sets import Vocabulary
from progrpo.errors import UserError
from progrpo.files import read_json, write_json, write_jsonl


def batches(images: list[BenchmarkImage], size: int) -> Iterator[list[tuple[BenchmarkImage, Image.Image]]]:
    """Consecutive images of one size, opened, at most `size` at a time; UserError names an image that does
    not open."""
    batch: list[tuple[BenchmarkImage, Image.Image]] = []
    for item in images:
        image = open_image(item.path)
        if batch and (len(batch) == size or batch[0][1].size != image.size):
            yield batch
            batch = []
        batch.append((item, image))
    if batch:
        yield batch


def asked_colors(record: dict) -> set[str]:
    """Classes whose colour a record may ask for."""
    return {clause["class"] for clause in record["include"] if "color" in clause}


def describe(
    image: Image.Image, found: Instances, record: dict, classes: tuple[str, ...], colors: ColorClassifier | None
) -> list[dict]:
    """The stored form of an image's instances: {"class", "box", "score", "color"}.

    The colour of every instance with a non-empty mask is stored when its class has a clause with a colour in
    the record; else null.
    """
    from progrpo.benchmarks.geneval.color import object_crop

    names = [classes[label] for label in found.labels.tolist()]
    boxes, seen = found.boxes.tolist(), [None] * len(names)
    for name in sorted(asked_colors(record)):
        chosen = [k for k, other in enumerate(names) if other == name and boxes[k][2] > boxes[k][0]]
        crops = [object_crop(image, found.masks[k].numpy(), boxes[k]) for k in chosen]
        for k, color in zip(chosen, colors.classify(crops, name), strict=True):
            seen[k] = color
    scores = found.scores.tolist()
    return [
        {"class": name, "box": box, "score": score, "color": color}
        for name, box, score, color in zip(names, boxes, scores, seen, strict=True)
    ]


def detect_images(
    folder: Path | str,
    detector: Detector,
    colors: ColorClassifier | None,
    batch_size: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict]:
    """Detections lines {"image", "metadata", "detections"} of every image of a folder, with all raw
    detections.

    progress(done, total) is called after each batch. UserError: an empty folder, an image that does not open,
    a record with a class or colour that the models do not know, a record that asks for a colour without a
    classifier.
    """
    images = list_images(folder)
    require_records(images, vocabulary(detector, colors))
    if colors is None and any(asked_colors(item.metadata) for item in images):
        raise UserError(f"{folder}: the records ask for colours; give the colour classifier (--clip)")
    lines = []
    for batch in batches(images, batch_size):
        for (item, image), found in zip(batch, detector.detect([image for _, image in batch]), strict=True):
            detections = describe(image, found, item.metadata, detector.classes, colors)
            lines.append({"image": item.name, "metadata": item.metadata, "detections": detections})
        progress(len(lines), len(images))
    return lines


def vocabulary(detector: Detector, colors: ColorClassifier | None) -> Vocabulary:
    """The classes and colours that a detector and a colour classifier know; without a classifier, those of
    GenEval."""
    return Vocabulary(detector.classes, colors.colors if colors else COLORS)


def settings_path(out: Path) -> Path:
    """Where the settings of a detections file are kept: `detections.jsonl` -> `detections.settings.json`."""
    return out.with_suffix(".settings.json")


def write_detections(out: Path, lines: list[dict], known: Vocabulary, pipeline: dict) -> None:
    """Write detections lines, and beside them the vocabulary and the test pipeline they were made with, each
    atomically."""
    write_json(settings_path(out), {"classes": known.classes, "colors": known.colors, "pipeline": pipeline})
    write_jsonl(out, lines)


def stored_vocabulary(detections: Path) -> Vocabulary | None:
    """The vocabulary that `write_detections` stored beside a detections file, or None."""
    path = settings_path(detections)
    if not path.is_file():
        return None
    settings = read_json(path)
    if not isinstance(settings, dict) or not {"classes", "colors"} <= set(settings):
        raise UserError(f'{path}: needs "classes" and "colors"; delete it or run the detection again')
    return Vocabulary(tuple(settings["classes"]), tuple(settings["colors"]))
