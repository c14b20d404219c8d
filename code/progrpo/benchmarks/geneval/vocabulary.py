"""Which classes and colours a GenEval evaluation knows: those of the benchmark, or those that a model folder
names."""

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import Field

from progrpo.benchmarks.prompt_sets import Vocabulary
from progrpo.errors import UserError
from progrpo.files import read_object, read_text
from progrpo.typed import check

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
OBJECT_NAMES_FILE = "object_names.txt"  # in a detector's folder: one class per line, in the order of its labels
COLOR_NAMES_FILE = "color_names.txt"  # in a colour classifier's folder: one colour per line
# Of COCO's 80 names: those that GenEval renamed, and Pascal VOC's, which mmdet once had and transformers' converters write
SPELLINGS = {
    "mouse": "computer mouse",
    "remote": "tv remote",
    "keyboard": "computer keyboard",
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
}


@cache
def geneval_vocabulary() -> Vocabulary:
    """GenEval's 80 classes, in COCO's order under GenEval's names, and its ten colours."""
    names = resources.files(__package__).joinpath(OBJECT_NAMES_FILE).read_text().split("\n")
    return Vocabulary(tuple(name for name in names if name), COLORS)


def detector_classes(folder: Path) -> tuple[str, ...]:
    """Class names of a detector's folder in the order of its labels.

    `object_names.txt` if there is one; else config.json's id2label, where COCO's 80 names are replaced by
    GenEval's (same order). UserError: neither file says.
    """
    names_file = folder / OBJECT_NAMES_FILE
    if names_file.is_file():
        return _words(names_file)
    id2label = read_object(folder / "config.json").get("id2label")
    if not id2label:
        raise UserError(f"{folder}: names no classes; add {OBJECT_NAMES_FILE} with one class per line")
    check(dict[Annotated[str, Field(pattern=r"^\d{1,6}$")], str], id2label, f"{folder / 'config.json'}: id2label")
    labels = tuple(id2label[key] for key in sorted(id2label, key=int))
    official = geneval_vocabulary().classes
    renamed = (label.replace("_", " ") for label in labels)
    return official if tuple(SPELLINGS.get(label, label) for label in renamed) == official else labels


def classifier_colors(folder: Path) -> tuple[str, ...]:
    """Colours of a colour classifier's folder: its `color_names.txt`, else GenEval's ten."""
    names_file = folder / COLOR_NAMES_FILE
    if names_file.is_file():
        return _words(names_file)
    return COLORS


def _words(path: Path) -> tuple[str, ...]:
    words = tuple(line.strip() for line in read_text(path).split("\n") if line.strip())
    if not words:
        raise UserError(f"{path}: empty; expected one word per line")
    return words
