"""T2I-CompBench++'s 2D-spatial score as a pure function of stored detections (UniDet_eval/2D_spatial_eval.py).

A line is {"prompt", "obj1", "obj2", "locality", "objects": [{"label", "score", "box": [x0, y0, x1, y1]}]}: the two
nouns, the phrase between them (that of the prompt where the line has none), and what a detector found, in the pixels of
the benchmark's frame (shorter side 479, longer at most 480). The original's detector is UniDet RS200 (non-commercial,
detectron2); it can be run elsewhere and stored in this format.
"""

from collections.abc import Iterable
from statistics import fmean
from typing import Annotated

from pydantic import ConfigDict, Field

from progrpo.benchmarks.compbench.chunks import Chunker, left_out
from progrpo.benchmarks.detections import MadeFrom, require_boxes, require_new
from progrpo.errors import UserError
from progrpo.typed import Number


class Settings(MadeFrom):
    """What stands beside a detections file: how the objects were found."""

    model_config = ConfigDict(extra="forbid")

    metric: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=200)]
    chunker: str | None = None
    threshold: Number | None = None


LOCALITIES = (  # in the original's order: the first that occurs in the prompt counts
    "on side of",
    "next to",
    "near",
    "on the left of",
    "on the right of",
    "on the bottom of",
    "on the top of",
    "on top of",
)
SHORT_FORMS = {  # looked for only when none of the original's phrases occurs; none of its prompts has them
    "left of": "on the left of",
    "right of": "on the right of",
    "below": "on the bottom of",
    "above": "on the top of",
}
PERSONS = ("girl", "boy", "man", "woman")
FRAME_SHORT, FRAME_LONG = 479, 480
NEAR_PIXELS, FREE_OVERLAP = 150, 0.1


def find_locality(prompt: str) -> str | None:
    """The locality of a prompt: the first of the original's phrases in it, else a short form of one, else None."""
    for phrase in LOCALITIES:
        if phrase in prompt:
            return phrase
    return next((full for short, full in SHORT_FORMS.items() if short in prompt), None)


def find_objects(prompt: str, chunker: Chunker) -> tuple[str, str]:
    """The first and the last noun of a prompt, persons under that name; UserError when there is no noun."""
    nouns = chunker.nouns(prompt)
    if not nouns:
        raise UserError(f"no noun in the prompt {prompt!r} ({chunker.name}); the spatial score needs two objects")
    return as_label(nouns[0]), as_label(nouns[-1])


def as_label(noun: str) -> str:
    """The detector's label for a noun: "person" for girl, boy, man, woman."""
    return "person" if noun in PERSONS else noun


def frame_scale(width: int, height: int) -> float:
    """Factor from an image's pixels to the benchmark's frame."""
    return min(FRAME_SHORT / min(width, height), FRAME_LONG / max(width, height))


def iou(a: list[float], b: list[float]) -> float:
    """Intersection over union of two boxes [x0, y0, x1, y1]; 0 when both are empty (the original divides by zero)."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union else 0.0


def position_score(locality: str | None, box1: list[float], box2: list[float]) -> float:
    """How well object 1 lies where the locality says, relative to object 2: in [0, 1], boxes in the frame's pixels.

    "on top of" is in the original's list of phrases but in none of its rules: it scores 0, as there.
    """
    dx = (box2[0] + box2[2]) / 2 - (box1[0] + box1[2]) / 2
    dy = (box2[1] + box2[3]) / 2 - (box1[1] + box1[3]) / 2
    if locality in ("next to", "on side of", "near"):
        near = abs(dx) < NEAR_PIXELS or abs(dy) < NEAR_PIXELS
        return 1.0 if near else NEAR_PIXELS / max(abs(dx), abs(dy))
    along_and_across = {
        "on the left of": (dx, dy),
        "on the right of": (-dx, dy),
        "on the top of": (dy, dx),
        "on the bottom of": (-dy, dx),
    }
    if locality not in along_and_across:
        return 0.0
    along, across = along_and_across[locality]
    if along <= 0 or along <= abs(across):
        return 0.0
    shared = iou(box1, box2)
    return 1.0 if shared < FREE_OVERLAP else FREE_OVERLAP / shared


def spatial_score(obj1: str, obj2: str, locality: str | None, objects: list[dict]) -> float:
    """Score of one image: a quarter of each found object's confidence and half of the position score; below 0.5 it is
    0.

    obj1, obj2: nouns of the prompt, of which girl, boy, man and woman are looked for as "person"; labels of found objects
    are taken as they are. The best object of a label counts, the first of equal ones.
    """
    best: dict[str, dict] = {}
    for found in sorted(objects, key=lambda found: -found["score"]):
        best.setdefault(found["label"], found)
    one, two = best.get(as_label(obj1)), best.get(as_label(obj2))
    score = sum(0.25 * found["score"] for found in (one, two) if found)
    if one and two:
        score += position_score(locality, one["box"], two["box"]) / 2
    return score if score >= 0.5 else 0.0


def validate_line(line: dict, where: str) -> None:
    """Check one line; UserError begins with `where` ("file:line")."""
    for key in ("prompt", "obj1", "obj2"):
        if not isinstance(line.get(key), str):
            raise UserError(f'{where}: the line needs the string "{key}"')
    if not isinstance(line.get("image", ""), str | None):
        raise UserError(f'{where}: "image" must be a string')
    if line.get("locality") is not None and line["locality"] not in LOCALITIES:
        raise UserError(f"{where}: unknown locality {line['locality']!r}; known: {', '.join(LOCALITIES)}, or null")
    if not isinstance(line.get("objects"), list):
        raise UserError(f'{where}: the line needs the list "objects"')
    require_boxes(line["objects"], where, "an object", "label")
    for found in line["objects"]:
        if not isinstance(found.get("label"), str):
            raise UserError(f'{where}: the "label" of an object must be a string: {str(found)[:80]}')


def verdicts(lines: Iterable[tuple[str, dict]]) -> list[dict]:
    """[{"prompt", "score"}] for detections lines, each given with its "file:line"; UserError for the first bad
    line."""
    results = []
    seen: dict[str, str] = {}
    for where, line in lines:
        validate_line(line, where)
        if line.get("image") is not None:
            require_new(line["image"], where, seen)
        locality = line.get("locality") or find_locality(line["prompt"])
        score = spatial_score(line["obj1"], line["obj2"], locality, line["objects"])
        results.append({"prompt": line["prompt"], "score": score})
    return results


def summary(results: list[dict], metric: str) -> dict:
    """The category's score (mean over images) under the name of the detector it was measured with."""
    return {
        "metric": metric,
        "category": "spatial",
        "score": fmean(r["score"] for r in results),
        "images": len(results),
        **({"left_out": less} if (less := left_out(r["prompt"] for r in results)) else {}),
    }
