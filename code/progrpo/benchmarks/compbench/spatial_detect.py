"""Detections for the 2D-spatial score: OWLv2 asked for the two nouns, or a Mask2Former that knows them.

Neither is the benchmark's UniDet: scores mean something else, so the metric carries the detector's name
(`spatial_owlv2`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from transformers import Owlv2ForObjectDetection, Owlv2ImageProcessorPil, Owlv2Processor

from progrpo.benchmarks.compbench.chunks import Chunker
from progrpo.benchmarks.compbench.spatial import LOCALITIES, find_locality, find_objects, frame_scale
from progrpo.benchmarks.geneval.detector import Detector, load_detector
from progrpo.benchmarks.images import list_images, open_image
from progrpo.errors import UserError
from progrpo.files import read_object
from progrpo.model_files import check_model_folder, open_network, open_tokenizer, reading_model
from progrpo.rewards.base import freeze

THRESHOLD = 0.1  # least score of an object, of OWLv2's own scale


class SpatialDetector(Protocol):
    """Anything that finds named objects; `name` becomes part of the metric's name."""

    name: str

    def find(self, image: Image.Image, labels: list[str]) -> list[dict]:
        """Objects {"label", "score", "box": [x0, y0, x1, y1] in the image's pixels} with one of the labels, in any
        order."""
        ...


class Owlv2Detector:
    """OWLv2 (transformers): open vocabulary, one query "a photo of a <noun>" per noun."""

    name = "owlv2"

    def __init__(self, model: Owlv2ForObjectDetection, processor: Owlv2Processor):
        self.model, self.processor = model, processor
        self.most_tokens = model.config.text_config.max_position_embeddings

    @torch.no_grad()
    def find(self, image: Image.Image, labels: list[str]) -> list[dict]:
        """Every box whose best query is one of the labels, with that query's sigmoid score; of a label that is longer than
        the model's text (16 tokens as released), its beginning is asked for."""
        queries = [[f"a photo of a {label}" for label in labels]]
        fitting = {"truncation": True, "max_length": self.most_tokens}
        inputs = self.processor(text=queries, images=image, return_tensors="pt", **fitting).to(self.model.device)
        output = self.model(**inputs)
        side = max(image.size)  # OWLv2 pads to a square at the right and bottom: boxes are relative to its side
        (found,) = self.processor.post_process_grounded_object_detection(
            output, threshold=0.0, target_sizes=[(side, side)]
        )
        return [
            {"label": labels[k], "score": score, "box": box}
            for k, score, box in zip(
                found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True
            )
        ]


class Mask2FormerDetector:
    """A closed-vocabulary detector: finds the labels that are among its classes."""

    name = "mask2former"

    def __init__(self, detector: Detector):
        self.detector = detector

    def find(self, image: Image.Image, labels: list[str]) -> list[dict]:
        """The detector's instances of the labels."""
        (found,) = self.detector.detect([image])
        names = [self.detector.classes[label] for label in found.labels.tolist()]
        objects = zip(names, found.scores.tolist(), found.boxes.tolist(), strict=True)
        return [{"label": n, "score": s, "box": b} for n, s, b in objects if n in labels and b[2] > b[0]]


def load_spatial_detector(folder: Path | str, device: torch.device | str = "cpu") -> SpatialDetector:
    """The detector of a model folder, by the model type in its config.json: owlv2 or mask2former."""
    folder = Path(folder)
    kind = read_object(folder / "config.json").get("model_type") if (folder / "config.json").is_file() else None
    if kind == "mask2former":
        return Mask2FormerDetector(load_detector(folder, device))
    if kind not in (None, "owlv2"):
        raise UserError(f"{folder}: holds a model of type {kind!r}; the spatial score takes owlv2 or mask2former")
    check_model_folder(folder, "owlv2")
    model = open_network(Owlv2ForObjectDetection, folder)
    tokenizer = open_tokenizer(folder, model)
    with reading_model(folder):
        processor = Owlv2Processor(Owlv2ImageProcessorPil.from_pretrained(folder, local_files_only=True), tokenizer)
    return Owlv2Detector(freeze(model, torch.device(device)), processor)


def how_found(detector: SpatialDetector, chunker: Chunker, threshold: float, partial: str | None) -> dict:
    """`spatial.Settings` of detections: metric, chunker, threshold, and what of the folder of images is not in them."""
    settings = {"metric": f"spatial_{detector.name}", "chunker": chunker.name, "threshold": threshold}
    return settings | ({"partial": partial} if partial else {})


def detect_spatial(
    folder: Path | str,
    detector: SpatialDetector,
    chunker: Chunker,
    threshold: float = THRESHOLD,
    progress: Callable[[int, int], None] = lambda done, total: None,
    allow_partial: bool = False,
) -> list[dict]:
    """Lines {"prompt", "obj1", "obj2", "locality", "objects"} of the images of a folder, with "image" for reference.

    Objects score at least `threshold`, are sorted by falling score, and lie in the benchmark's 480-pixel frame.
    UserError: an empty folder, a partial one unless allow_partial, an image that does not open, a prompt without a noun or
    without a locality, which the rule could only judge wrong (non-spatial and 3D prompts have other judges).
    """
    images, lines = list_images(folder, allow_partial), []
    for item in images:
        image = open_image(item.path)
        obj1, obj2 = find_objects(item.prompt, chunker)
        if (locality := find_locality(item.prompt)) is None:
            raise UserError(
                f"{item.source}: no locality in {item.prompt!r}; the 2D-spatial score knows {', '.join(LOCALITIES)}"
            )
        scale = frame_scale(*image.size)
        objects = [
            {**found, "box": [scale * x for x in found["box"]]}
            for found in detector.find(image, list(dict.fromkeys((obj1, obj2))))
            if found["score"] >= threshold
        ]
        objects.sort(key=lambda found: -found["score"])
        line = {"prompt": item.prompt, "obj1": obj1, "obj2": obj2, "locality": locality}
        lines.append({"image": item.name, **line, "objects": objects})
        progress(len(lines), len(images))
    return lines
