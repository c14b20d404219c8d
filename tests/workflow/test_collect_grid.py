"""The grid of one image per prompt and model: images as evaluations see them, one line for what is wrong."""

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from checkout import ROOT, call
from progrpo.files import write_jsonl

RED, BLUE = (255, 0, 0), (0, 0, 255)


def model(folder: Path, name: str, images: list[tuple[str, Image.Image]]) -> Path:
    """A generated prompt set of a model: (prompt, image) in its order."""
    made = folder / f"{name}-seed0" / "drawbench"
    made.mkdir(parents=True)
    for number, (_, image) in enumerate(images):
        image.save(made / f"{number}.png", exif=image.getexif())
    lines = [{"image": f"{number}.png", "prompt": prompt} for number, (prompt, _) in enumerate(images)]
    write_jsonl(made / "prompts.jsonl", lines)
    return made / "prompts.jsonl"


def plain(color: tuple[int, int, int], size: tuple[int, int] = (2, 2)) -> Image.Image:
    return Image.new("RGB", size, color)


def collect(folder: Path, *listings: Path):
    script = ROOT / "workflow" / "scripts" / "collect_grid.py"
    return call("python", str(script), *map(str, listings), "--out", str(folder / "grid.npz"), cwd=folder)


@pytest.fixture
def base(tmp_path) -> Path:
    return model(tmp_path, "base_sd14", [("a cat", plain(RED)), ("a cat", plain(BLUE)), ("a dog", plain(BLUE))])


def test_a_grid_has_the_first_image_of_each_prompt_and_a_column_per_model(base, tmp_path):
    turned = plain(RED)
    turned.putpixel((0, 0), BLUE)
    turned.getexif()[ExifTags.Base.Orientation] = 3
    grey = Image.fromarray(np.full((2, 2), 128 << 8, np.uint16))
    other = model(tmp_path, "progrpo_sd14", [("a cat", turned), ("a dog", grey)])
    result = collect(tmp_path, base, other)
    assert result.returncode == 0, result.stdout
    with np.load(tmp_path / "grid.npz") as grid:
        assert grid["prompts"].tolist() == ["a cat", "a dog"]
        assert grid["labels"].tolist() == ["base_sd14", "progrpo_sd14"]
        images = grid["images"]
    assert images.shape == (2, 2, 2, 2, 3)
    assert (images[:, 0] == [[[RED]], [[BLUE]]]).all()
    assert images[0, 1].tolist() == [[[*RED], [*RED]], [[*RED], [*BLUE]]]  # upright
    assert (images[1, 1] == 128).all()  # not white


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([("a cat", plain(RED))], "its prompts are not those of"),
        ([("a cat", plain(RED)), ("a dog", plain(RED, (4, 4)))], "its images are not all of the size of"),
    ],
)
def test_models_that_differ_are_one_line(base, tmp_path, images, message):
    result = collect(tmp_path, base, model(tmp_path, "other", images))
    assert (result.returncode, result.stdout.count("\n")) == (2, 1)
    assert message in result.stdout
    assert not (tmp_path / "grid.npz").exists()


def test_an_image_that_is_missing_or_outside_is_one_line(base, tmp_path):
    (base.parent / "2.png").unlink()
    result = collect(tmp_path, base)
    assert (result.returncode, result.stdout.count("\n")) == (2, 1)
    assert "1 of 3 images do not exist, the first is 2.png" in result.stdout
    write_jsonl(base, [{"image": "../../0.png", "prompt": "a cat"}])
    result = collect(tmp_path, base)
    assert (result.returncode, result.stdout.count("\n")) == (2, 1)
    assert "prompts.jsonl:1: " in result.stdout
