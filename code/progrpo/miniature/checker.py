"""Exact checker of miniature images: every grid cell against every template the renderer can draw there."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from progrpo.miniature.prompts import CLASSES, COLORS, PLACES, TEXTURES
from progrpo.miniature.scenes import CELL, GRID, JITTERS, SIZE, SceneObject, draw

KINDS = tuple((name, color, texture) for name in CLASSES for color in COLORS for texture in TEXTURES)
EMPTY = len(KINDS)  # index of "nothing here" behind the 144 kinds of objects
# mean squared errors per pixel: what lowers a kind's odds e-fold (the nearest two kinds are 0.007 apart), and above which
# the best template is no match (calibrated on autoencoder round trips)
TEMPERATURE, UNRECOGNISED = 0.0015, 0.03


@functools.cache
def _templates() -> tuple[Tensor, Tensor]:
    """(1297, 192) template cells in [0, 1] and the (1297,) kind of each; the last is the empty cell."""
    cells, kinds = [], []
    for kind, (name, color, texture) in enumerate(KINDS):
        for jitter in JITTERS:
            image = draw([SceneObject(name, color, texture, (0, 0), jitter)])
            cells.append(image[:CELL, :CELL].transpose(2, 0, 1).reshape(-1) / 255)
            kinds.append(kind)
    cells.append(np.ones(3 * CELL * CELL))
    kinds.append(EMPTY)
    return torch.tensor(np.stack(cells), dtype=torch.float32), torch.tensor(kinds)


@dataclass(frozen=True)
class Reading:
    """What the checker sees in a batch of B images.

    probability: (B, 9, 145) of each kind (the last is empty) in each cell; best: (B, 9) index of the nearest template;
    error: (B, 9) its mean squared error per pixel.
    """

    probability: Tensor
    best: Tensor
    error: Tensor


def read_cells(images: Tensor) -> Reading:
    """Compare the nine cells of images (B, 3, 24, 24) in [0, 1] with all templates."""
    if images.shape[1:] != (3, SIZE, SIZE):
        raise ValueError(f"the checker reads images (B, 3, {SIZE}, {SIZE}), not {tuple(images.shape)}")
    templates, kinds = (t.to(images.device) for t in _templates())
    batch = len(images)
    cells = (
        images.float()
        .reshape(batch, 3, GRID, CELL, GRID, CELL)
        .permute(0, 2, 4, 1, 3, 5)
        .reshape(batch, GRID * GRID, -1)
    )
    distance = torch.cdist(cells.flatten(0, 1), templates).view(batch, GRID * GRID, -1)
    error = distance.square() / templates.shape[1]  # (B, 9, 1297)
    odds = torch.exp(-(error - error.amin(-1, keepdim=True)) / TEMPERATURE)
    one_hot = torch.nn.functional.one_hot(kinds, EMPTY + 1).to(odds)
    per_kind = odds @ (one_hot / one_hot.sum(0))
    nearest = error.min(-1)
    return Reading(per_kind / per_kind.sum(-1, keepdim=True), nearest.indices, nearest.values)


def strict(images: Tensor, records: list[dict]) -> Tensor:
    """(B,) float32 in {0, 1}: the image shows exactly what the record asks for, every object recognisable, and nothing else."""
    reading = read_cells(images)
    best, recognised = reading.best.cpu(), (reading.error <= UNRECOGNISED).all(1).cpu()
    verdicts = [
        bool(recognised[k]) and satisfies(_objects(best[k].tolist()), record) for k, record in enumerate(records)
    ]
    return torch.tensor(verdicts, dtype=torch.float32, device=images.device)


def _objects(templates: Sequence[int]) -> list[SceneObject]:
    """The objects of a scene of nine template indices: kind x jitter, the last index for an empty cell."""
    objects = []
    for cell, template in enumerate(templates):
        kind, jitter = divmod(template, len(JITTERS))
        if kind < EMPTY:
            objects.append(SceneObject(*KINDS[kind], divmod(cell, GRID), JITTERS[jitter]))
    return objects


def _fits(clause: dict, kind: tuple[str, str, str]) -> bool:
    name, color, texture = kind
    return clause["class"] == name and clause.get("color", color) == color and clause.get("texture", texture) == texture


def _in_place(clause: dict, cell: tuple[int, int]) -> bool:
    return "place" not in clause or cell in PLACES[clause["place"]]


def satisfies(objects: list[SceneObject], record: dict) -> bool:
    """Whether a scene is exactly what a record asks for: the strict verdict on the scene's clean image."""
    groups = []
    for clause in record["include"]:
        found = [o for o in objects if _fits(clause, (o.name, o.color, o.texture)) and _in_place(clause, o.cell)]
        if len(found) != clause["count"]:
            return False
        groups.append(found)
    if len(objects) != sum(clause["count"] for clause in record["include"]):
        return False
    return all(
        _related(clause["position"][0], subject.box, reference.box)
        for clause, group in zip(record["include"], groups, strict=True)
        if "position" in clause
        for subject in group
        for reference in groups[clause["position"][1]]
    )


def _related(relation: str, subject: tuple, reference: tuple) -> bool:
    """GenEval's rule for boxes of one size: the shrunk offset of the centres, over its length, beyond one half."""
    offset = np.array([subject[0] - reference[0], subject[1] - reference[1]], float)
    slack = 0.1 * ((subject[2] - subject[0]) + (reference[2] - reference[0]))
    shrunk = np.maximum(np.abs(offset) - slack, 0) * np.sign(offset)
    if np.all(np.abs(shrunk) < 1e-3):
        return False
    across, down = shrunk / np.linalg.norm(offset)
    return {"left of": across < -0.5, "right of": across > 0.5, "above": down < -0.5, "below": down > 0.5}[relation]


def soft(images: Tensor, records: list[dict]) -> Tensor:
    """(B,) float32 in [0, 1], continuous in the pixels: the mean of one term per clause, one per relation and one for extra objects.

    A clause's term is 1 - |n - n*| / n* with n the expected number of its objects in its place (at least 0); a
    relation's is the probability that two cells hold subject and reference as asked; the last compares the expected
    number of all objects with the number asked for.
    Graded like the training reward of Flow-GRPO's GenEval server (1 - |n - n*| / n* per object).
    """
    probability = read_cells(images).probability
    return torch.stack([_soft_score(p, record) for p, record in zip(probability, records, strict=True)])


def _soft_score(probability: Tensor, record: dict) -> Tensor:
    """Score () of one image from its (9, 145) cell probabilities."""
    groups, terms = [], []
    for clause in record["include"]:
        per_cell = (probability * _wanted(clause).to(probability)).sum(-1)  # (9,)
        groups.append(per_cell)
        terms.append((1 - (per_cell.sum() - clause["count"]).abs() / clause["count"]).clamp(min=0))
    for clause, subject in zip(record["include"], groups, strict=True):
        if "position" in clause:
            relation, target = clause["position"]
            allowed = _cell_relations(relation).to(subject)
            terms.append((subject @ allowed @ groups[target]).clamp(max=1))
    wanted = sum(clause["count"] for clause in record["include"])
    found = (1 - probability[:, EMPTY]).sum()
    terms.append((1 - (found - wanted).abs() / wanted).clamp(min=0))
    return torch.stack(terms).mean()


def _wanted(clause: dict) -> Tensor:
    """(9, 145) 1 where a kind in a cell is what a clause asks for."""
    kinds = torch.tensor([float(_fits(clause, kind)) for kind in KINDS] + [0.0])
    cells = torch.tensor([float(_in_place(clause, divmod(k, GRID))) for k in range(GRID * GRID)])
    return cells[:, None] * kinds


@functools.cache
def _cell_relations(relation: str) -> Tensor:
    """(9, 9) 1 where an object centred in the row's cell is in that relation to one in the column's cell."""
    boxes = [SceneObject("square", "red", "solid", divmod(k, GRID), (0, 0)).box for k in range(GRID * GRID)]
    return torch.tensor([[float(_related(relation, a, b)) for b in boxes] for a in boxes])
