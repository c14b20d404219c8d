"""Procedural scenes: up to nine small objects on a jittered 3 x 3 grid of a 24 x 24 white image."""

from dataclasses import dataclass, replace

import numpy as np

from progrpo.miniature.prompts import CLASSES, COLORS, PLACES, TEXTURES

SIZE, GRID, CELL, EXTENT = (
    24,
    3,
    8,
    6,
)  # pixels of the image's side, cells per side, pixels of a cell's and of an object's side
JITTERS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
RGB = {
    "red": (0.86, 0.15, 0.15),
    "green": (0.15, 0.65, 0.25),
    "blue": (0.16, 0.32, 0.86),
    "yellow": (0.95, 0.80, 0.15),
    "purple": (0.62, 0.20, 0.78),
    "black": (0.08, 0.08, 0.08),
}


@dataclass(frozen=True)
class SceneObject:
    """One object: what it is, its grid cell (row, column), and its offset from the cell's centre in pixels (down, right)."""

    name: str
    color: str
    texture: str
    cell: tuple[int, int]
    jitter: tuple[int, int]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1) in pixels, x1 and y1 exclusive."""
        margin = (CELL - EXTENT) // 2
        y = self.cell[0] * CELL + margin + self.jitter[0]
        x = self.cell[1] * CELL + margin + self.jitter[1]
        return x, y, x + EXTENT, y + EXTENT


def shape_mask(name: str, supersampling: int = 8) -> np.ndarray:
    """Coverage of an object's 6 x 6 pixels in [0, 1], antialiased by supersampling."""
    n = EXTENT * supersampling
    y, x = (np.mgrid[:n, :n] + 0.5) / n - 0.5
    distance = np.hypot(x, y)
    shapes = {
        "circle": distance <= 0.5,
        "square": np.ones_like(x, bool),
        "triangle": np.abs(x) <= (y + 0.5) / 2,
        "diamond": np.abs(x) + np.abs(y) <= 0.5,
        "cross": np.abs(np.abs(x) - np.abs(y)) <= 1 / 6,
        "ring": (distance <= 0.5) & (distance >= 0.25),
    }
    if name not in shapes:
        raise ValueError(f"unknown class {name!r}; known: {', '.join(CLASSES)}")
    return shapes[name].reshape(EXTENT, supersampling, EXTENT, supersampling).mean((1, 3))


def texture_mask(texture: str) -> np.ndarray:
    """Bool (6, 6): which pixels of an object its texture colours; all others stay white."""
    row, column = np.mgrid[:EXTENT, :EXTENT]
    colored = {
        "solid": row >= 0,
        "striped": row % 2 == 0,
        "barred": column % 2 == 0,
        "checkered": (row + column) % 2 == 0,
    }
    if texture not in colored:
        raise ValueError(f"unknown texture {texture!r}; known: {', '.join(TEXTURES)}")
    return colored[texture]


_MASKS = {(name, texture): shape_mask(name) * texture_mask(texture) for name in CLASSES for texture in TEXTURES}


def object_mask(scene_object: SceneObject) -> np.ndarray:
    """Coverage (24, 24) of one object in [0, 1]: its shape where its texture has colour."""
    mask = np.zeros((SIZE, SIZE))
    x0, y0, x1, y1 = scene_object.box
    mask[y0:y1, x0:x1] = _MASKS[scene_object.name, scene_object.texture]
    return mask


def draw(objects: list[SceneObject]) -> np.ndarray:
    """The image (24, 24, 3) uint8 of a list of objects."""
    image = np.ones((SIZE, SIZE, 3))
    for scene_object in objects:
        mask = object_mask(scene_object)[..., None]
        image = image * (1 - mask) + np.array(RGB[scene_object.color]) * mask
    return np.round(255 * image).astype(np.uint8)


def sample_objects(record: dict, rng: np.random.Generator) -> list[SceneObject]:
    """Objects that satisfy a record exactly: what it names, where it says, and nothing else.

    What it leaves open: a random colour, the solid texture, a random free cell.
    """
    objects = []
    for clause in record["include"]:
        for _ in range(clause["count"]):
            color = clause.get("color") or COLORS[rng.integers(len(COLORS))]
            objects.append(SceneObject(clause["class"], color, clause.get("texture", TEXTURES[0]), (0, 0), (0, 0)))
    relations = [clause["position"][0] for clause in record["include"] if "position" in clause]
    cells = _related_cells(relations[0], rng) if relations else _placed_cells(record, rng)
    jitters = rng.integers(len(JITTERS), size=len(objects))
    return [replace(o, cell=c, jitter=JITTERS[j]) for o, c, j in zip(objects, cells, jitters, strict=True)]


def sample_any(rng: np.random.Generator, most: int = 4) -> list[SceneObject]:
    """One to `most` objects of any kind anywhere on the grid."""
    return [
        SceneObject(
            CLASSES[rng.integers(len(CLASSES))],
            COLORS[rng.integers(len(COLORS))],
            TEXTURES[rng.integers(len(TEXTURES))],
            cell,
            JITTERS[rng.integers(len(JITTERS))],
        )
        for cell in _free_cells(int(rng.integers(1, most + 1)), rng)
    ]


def _free_cells(count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    return [divmod(int(k), GRID) for k in rng.choice(GRID * GRID, size=count, replace=False)]


def _placed_cells(record: dict, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Different cells for the objects of a record, each in its clause's place."""
    cells: list[tuple[int, int]] = []
    for clause in record["include"]:
        for _ in range(clause["count"]):
            free = [cell for cell in _allowed(clause) if cell not in cells]
            cells.append(free[rng.integers(len(free))])
    return cells


def _allowed(clause: dict) -> list[tuple[int, int]]:
    return sorted(PLACES[clause["place"]]) if "place" in clause else [divmod(k, GRID) for k in range(GRID * GRID)]


def _related_cells(relation: str, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Cells (reference, subject) such that the subject clearly is in that relation: the named direction dominates."""
    while True:
        reference, subject = _free_cells(2, rng)
        down, right = subject[0] - reference[0], subject[1] - reference[1]
        along, across = (right, down) if relation in ("left of", "right of") else (down, right)
        wanted = -1 if relation in ("left of", "above") else 1
        if along * wanted > abs(across):
            return [reference, subject]


def render(record: dict, rng: np.random.Generator) -> np.ndarray:
    """A random faithful image (24, 24, 3) uint8 of a GenEval-format record."""
    return draw(sample_objects(record, rng))
