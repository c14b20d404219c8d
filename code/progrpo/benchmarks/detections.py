"""What stored detections have in common, whichever benchmark judges them: boxes and scores, each image once, how they were made."""

from os.path import normpath
from pathlib import Path

from pydantic import BaseModel

from progrpo.errors import UserError
from progrpo.files import SETTINGS, beside, sha256, write_json, write_jsonl
from progrpo.typed import read_checked


class MadeFrom(BaseModel):
    """What every such file may say: which detections it is about, and what of the images is not in them."""

    detections: str | None = None  # SHA-256 of their file; older files lack it
    partial: str | None = None


def write_detections(out: Path, lines: list[dict], settings: dict) -> None:
    """Write detections, and then beside them how they were made, each atomically and bound to the other by a hash."""
    write_jsonl(out, lines)
    write_json(beside(out, SETTINGS), {**settings, "detections": sha256(out)})


def read_settings(kind: type[MadeFrom], detections: Path) -> dict:
    """How stored detections were made, checked; empty where nothing says it. UserError for what was said of other detections."""
    path = beside(detections, SETTINGS)
    if not path.is_file():
        if path != (older := detections.with_suffix(SETTINGS)) and older.is_file():
            raise UserError(
                f"{older}: bears an older name; rename it to {path.name} if it is of {detections}, else remove it"
            )
        return {}
    settings = read_checked(kind, path)
    if (known := settings.pop("detections", None)) not in (None, sha256(detections)):
        raise UserError(
            f"{path}: says how other detections were made than {detections} holds (sha256 {known[:16]}); remove it"
        )
    return settings


def require_boxes(objects: list, where: str, what: str, key: str) -> None:
    """Check that each object of a line has a box of four numbers and a score in [0, 1]; UserError begins with `where` ("file:line").

    what, key: what a message calls an object, and the key of its name, whose value is the caller's to check.
    """
    for found in objects:
        box = found.get("box") if isinstance(found, dict) else None
        numbers = [*box, found.get("score")] if isinstance(box, list) else []
        if len(numbers) != 5 or not all(map(is_coordinate, numbers)):
            raise UserError(f'{where}: {what} needs "{key}", a "box" of four numbers and a "score": {str(found)[:80]}')
        if not 0 <= found["score"] <= 1:
            raise UserError(f"{where}: the score {found['score']} of {what} is not in [0, 1]")


def is_coordinate(number: object) -> bool:
    """Whether a value can be a coordinate of a box or a score: a finite number, far from float32's limits."""
    return isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < 1e9


def require_new(image: str, where: str, seen: dict[str, str]) -> None:
    """Note in `seen` (image -> line) that the line `where` judges an image; UserError when another line did."""
    image = normpath(image)
    if seen.setdefault(image, where) != where:
        raise UserError(f"{where}: image {image} was judged already, see {seen[image]}")
