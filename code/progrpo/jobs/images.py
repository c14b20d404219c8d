"""Images of a model for its prompt sets: seeds per image, resumable, atomic."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from progrpo.config import Sampling
from progrpo.errors import UserError
from progrpo.files import sha256, write_atomic, write_jsonl
from progrpo.grpo.backbone import Backbone
from progrpo.grpo.rollout import TrajectoryNoise, in_batches
from progrpo.grpo.samplers import StepTable, step_mean, step_sample
from progrpo.jobs.image_folder import INDEX, ImageTask, spoilt_images
from progrpo.rewards.preprocess import quantise
from progrpo.safe_names import path_inside


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
