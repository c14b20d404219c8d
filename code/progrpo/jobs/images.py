"""Images of a model for its prompt sets: seeds per image, resumable, atomic, named as the original evaluators expect."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from progrpo.benchmarks.prompt_sets import PromptRecord
from progrpo.config import PromptSet, Sampling
from progrpo.errors import UserError
from progrpo.files import read_jsonl, sha256, write_atomic, write_jsonl
from progrpo.grpo.backbone import Backbone
from progrpo.grpo.rollout import TrajectoryNoise, in_batches
from progrpo.grpo.samplers import StepTable, step_mean, step_sample
from progrpo.identity import BEGUN
from progrpo.rewards.preprocess import quantise
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


def generate_set(
    backbone: Backbone,
    tasks: list[ImageTask],
    sampling: Sampling,
    seed: int,
    batch: int,
    folder: Path,
    log: Callable[[str], None],
) -> None:
    """Make the images of `tasks` that `folder` lacks, then write `prompts.jsonl`, the sign that the set is complete, with their
    SHA-256. Images that are no longer those that were made count as lacking.

    The noise of an image follows from (seed, prompt, image) alone, and an image is made in the same batch whichever are missing, so an
    interrupted generation ends with the same images.
    """
    for name in spoilt_images(folder):
        (folder / name).unlink()
    for task in tasks:
        try:
            path_inside(folder, task.name)
        except ValueError as error:  # a sub-folder is a link to another place
            raise UserError(f"{folder}: {error}; choose another --out") from None
    missing = {task.name for task in tasks if not (folder / task.name).is_file()}
    if missing:
        (folder / INDEX).unlink(missing_ok=True)  # not complete until it is written again
    table, made = backbone.table(sampling), 0
    for start in range(0, len(tasks), batch):
        part = tasks[start : start + batch]
        lacking = missing.intersection(task.name for task in part)
        if not lacking:
            continue
        for task, image in zip(part, sample_images(backbone, table, part, sampling, seed, batch), strict=True):
            if task.name in lacking:
                save_image(folder / task.name, image)
        made += len(lacking)
        log(f"{folder}: {made}/{len(missing)} images")
    for task in tasks:
        if task.image == 0 and "/samples/" in task.name and task.record.metadata:
            write_jsonl(folder / task.name.split("/")[0] / "metadata.jsonl", [task.record.metadata])
    lines = [
        {"image": t.name, "prompt": t.record.prompt, "metadata": t.record.metadata, "sha256": sha256(folder / t.name)}
        for t in tasks
    ]
    write_jsonl(folder / INDEX, lines)


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


@torch.no_grad()
def sample_images(
    backbone: Backbone, table: StepTable, tasks: list[ImageTask], sampling: Sampling, seed: int, batch: int
) -> Tensor:
    """Images (B, 3, H, W) float32 in [0, 1] of B <= batch tasks, sampled without policy noise unless `sampling.noise` asks for it."""
    prompts = sorted({task.prompt for task in tasks})
    noise = TrajectoryNoise(seed, 0, prompts, backbone.latent_shape, sampling.shared_initial_noise)
    row = torch.tensor([prompts.index(task.prompt) for task in tasks])
    image = torch.tensor([task.image for task in tasks])
    text = backbone.encode([task.record.prompt for task in tasks])
    x = noise.initial(row, image).to(backbone.device)
    index = torch.arange(len(tasks), device=backbone.device)
    for step in range(table.steps):
        (_, (rows_x, rows)), *_ = in_batches(batch, x, index)
        output = backbone.predict(rows_x, table.timesteps[step], text.rows(rows), sampling.guidance_scale)[: len(x)]
        x = step_mean(table, step, x, output)
        if step in table.noisy:
            x = step_sample(table, step, x, noise.draw(row, image).to(x.device))
    (_, (rows_x,)), *_ = in_batches(batch, x)
    return backbone.decode(rows_x)[: len(x)]


def save_image(path: Path, image: Tensor) -> None:
    """Write an image (3, H, W) in [0, 1] atomically, as PNG or JPEG by its suffix; UserError for pixels that are not finite.

    What a scorer reads back from a PNG differs by 1/510 at most, rounding to 8 bits; from a JPEG by 4/255 on average for colour noise,
    the worst of pictures, and by 1/255 where the picture is smooth.
    """
    if not image.isfinite().all():
        raise UserError(f"{path}: the image is not finite; check the model's weights or use precision fp32")
    pixels = quantise(image).permute(1, 2, 0).cpu().numpy()
    options = {"format": "JPEG", "quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {"format": "PNG"}
    write_atomic(path, lambda file: Image.fromarray(np.ascontiguousarray(pixels)).save(file, **options))
