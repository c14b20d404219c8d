"""Detections of a folder of images: run once, stored as JSON lines, judged later as often as one likes."""

from __future__ import annotations

import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from PIL import Image
from pydantic import Field

if typing.TYPE_CHECKING:  # who only judges stored detections imports no torch
    from progrpo.benchmarks.geneval.color import ColorClassifier
    from progrpo.benchmarks.geneval.detector import Detector, Instances
from progrpo.benchmarks.detections import MadeFrom, read_settings
from progrpo.benchmarks.geneval.vocabulary import COLORS
from progrpo.benchmarks.images import batches, list_images, require_records
from progrpo.benchmarks.prompt_sets import Vocabulary
from progrpo.errors import UserError

Words = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class Settings(MadeFrom):
    """What stands beside a detections file."""

    classes: Words
    colors: Words


def asked_colors(record: dict | None) -> set[str]:
    """Classes whose colour a record may ask for."""
    return {clause["class"] for clause in record.get("include", []) if "color" in clause} if record else set()


def describe(
    image: Image.Image, found: Instances, record: dict | None, classes: tuple[str, ...], colors: ColorClassifier | None
) -> list[dict]:
    """The stored form of an image's instances: {"class", "box", "score", "color"}.

    The colour of every instance with a non-empty mask is stored when its class has a clause with a colour in
    the record; else null.
    """
    from progrpo.benchmarks.geneval.color import object_crop

    names = [classes[label] for label in found.labels.tolist()]
    boxes = found.boxes.tolist()
    seen: list[str | None] = [None] * len(names)
    for name in sorted(asked_colors(record)):
        if colors is None:
            break
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
    allow_partial: bool = False,
) -> list[dict]:
    """Detections lines {"image", "metadata", "detections"} of every image of a folder, with all raw
    detections.

    progress(done, total) is called after each batch. UserError: an empty folder, a partial one unless allow_partial, an
    image that does not open, a record with a class or colour that the models do not know, a record that asks for a colour
    without a classifier.
    """
    images = list_images(folder, allow_partial)
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


def how_made(known: Vocabulary, pipeline: dict, partial: str | None = None) -> dict:
    """The vocabulary and the test pipeline that detections were made with, and what of the folder of images is not in them."""
    settings = {"classes": known.classes, "colors": known.colors, "pipeline": pipeline}
    return settings | ({"partial": partial} if partial else {})


def stored_settings(detections: Path) -> tuple[Vocabulary | None, str | None]:
    """The vocabulary that is stored beside a detections file, and what was not in the images; None each where nothing is
    stored."""
    settings = read_settings(Settings, detections)
    if not settings:
        return None, None
    return Vocabulary(tuple(settings["classes"]), tuple(settings["colors"])), settings.get("partial")
