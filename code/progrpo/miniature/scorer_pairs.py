"""Ladders of scenes for a prompt, from faithful to wrong: what the miniature scorers learn from.

An object never leaves its grid cell, so a scene is nine template indices and a batch of scenes is drawn by one
gather.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from progrpo.miniature import checker
from progrpo.miniature.checker import EMPTY, KINDS
from progrpo.miniature.prompts import CLASSES, COLORS, PLACES, TEXTURES
from progrpo.miniature.scenes import CELL, GRID, JITTERS, SIZE, SceneObject, draw, sample_objects

Scene = list[SceneObject]
RUNGS = 4  # scenes of a ladder: faithful, one edit, another single edit, two edits
DEFECTS = (0, 1, 1, 2)  # edits of each rung
CELLS = GRID * GRID
BLANK = len(KINDS) * len(JITTERS)  # template index of the empty cell


@functools.cache
def cell_templates() -> Tensor:
    """(1297, 3, 8, 8) every cell that the renderer can draw, in [0, 1]: kind x jitter, then the empty cell."""
    scenes = [[SceneObject(*kind, (0, 0), jitter)] for kind in KINDS for jitter in JITTERS] + [[]]
    cells = np.stack([draw(scene)[:CELL, :CELL] for scene in scenes])
    return torch.from_numpy(cells).permute(0, 3, 1, 2).float() / 255


def draw_batch(scenes: Tensor) -> Tensor:
    """Images (B, 3, 24, 24) float32 in [0, 1] of scenes (B, 9) of template indices; equals `scenes.draw`."""
    cells = cell_templates()[scenes].view(-1, GRID, GRID, 3, CELL, CELL)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, SIZE, SIZE)


def scene_kinds(scenes: Tensor) -> Tensor:
    """(B, 9) kind of each cell (`checker.EMPTY` where nothing is) of scenes (B, 9)."""
    return torch.where(scenes == BLANK, EMPTY, scenes // len(JITTERS))


def encode(scene: Scene) -> list[int]:
    """Nine template indices of a scene."""
    cells = [BLANK] * CELLS
    for item in scene:
        kind = KINDS.index((item.name, item.color, item.texture))
        cells[item.cell[0] * GRID + item.cell[1]] = kind * len(JITTERS) + JITTERS.index(item.jitter)
    return cells


def _other(value: str, values: tuple[str, ...], rng: np.random.Generator) -> str:
    return str(rng.choice([v for v in values if v != value]))


def _change(scene: Scene, k: int, **attributes) -> Scene:
    return [*scene[:k], replace(scene[k], **attributes), *scene[k + 1 :]]


def _clauses(record: dict) -> list[dict]:
    """The clause of each object of `sample_objects(record)`."""
    return [clause for clause in record["include"] for _ in range(clause["count"])]


def _wrong_color(record: dict, scene: Scene, rng: np.random.Generator) -> Scene | None:
    named = [k for k, clause in enumerate(_clauses(record)) if "color" in clause and k < len(scene)]
    if not named:
        return None
    k = int(rng.choice(named))
    return _change(scene, k, color=_other(scene[k].color, COLORS, rng))


def _wrong_class(record: dict, scene: Scene, rng: np.random.Generator) -> Scene | None:
    if not scene:
        return None
    k = int(rng.integers(len(scene)))
    return _change(scene, k, name=_other(scene[k].name, CLASSES, rng))


def _wrong_texture(record: dict, scene: Scene, rng: np.random.Generator) -> Scene | None:
    named = [k for k, clause in enumerate(_clauses(record)) if "texture" in clause and k < len(scene)]
    if not named:
        return None
    k = int(rng.choice(named))
    return _change(scene, k, texture=_other(scene[k].texture, TEXTURES, rng))


def _wrong_place(record: dict, scene: Scene, rng: np.random.Generator) -> Scene | None:
    if "place" not in record["include"][0] or len(scene) != 1:
        return None
    outside = [cell for cell in _free_cells([]) if cell not in PLACES[record["include"][0]["place"]]]
    return _change(scene, 0, cell=outside[rng.integers(len(outside))])


def _swapped_looks(record: dict, scene: Scene, rng: np.random.Generator) -> Scene | None:
    """Two objects exchange colour or texture, where the prompt names it of one of them."""
    if len(record["include"]) < 2 or len(scene) < 2:
        return None
    first, second, *rest = scene
    named = [key for key in ("color", "texture") if any(key in clause for clause in record["include"])]
    if not named or first.name == second.name:
        return None
    key = named[rng.integers(len(named))]
    one, two = getattr(first, key), getattr(second, key)
    return None if one == two else [replace(first, **{key: two}), replace(second, **{key: one}), *rest]


def _wrong_relation(record: dict, scene: Scene, rng: np.random.Generator) -> Scene | None:
    if record["tag"] != "position" or len(scene) < 2:
        return None
    first, second, *rest = scene
    if rng.random() < 0.5:
        return [replace(first, cell=second.cell), replace(second, cell=first.cell), *rest]
    cells = _free_cells(scene[:1])
    return [first, replace(second, cell=cells[rng.integers(len(cells))]), *rest]


def _missing(record: dict, scene: Scene, rng: np.random.Generator) -> Scene | None:
    if len(scene) < 2:
        return None
    k = int(rng.integers(len(scene)))
    return scene[:k] + scene[k + 1 :]


def _extra(record: dict, scene: Scene, rng: np.random.Generator) -> Scene | None:
    cells = _free_cells(scene)
    cell, jitter = cells[rng.integers(len(cells))], JITTERS[rng.integers(len(JITTERS))]
    if scene and rng.random() < 0.5:  # a twin of an object is the harder case
        return [*scene, replace(scene[rng.integers(len(scene))], cell=cell, jitter=jitter)]
    return [*scene, SceneObject(str(rng.choice(CLASSES)), str(rng.choice(COLORS)), TEXTURES[0], cell, jitter)]


def _free_cells(scene: Scene) -> list[tuple[int, int]]:
    taken = {item.cell for item in scene}
    return [divmod(k, GRID) for k in range(CELLS) if divmod(k, GRID) not in taken]


EDITS: dict[str, Callable[[dict, Scene, np.random.Generator], Scene | None]] = {
    "wrong_color": _wrong_color,
    "wrong_class": _wrong_class,
    "wrong_texture": _wrong_texture,
    "wrong_place": _wrong_place,
    "swapped_looks": _swapped_looks,
    "wrong_relation": _wrong_relation,
    "missing": _missing,
    "extra": _extra,
}
RELATIONAL = ("wrong_texture", "wrong_place", "swapped_looks", "wrong_relation")  # they apply to few tags


def edit(record: dict, scene: Scene, rng: np.random.Generator, exclude: str = "") -> tuple[str, Scene]:
    """(name, scene) of a random edit that applies to this record, other than `exclude`."""
    while True:
        common = rng.random() < 0.5
        name = str(rng.choice([e for e in EDITS if e != exclude and (common or e in RELATIONAL)]))
        edited = EDITS[name](record, scene, rng)
        if edited is not None:
            return name, edited


@dataclass(frozen=True)
class Ladders:
    """N ladders: scenes (N, 4, 9) of template indices, the records, and the names of both single edits of each."""

    scenes: Tensor
    records: list[dict]
    edits: list[tuple[str, str]]


def make_ladders(records: list[dict], seed: int) -> Ladders:
    """One ladder per record, verified: by the checker's rules the first scene is faithful, the other three are not."""
    rng = np.random.default_rng(seed)
    rows: list[list[list[int]]] = []
    names: list[tuple[str, str]] = []
    for record in records:
        verdicts: list[bool] = []
        while verdicts != [True, False, False, False]:
            faithful = sample_objects(record, rng)
            first, once = edit(record, faithful, rng)
            second, other = edit(record, faithful, rng, exclude=first)
            twice = edit(record, once, rng, exclude=first)[1]
            scenes = (faithful, once, other, twice)
            verdicts = [checker.satisfies(scene, record) for scene in scenes]
        rows.append([encode(scene) for scene in scenes])
        names.append((first, second))
    return Ladders(torch.tensor(rows), records, names)
