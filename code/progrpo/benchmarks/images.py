"""Folders of generated images, in this project's layout and in the layouts that the original evaluators
read."""

import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from progrpo.benchmarks.prompt_sets import Vocabulary, validate_record
from progrpo.errors import UserError
from progrpo.files import read_json, read_jsonl


@dataclass(frozen=True)
class BenchmarkImage:
    """One image: its name relative to the folder, its file, its prompt, its GenEval record or None, and where
    that was read."""

    name: str
    path: Path
    prompt: str
    metadata: dict | None
    source: str


def list_images(folder: Path | str) -> list[BenchmarkImage]:
    """The images of a folder in a fixed order.

    Layouts, first match: `prompts.jsonl` with {"image", "prompt", "metadata"} per line (this project);
    `<00000>/metadata.jsonl` with `<00000>/samples/NNNN.png` (GenEval); `<prompt>_<number>.png`, maybe in
    `samples/` (T2I-CompBench, which parses the names). UserError: no such folder, no image in it, a listed
    file that does not exist, a line that names no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of images")
    if (folder / "prompts.jsonl").exists():
        images = _own_layout(folder)
    elif any(_geneval_folders(folder)):
        images = _geneval_layout(folder)
    else:
        images = _compbench_layout(folder)
    if not images:
        raise UserError(
            f"{folder}: no images; expected prompts.jsonl, 00000/samples/0000.png or '<prompt>_000000.png'; "
            "generate them first"
        )
    return images


def _own_layout(folder: Path) -> list[BenchmarkImage]:
    index, images = folder / "prompts.jsonl", []
    for number, line in read_jsonl(index):
        where = f"{index}:{number}"
        name, prompt = line.get("image"), line.get("prompt")
        if not isinstance(name, str) or not isinstance(prompt, str):
            raise UserError(f'{where}: the line needs the strings "image" and "prompt"')
        if not (folder / name).is_file():
            raise UserError(f"{where}: image {name} does not exist in {folder}; generate it again")
        images.append(BenchmarkImage(name, folder / name, prompt, line.get("metadata"), where))
    return images


def _geneval_folders(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir() and f.name.isdigit())


def _geneval_layout(folder: Path) -> list[BenchmarkImage]:
    images = []
    for prompt_folder in _geneval_folders(folder):
        source = prompt_folder / "metadata.jsonl"
        record = read_json(source)
        if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
            raise UserError(f'{source}:1: not a GenEval record: it needs the strings "tag" and "prompt"')
        for path in sorted((prompt_folder / "samples").glob("*.png")):
            if re.match(r"\d+\.png", path.name):  # the original's pattern; grids and previews do not count
                name = str(path.relative_to(folder))
                images.append(BenchmarkImage(name, path, record["prompt"], record, f"{source}:1"))
    return images


def _compbench_layout(folder: Path) -> list[BenchmarkImage]:
    samples = folder / "samples" if (folder / "samples").is_dir() else folder
    found = []
    for path in samples.glob("*.png"):
        match = re.fullmatch(r"(.+)_(\d+)\.png", path.name)
        if match:
            found.append((int(match[2]), path, match[1]))
    return [
        BenchmarkImage(str(path.relative_to(folder)), path, prompt, None, str(path))
        for _, path, prompt in sorted(found)
    ]


def require_records(images: list[BenchmarkImage], vocabulary: Vocabulary) -> None:
    """Check that every image has a GenEval record of known classes and colours; UserError names the line of
    the first without."""
    for image in images:
        if image.metadata is None:
            raise UserError(f'{image.source}: no GenEval record ("metadata") for image {image.name}')
        validate_record(image.metadata, image.source, vocabulary)


def open_image(path: Path) -> Image.Image:
    """The RGB image of a file, turned upright by its EXIF orientation; UserError names a file that does not
    open."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise UserError(f"{path}: no such image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: the image does not open ({error}); generate it again") from None
