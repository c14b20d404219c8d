"""GenEval's verdicts and scores as pure functions of stored detections (evaluation/evaluate_images.py,
summary_scores.py).

A detections line is {"image", "metadata": GenEval record, "detections": [{"class", "box": [x0, y0, x1, y1],
"score", "color"}]} with every raw detection; thresholds and limits are applied here. Arithmetic is float32
where the original's is.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from progrpo.benchmarks.detections import require_boxes, require_new
from progrpo.benchmarks.geneval.prompts import geneval_records
from progrpo.benchmarks.geneval.vocabulary import COLORS
from progrpo.benchmarks.prompt_sets import Vocabulary, validate_record
from progrpo.errors import UserError

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")


@dataclass(frozen=True)
class Protocol:
    """The evaluator's settings; the defaults are the benchmark's."""

    threshold: float = 0.3
    counting_threshold: float = 0.9
    max_objects: int = 16
    max_overlap: float = 1.0  # 1 switches suppression off
    position_threshold: float = 0.1


@dataclass(frozen=True)
class Detection:
    """A detected object: box (4,) float32 in pixels, and its colour if one was asked for."""

    box: np.ndarray
    color: str | None


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes whose corner pixels belong to them (the "+1" convention)."""

    def area(box: np.ndarray | list) -> float:
        return max(box[2] - box[0] + 1, 0) * max(box[3] - box[1] + 1, 0)

    shared = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    union = area(a) + area(b) - shared
    return shared / union if union else 0.0


def relative_position(a: Iterable[float], b: Iterable[float], threshold: float = 0.1) -> set[str]:
    """Relations of box A to box B, each [x0, y0, x1, y1] with y downwards: a subset of left of, right of,
    above, below.

    The offset of the centres is shrunk by `threshold` times the summed sizes, then divided by the unshrunk
    distance.
    """
    corners = np.array([list(a), list(b)], dtype=np.float32).reshape(2, 2, 2)  # box, corner, (x, y)
    center_a, center_b = corners.mean(axis=1)
    size_a, size_b = np.abs(np.diff(corners, axis=1))[:, 0]
    offset = center_a - center_b
    shrunk = np.maximum(np.abs(offset) - threshold * (size_a + size_b), 0) * np.sign(offset)
    if np.all(np.abs(shrunk) < 1e-3):
        return set()
    dx, dy = shrunk / np.linalg.norm(offset)
    holds = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {relation for relation, true in holds.items() if true}


def select(detections: list[dict], tag: str, protocol: Protocol) -> dict[str, list[Detection]]:
    """The detections that count, by class, best first: above the tag's threshold, at most `max_objects`,
    suppressed if asked."""
    threshold = protocol.counting_threshold if tag == "counting" else protocol.threshold
    by_class: dict[str, list[dict]] = {}
    for detection in detections:
        by_class.setdefault(detection["class"], []).append(detection)
    selected = {}
    for name, group in by_class.items():
        scores = np.array([d["score"] for d in group], dtype=np.float32)
        boxes = np.array([d["box"] for d in group], dtype=np.float32)
        ranked = np.argsort(scores)[::-1]
        order: list[int] = ranked[scores[ranked] > threshold][: protocol.max_objects].tolist()
        kept = []
        while order:
            best = order.pop(0)
            kept.append(Detection(boxes[best], group[best]["color"]))
            if protocol.max_overlap != 1:
                order = [k for k in order if iou(boxes[best], boxes[k]) < protocol.max_overlap]
        if kept:
            selected[name] = kept
    return selected


def _color_failure(clause: dict, found: list[Detection]) -> str | None:
    if any(d.color is None for d in found):
        raise UserError(f"no color is stored for a {clause['class']!r}; run `progrpo geneval detect` with --clip again")
    colors = [d.color for d in found]
    matching = colors.count(clause["color"])
    if matching >= clause["count"]:
        return None
    seen = ", ".join(f"{colors.count(c)} {c}" for c in dict.fromkeys([*COLORS, *colors]) if c in colors)
    wanted = f"expected {clause['color']} {clause['class']}>={clause['count']}"
    return f"{wanted}, found {matching} {clause['color']}; and {seen}"


def _position_failure(clause: dict, found: list[Detection], groups: list, threshold: float) -> str | None:
    relation, target = clause["position"]
    if groups[target] is None:
        return f"no target for {clause['class']} to be {relation}"
    for subject in found:
        for reference in groups[target]:
            relations = relative_position(subject.box, reference.box, threshold)
            if relation not in relations:
                return f"expected {clause['class']} {relation} target, found {' and '.join(sorted(relations))} target"
    return None


def _clause_failure(clause: dict, found: list[Detection], groups: list, threshold: float) -> str | None:
    """Why a clause of `include` does not hold, or None."""
    if len(found) < clause["count"]:
        return f"expected {clause['class']}>={clause['count']}, found {len(found)}"
    failure = _color_failure(clause, found) if "color" in clause else None
    if failure is None and "position" in clause:
        failure = _position_failure(clause, found, groups, threshold)
    return failure


def evaluate(objects: dict[str, list[Detection]], record: dict, protocol: Protocol) -> tuple[bool, str]:
    """(correct, reasons by line): every clause of `include` must hold and none of `exclude` may.

    Count, colour and position look only at the `count` best objects of a class; more objects hurt only
    through `exclude`.
    """
    groups: list[list[Detection] | None] = []
    reasons = []
    for clause in record.get("include", []):
        found = objects.get(clause["class"], [])[: clause["count"]]
        failure = _clause_failure(clause, found, groups, protocol.position_threshold)
        groups.append(found if failure is None else None)
        if failure:
            reasons.append(failure)
    for clause in record.get("exclude", []):
        number = len(objects.get(clause["class"], []))
        if number >= clause["count"]:
            reasons.append(f"expected {clause['class']}<{clause['count']}, found {number}")
    return not reasons, "\n".join(reasons)


def validate_line(line: dict, where: str, vocabulary: Vocabulary) -> None:
    """Check one detections line; UserError begins with `where` ("file:line")."""
    if not isinstance(line.get("image"), str) or not isinstance(line.get("detections"), list):
        raise UserError(f'{where}: the line needs "image", "metadata" and the list "detections"')
    validate_record(line.get("metadata"), where, vocabulary)
    require_boxes(line["detections"], where, "a detection", "class")
    for detection in line["detections"]:
        if detection.get("class") not in vocabulary.classes:
            raise UserError(f"{where}: a detection of the unknown class {detection.get('class')!r}")
        color = detection.setdefault("color", None)
        if color is not None and color not in vocabulary.colors:
            raise UserError(
                f"{where}: a detection of the unknown color {color!r}; known: {', '.join(vocabulary.colors)}"
            )


def verdicts(lines: Iterable[tuple[str, dict]], vocabulary: Vocabulary, protocol: Protocol | None = None) -> list[dict]:
    """[{"image", "correct", "reason"}] for detections lines, each given with its "file:line"; UserError for
    the first bad line."""
    protocol, results = protocol or Protocol(), []
    seen: dict[str, str] = {}
    for where, line in lines:
        validate_line(line, where, vocabulary)
        require_new(line["image"], where, seen)
        record = line["metadata"]
        try:
            correct, reason = evaluate(select(line["detections"], record["tag"], protocol), record, protocol)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        results.append({"image": line["image"], "correct": correct, "reason": reason})
    return results


def other_tags(tags: Iterable[str]) -> str | None:
    """Why the mean over these tags is not GenEval's, which is over six; None where it is."""
    found = set(tags)
    missing, unknown = [tag for tag in TAGS if tag not in found], sorted(found - {*TAGS})
    said = [f"{what} {', '.join(names)}" for what, names in (("without", missing), ("with", unknown)) if names]
    return f"not over GenEval's six tags: {'; '.join(said)}" if said else None


def left_out(records: Iterable[dict]) -> str | None:
    """How many of GenEval's prompts the records are, where they are some of its 553 and no others; None elsewhere."""
    found, whole = {json.dumps(record, sort_keys=True) for record in records}, geneval_records()
    if len(found) >= len(whole) or not found <= {json.dumps(record, sort_keys=True) for record in whole}:
        return None
    return f"over {len(found)} of GenEval's {len(whole)} prompts"


def summary(records: list[dict], results: list[dict]) -> dict:
    """Scores of verdicts: per tag the mean over images, overall the unweighted mean over tags, and shares of
    images and prompts.

    other_tags, left_out: said where the tags are not GenEval's six, or the prompts only some of its own. records: the GenEval
    record of each verdict. A prompt is correct when any of its images is; prompts are told apart by record.
    """
    by_tag: dict[str, list[bool]] = {}
    by_prompt: dict[str, list[bool]] = {}
    for record, result in zip(records, results, strict=True):
        by_tag.setdefault(record["tag"], []).append(result["correct"])
        by_prompt.setdefault(json.dumps(record), []).append(result["correct"])
    tags = {tag: {"score": fmean(c), "correct": sum(c), "images": len(c)} for tag, c in by_tag.items()}
    unlike = {"other_tags": other_tags(tags), "left_out": left_out(records)}
    return {
        "overall": fmean(entry["score"] for entry in tags.values()),
        **{key: said for key, said in unlike.items() if said},
        "tags": tags,
        "images": len(results),
        "prompts": len(by_prompt),
        "correct_images": fmean(result["correct"] for result in results),
        "correct_prompts": fmean(any(c) for c in by_prompt.values()),
    }
