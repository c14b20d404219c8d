"""The folder of a prompt set's images: their names, as the original evaluators expect, and whether they are those that were made."""

from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from progrpo.benchmarks.prompt_sets import PromptRecord
from progrpo.config import PromptSet
from progrpo.errors import UserError
from progrpo.files import read_jsonl, sha256
from progrpo.identity import BEGUN
from progrpo.safe_names import file_name, path_inside

INDEX = "prompts.jsonl"
TAKEN = (INDEX, BEGUN, "lock")  # by files beside the styles' folders


@dataclass(frozen=True)
class ImageTask:
    """One image to make: its name relative to the set's folder, its prompt, and its place among prompts and images."""

    name: str
    record: PromptRecord
    prompt: int
    image: int


def image_tasks(records: list[PromptRecord], prompts: PromptSet) -> list[ImageTask]:
    """Every image of a prompt set in order, named by its layout.

    geneval: 00000/samples/0000.png; compbench: samples/<prompt>_000000.png (the prompt as far as
    it can be a file name; `prompts.jsonl` keeps it whole); hpsv2: <style>/00000.jpg, counted within the style that
    the prompt's metadata names; plain: 00000.png, or 00000_00.png where a prompt has several images.
    """
    tasks = []
    in_style: dict[str, int] = {}
    for p, record in enumerate(records):
        for k in range(prompts.images_per_prompt):
            if prompts.layout == "geneval":
                name = f"{p:05d}/samples/{k:04d}.png"
            elif prompts.layout == "compbench":
                name = "samples/" + file_name(record.prompt, f"_{p * prompts.images_per_prompt + k:06d}.png")
            elif prompts.layout == "hpsv2":
                style = file_name(str((record.metadata or {}).get("style", "all")))
                style = file_name(style, "~") if style in TAKEN else style
                same = normalize("NFC", style).casefold()  # to a file system that does not know a from A
                in_style[same] = in_style.get(same, -1) + 1
                name = f"{style}/{in_style[same]:05d}.jpg"
            else:
                name = f"{p:05d}.png" if prompts.images_per_prompt == 1 else f"{p:05d}_{k:02d}.png"
            tasks.append(ImageTask(name, record, p, k))
    return tasks


def spoilt_images(folder: Path) -> set[str]:
    """Names of the images of a complete set that are not those that were made, by their recorded SHA-256."""
    if not (folder / INDEX).is_file():
        return set()
    spoilt = set()
    for _, line in read_jsonl(folder / INDEX):
        name, digest = line.get("image"), line.get("sha256")
        if isinstance(name, str) and isinstance(digest, str):
            try:
                path = path_inside(folder, name)
            except ValueError as error:
                raise UserError(f"{folder / INDEX}: {error}; generate the images again") from None
            if path.is_file() and sha256(path) != digest:
                spoilt.add(name)
    return spoilt


def require_generated(folder: Path) -> None:
    """UserError names the first image that is not the one that `progrpo generate` made."""
    for name in sorted(spoilt_images(folder)):
        raise UserError(f"{folder / name}: not the image that was made; progrpo generate makes it again")
