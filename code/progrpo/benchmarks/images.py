"""Folders of generated images, in this project's layout and in the layouts that the original evaluators
read."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from progrpo.benchmarks.prompt_sets import STYLES, Vocabulary, validate_record
from progrpo.errors import UserError
from progrpo.files import read_jsonl, read_object, read_text
from progrpo.identity import BEGUN
from progrpo.safe_names import path_inside

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
TURNS = {  # what turns an image upright, by its EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class BenchmarkImage:
    """One image: its name relative to the folder, its file, its prompt, its GenEval record or None, and where
    that was read."""

    name: str
    path: Path
    prompt: str
    metadata: dict | None
    source: str


def list_images(folder: Path | str, allow_partial: bool = False) -> list[BenchmarkImage]:
    """The images of a folder in a fixed order.

    Layouts, first match: `prompts.jsonl` with {"image", "prompt", "metadata"} per line (this project);
    `<00000>/metadata.jsonl` with `<00000>/samples/NNNN.png` (GenEval); `<prompt>_<number>.png`, maybe in
    `samples/` (T2I-CompBench, which parses the names). UserError: no such folder, no image in it, a line that
    names no image or an image a second time, a record that is missing or not alone in its file, and, unless
    allow_partial, anything that `gaps` finds.
    """
    folder = Path(folder)
    layout = _layout(folder)
    if layout is not _own_layout and (folder / BEGUN).is_file():
        raise UserError(f"{folder}: its images are not all made; run progrpo generate again, it makes those that lack")
    images = layout(folder)
    missing = gaps(folder)
    if missing and (not images or not allow_partial):
        hint = "generate them again" if not images else "make them whole or give --allow-partial"
        raise UserError(f"{folder}: {missing}; {hint}")
    if not images:
        if styles := [style for style in STYLES if (folder / style).is_dir()]:
            raise UserError(
                f"{folder}: holds images by style ({', '.join(styles)}), as HPSv2's own code writes them, without their prompts;"
                ' list them in prompts.jsonl, {"image": "anime/00000.jpg", "prompt": ...} a line'
            )
        raise UserError(
            f"{folder}: no images; expected prompts.jsonl, 00000/samples/0000.png or '<prompt>_000000.png'; "
            "generate them first"
        )
    return images


def gaps(folder: Path | str) -> str | None:
    """What of a folder of images would not be scored, counted, or None: prompts without an image or with fewer than the
    others, numbers left out, files whose names the benchmark does not take."""
    folder = Path(folder)
    gaps_of: dict[Callable[[Path], list[BenchmarkImage]], Callable[[Path], str | None]] = {
        _own_layout: _own_gaps,
        _geneval_layout: _geneval_gaps,
        _compbench_layout: _compbench_gaps,
    }
    return gaps_of[_layout(folder)](folder)


def _layout(folder: Path) -> Callable[[Path], list[BenchmarkImage]]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of images")
    if (folder / "prompts.jsonl").exists():
        return _own_layout
    return _geneval_layout if _geneval_folders(folder) else _compbench_layout


def _own_lines(folder: Path) -> Iterator[tuple[str, Path, dict]]:
    """("file:line", image, line) of `prompts.jsonl`."""
    index = folder / "prompts.jsonl"
    seen: dict[Path, int] = {}
    for number, line in read_jsonl(index):
        where = f"{index}:{number}"
        name, prompt = line.get("image"), line.get("prompt")
        if not isinstance(name, str) or not isinstance(prompt, str):
            raise UserError(f'{where}: the line needs the strings "image" and "prompt"')
        try:
            path = path_inside(folder, name)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
        if seen.setdefault(path, number) != number:
            raise UserError(f"{where}: image {name} stands in line {seen[path]} too")
        yield where, path, line


def _own_layout(folder: Path) -> list[BenchmarkImage]:
    return [
        BenchmarkImage(line["image"], path, line["prompt"], line.get("metadata"), where)
        for where, path, line in _own_lines(folder)
        if path.is_file()
    ]


def _own_gaps(folder: Path) -> str | None:
    lines = list(_own_lines(folder))
    missing = [(where, line["image"]) for where, path, line in lines if not path.is_file()]
    if missing:
        return f"{len(missing)} of {len(lines)} images do not exist, the first is {missing[0][1]} ({missing[0][0]})"
    listed = {path for _, path, _ in lines}
    others = [p.relative_to(folder) for p in _pictures(folder, "**/*") if p not in listed]
    return f"{len(others)} images are not in prompts.jsonl, the first is {others[0]}" if others else None


def _geneval_folders(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir() and f.name.isascii() and f.name.isdigit())


def _geneval_samples(prompt_folder: Path) -> list[Path]:
    # the original's pattern; grids do not count
    return sorted(path for path in (prompt_folder / "samples").glob("*.png") if re.fullmatch(r"\d+\.png", path.name))


def _pictures(folder: Path, pattern: str = "*") -> list[Path]:
    """Pictures of a folder, sorted; what begins with a dot (`._a.png` of macOS, `.ipynb_checkpoints/`) is no part of it."""
    return sorted(
        path
        for path in folder.glob(pattern)
        if path.suffix.lower() in PICTURES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def _other_pictures(folder: Path, taken: list[Path]) -> list[Path]:
    """Pictures of a folder that are neither taken nor grids, which GenEval's (`grid.png`) and T2I-CompBench's
    (`<prompt>-grid-00000.png`) generators write beside samples/."""
    return [p for p in _pictures(folder) if p not in taken and not re.match(r"grid|.*-grid-\d+\.", p.name, re.DOTALL)]


def _geneval_record(source: Path) -> tuple[str, dict]:
    """("file:line", record) of a prompt's metadata.jsonl, which the original reads as JSON, of several lines too."""
    if source.is_file() and read_text(source).strip().split("\n")[0].rstrip() == "{":
        return str(source), read_object(source)
    records = list(read_jsonl(source))
    if len(records) != 1:
        raise UserError(f"{source}: expected the one GenEval record of the prompt, found {len(records)}")
    [(number, record)] = records
    return f"{source}:{number}", record


def _geneval_layout(folder: Path) -> list[BenchmarkImage]:
    images = []
    for prompt_folder in _geneval_folders(folder):
        source = prompt_folder / "metadata.jsonl"
        where, record = _geneval_record(source)
        if not isinstance(record.get("prompt"), str):
            raise UserError(f'{where}: not a GenEval record: it needs the strings "tag" and "prompt"')
        for path in _geneval_samples(prompt_folder):
            images.append(BenchmarkImage(str(path.relative_to(folder)), path, record["prompt"], record, where))
    return images


def _geneval_gaps(folder: Path) -> str | None:
    folders = _geneval_folders(folder)
    counts = {f.name: len(_geneval_samples(f)) for f in folders}
    most, left_out = max(counts.values()), max(int(name) for name in counts) + 1 - len({int(name) for name in counts})
    empty = [name for name, count in counts.items() if count == 0]
    fewer = [name for name, count in counts.items() if 0 < count < most]
    if empty:
        other = Counter(p.suffix for name in empty for p in _pictures(folder / name, "**/*"))
        found = "".join(f", {number} {suffix} there" for suffix, number in sorted(other.items()))
        return f"{len(empty)} of {len(counts)} prompts have no samples/NNNN.png, the first is {empty[0]}{found}"
    if fewer:
        return f"{len(fewer)} of {len(counts)} prompts have fewer images than the {most} of others, the first is {fewer[0]}"
    if left_out:
        return f"{left_out} prompt folders are left out of 0 to {max(map(int, counts))}"
    others = [
        p for f in folders for p in (*_other_pictures(f, []), *_other_pictures(f / "samples", _geneval_samples(f)))
    ]
    others += sorted(f.parent for f in folder.glob("*/metadata.jsonl") if f.parent not in folders)
    return (
        f"{len(others)} names are not NNNN.png or 00000, the first is {others[0].relative_to(folder)}"
        if others
        else None
    )


def _compbench_folder(folder: Path) -> Path:
    return folder / "samples" if (folder / "samples").is_dir() else folder


def _compbench_layout(folder: Path) -> list[BenchmarkImage]:
    found = []
    for path in _pictures(_compbench_folder(folder)):
        match = re.fullmatch(r"(.+)_(\d+)\.png", path.name, re.DOTALL)
        if match:
            found.append((int(match[2]), path, match[1]))
    return [
        BenchmarkImage(str(path.relative_to(folder)), path, prompt, None, str(path))
        for _, path, prompt in sorted(found)
    ]


def _compbench_gaps(folder: Path) -> str | None:
    pictures = _pictures(_compbench_folder(folder))
    odd = [p.name for p in pictures if not re.fullmatch(r".+_\d+\.png", p.name, re.DOTALL)]
    if odd:
        return f"{len(odd)} of {len(pictures)} images are not named '<prompt>_000000.png', the first is {odd[0]}"
    named = [(prompt, int(number)) for prompt, _, number in (p.stem.rpartition("_") for p in pictures)]
    counts, numbers = Counter(prompt for prompt, _ in named), {number for _, number in named}
    most, last = max(counts.values(), default=0), max(numbers, default=-1)
    fewer = sorted(prompt for prompt, count in counts.items() if count < most)
    if fewer:
        return f"{len(fewer)} of {len(counts)} prompts have fewer images than the {most} of others, the first is {fewer[0]!r}"
    if left_out := last + 1 - len(numbers):
        return f"{left_out} numbers are left out of the images' 0 to {last}"
    beside = _other_pictures(folder, pictures)
    return f"{len(beside)} images lie beside samples/, the first is {beside[0].name}" if beside else None


def require_records(images: list[BenchmarkImage], vocabulary: Vocabulary) -> None:
    """Check that every image has a GenEval record of known classes and colours; UserError names the line of
    the first without."""
    for image in images:
        if image.metadata is None:
            raise UserError(f'{image.source}: no GenEval record ("metadata") for image {image.name}')
        validate_record(image.metadata, image.source, vocabulary)


def open_image(path: Path) -> Image.Image:
    """The RGB image of a file, turned upright by its EXIF orientation; 16-bit grey keeps its upper 8 bits. UserError names
    a file that does not open, or whose pixels have no known white."""
    try:
        # not by its path: Pillow then maps grey TIFF into memory with its sides swapped where the orientation swaps them
        with open(path, "rb") as file, Image.open(file) as image:
            image.load()
            turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
            upright = _eight_bits(image, path).convert("RGB")
            return upright if turn is None else upright.transpose(turn)
    except FileNotFoundError:
        raise UserError(f"{path}: no such image") from None
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"{path}: the image does not open (of no known format); generate it again") from None
    except Exception as error:  # Pillow's readers have half a dozen kinds of their own, among them struct.error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: the image does not open ({reason}); generate it again") from None


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


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    # Pillow would cut all that is above 255 off, so that 16-bit grey becomes white, and floats in [0, 1] black
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        numbers = "32-bit whole" if image.mode == "I" else "floating-point"
        raise UserError(
            f"{path}: pixels are {numbers} numbers, whose white is unknown; save it with 8 bits per channel"
        )
    return image
