"""One image per prompt and model into one file for `progrpo figures --figure qualitative`."""

import argparse
import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from progrpo.errors import UserError
from progrpo.files import read_jsonl, write_atomic
from progrpo.names import parse_seed_folder


def first_images(listing: Path) -> dict[str, np.ndarray]:
    """{prompt: its first image (H, W, 3) uint8} of a generated prompt set, in the order of the set."""
    images: dict[str, np.ndarray] = {}
    for _, line in read_jsonl(listing):
        if line["prompt"] not in images:
            images[line["prompt"]] = np.asarray(Image.open(listing.parent / line["image"]).convert("RGB"))
    return images


def main() -> int:
    """Write the grid: rows are prompts, columns are models; UserError when the models' prompts differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "listings", nargs="+", type=Path, help="<model>-seed<seed>/<prompt set>/prompts.jsonl of each model"
    )
    parser.add_argument("--out", required=True, type=Path, help=".npz file to write")
    arguments = parser.parse_args()
    columns = [first_images(listing) for listing in arguments.listings]
    prompts = list(columns[0])
    for listing, column in zip(arguments.listings, columns, strict=True):
        if list(column) != prompts:
            raise UserError(f"{listing}: its prompts are not those of {arguments.listings[0]}; generate both again")
    grid = np.stack([np.stack([column[prompt] for column in columns]) for prompt in prompts])
    folders = [listing.parts[-3] for listing in arguments.listings]
    labels = [(parse_seed_folder(folder) or [folder])[0] for folder in folders]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=grid, prompts=np.array(prompts), labels=np.array(labels))
    write_atomic(arguments.out, lambda file: file.write(buffer.getvalue()))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"collect_grid: error: {error}", file=sys.stderr)
        sys.exit(2)
