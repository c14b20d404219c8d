"""One image per prompt and model into one file for `progrpo figures --figure qualitative`."""

import argparse
import sys
from pathlib import Path

import numpy as np

from progrpo.benchmarks.images import list_images, open_image
from progrpo.errors import UserError
from progrpo.files import write_atomic
from progrpo.names import parse_seed_folder


def first_images(folder: Path) -> dict[str, np.ndarray]:
    """{prompt: its first image (H, W, 3) uint8} of a generated prompt set, in the order of the set; UserError for a missing one."""
    paths: dict[str, Path] = {}
    for image in list_images(folder):
        paths.setdefault(image.prompt, image.path)
    return {prompt: np.asarray(open_image(path)) for prompt, path in paths.items()}


def main() -> int:
    """Write the grid: rows are prompts, columns are models; UserError when the models' prompts or sizes differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "listings", nargs="+", type=Path, help="<model>-seed<seed>/<prompt set>/prompts.jsonl of each model"
    )
    parser.add_argument("--out", required=True, type=Path, help=".npz file to write")
    arguments = parser.parse_args()
    columns = [first_images(listing.parent) for listing in arguments.listings]
    prompts = list(columns[0])
    size = columns[0][prompts[0]].shape
    for listing, column in zip(arguments.listings, columns, strict=True):
        if list(column) != prompts:
            raise UserError(f"{listing}: its prompts are not those of {arguments.listings[0]}; generate both again")
        if any(image.shape != size for image in column.values()):
            raise UserError(f"{listing}: its images are not all of the size of {arguments.listings[0]}'s first")
    grid = np.stack([np.stack([column[prompt] for column in columns]) for prompt in prompts])
    folders = [listing.parts[-3] for listing in arguments.listings]
    labels = [(parse_seed_folder(folder) or [folder])[0] for folder in folders]
    arrays = {"images": grid, "prompts": np.array(prompts), "labels": np.array(labels)}
    write_atomic(arguments.out, lambda file: np.savez_compressed(file, **arrays))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"collect_grid: error: {error}", file=sys.stderr)
        sys.exit(2)
