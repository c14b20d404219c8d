"""Images and their scores: seeds per image, resumption, names, and the errors a user can cause."""

import hashlib
import json
import os
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import tiny
from progrpo.benchmarks.images import list_images
from progrpo.benchmarks.prompt_sets import PromptRecord
from progrpo.cli import main
from progrpo.config import PromptSet, Sampling, load_config
from progrpo.errors import UserError
from progrpo.grpo.backbone import load_backbone
from progrpo.jobs.image_folder import ImageTask, image_tasks
from progrpo.jobs.images import generate_set, sample_images
from progrpo.safe_names import file_name
from progrpo.typed import read_yaml


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Path, Path]:
    """(config.yaml, images of the base model)."""
    folder = tmp_path_factory.mktemp("world")
    config = tiny.write_config(folder / "config.yaml", tiny.make_models(folder / "models"))
    images = folder / "images"
    assert main(["generate", "--config", str(config), "--run", "base_sd35m", "--out", str(images)]) == 0
    return config, images


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.*")}


def generate(config: Path, out: Path, *more: str) -> int:
    return main(["generate", "--config", str(config), "--run", "base_sd35m", "--out", str(out), *more])


def test_every_prompt_has_its_image_and_record(world):
    _, images = world
    listed = list_images(images / "test")
    assert [item.name for item in listed] == [f"{k:05d}.png" for k in range(6)]
    assert all(item.metadata["prompt"] == item.prompt for item in listed)
    with Image.open(listed[0].path) as image:
        assert image.size == (24, 24)


def test_one_initial_noise_is_shared_where_the_evaluation_says_so(world):
    config = load_config(world[0])
    backbone = load_backbone(config.models["sd35m"], torch.device("cpu"))
    record = PromptRecord("a red circle")
    tasks = [ImageTask(f"{k}.png", record, k, 0) for k in range(2)]  # the same words at two places
    for shared in (False, True):
        sampling = Sampling(steps=2, guidance_scale=1.0, shared_initial_noise=shared)
        first, second = sample_images(backbone, backbone.table(sampling), tasks, sampling, 0, batch=2)
        assert torch.allclose(first, second, atol=1e-3) == shared


def test_an_interrupted_generation_ends_with_the_same_images(world, tmp_path, capsys):
    config, images = world
    assert generate(config, tmp_path) == 0
    assert digests(tmp_path) == digests(images)
    for name in ("00001.png", "00004.png", "prompts.jsonl"):
        (tmp_path / "test" / name).unlink()
    kept = (tmp_path / "test" / "00000.png").stat().st_mtime_ns
    capsys.readouterr()
    assert generate(config, tmp_path) == 0
    assert "2/2 images" in capsys.readouterr().out
    assert (tmp_path / "test" / "00000.png").stat().st_mtime_ns == kept
    assert digests(tmp_path) == digests(images)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image, np.int16)


def test_an_image_depends_on_the_seed_but_not_on_the_batch(world, tmp_path):
    config, images = world
    other = yaml.safe_load(config.read_text())
    other["evaluations"]["test"]["batch"] = 3
    changed = tmp_path / "config.yaml"
    changed.write_text(yaml.safe_dump(other))
    assert generate(changed, tmp_path / "batch") == 0
    assert generate(config, tmp_path / "seed", "--seed", "1") == 0
    for name in [f"test/{k:05d}.png" for k in range(6)]:
        # A matrix product of another number of rows may round its sums otherwise: one grey level, no more.
        assert np.abs(pixels(tmp_path / "batch" / name) - pixels(images / name)).max() <= 1
        assert np.abs(pixels(tmp_path / "seed" / name) - pixels(images / name)).max() > 10


def test_one_prompt_gives_the_image_that_a_set_of_it_begins_with(world, tmp_path, capsys):
    config, images = world
    first = list_images(images / "test")[0]
    out = tmp_path / "new" / "one.png"
    assert generate(config, out, "--prompt", first.prompt) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    assert np.abs(pixels(out) - pixels(first.path)).max() <= 1  # sums of another batch round otherwise
    assert generate(config, out, "--prompt", first.prompt, "--seed", "1") == 0
    assert np.abs(pixels(out) - pixels(first.path)).max() > 10
    assert [path.name for path in out.parent.iterdir()] == ["one.png"]


def test_one_prompt_with_a_runs_weights_needs_those_that_were_published(world, tmp_path, capsys):
    config, _ = world
    (tmp_path / "final").mkdir()
    asked = ["generate", "--config", str(config), "--run", "flow_pro", "--prompt", "a red circle"]
    for more, message in (
        (["--out", "one.png"], "--run flow_pro: give --weights RUN/final"),
        (["--out", "one.gif", "--weights", str(tmp_path / "final")], "--out one.gif: name a .png or .jpg"),
        (["--out", "one.png", "--weights", str(tmp_path / "final")], "no provenance.json of a finished training"),
        (
            ["--out", str(tmp_path / "final" / "one.png"), "--weights", str(tmp_path / "final")],
            "lies in the folder of the weights",
        ),
    ):
        assert main([*asked, *more]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


def test_a_prompt_of_another_encoding_is_one_line_before_a_model_is_loaded(world, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("progrpo.jobs.generate.load_model", lambda *_: pytest.fail("loaded"))
    config, _ = world
    out = tmp_path / "one.png"
    assert generate(config, out, "--prompt", os.fsdecode(b"caf\xe9")) == 2  # as a shell passes latin-1
    (line,) = capsys.readouterr().err.splitlines()
    assert "--prompt 'caf\\udce9': not UTF-8 text" in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("layout", "count", "names"),
    [
        ("plain", 2, ["00000_00.png", "00000_01.png", "00001_00.png"]),
        ("geneval", 2, ["00000/samples/0000.png", "00000/samples/0001.png", "00001/samples/0000.png"]),
        ("compbench", 2, ["samples/a cat_000000.png", "samples/a cat_000001.png", "samples/a dog_000002.png"]),
        ("hpsv2", 1, ["photo/00000.jpg", "photo/00001.jpg"]),
    ],
)
def test_images_are_named_as_each_evaluator_expects(layout, count, names):
    style = {"style": "photo"} if layout == "hpsv2" else None
    records = [PromptRecord("a cat", style), PromptRecord("a dog", style)]
    tasks = image_tasks(records, PromptSet(path="x.txt", images_per_prompt=count, layout=layout))
    assert [task.name for task in tasks][: len(names)] == names


def test_styles_of_any_name_share_no_image_and_no_file_of_ours():
    styles = ["A", "a", "lock", "prompts.jsonl", "a/b", file_name("a/b"), "..", "e\u0301", "\xe9", "\ud800", "x" * 300]
    records = [PromptRecord("a cat", {"style": style}) for style in styles]
    tasks = image_tasks(records, PromptSet(path="x.json", layout="hpsv2"))
    assert len({normalize("NFC", task.name).casefold() for task in tasks}) == len(styles)
    for task in tasks:
        folder, _, name = task.name.partition("/")
        assert folder not in ("lock", "begun.json", "prompts.jsonl", "..")
        assert "/" not in name
        assert len(folder.encode()) <= 255


def test_images_are_not_written_through_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "samples").symlink_to(tmp_path / "elsewhere")
    tasks = image_tasks([PromptRecord("a cat")], PromptSet(path="x.txt", layout="compbench"))
    sampling = Sampling(steps=1, guidance_scale=1)
    with pytest.raises(UserError, match="leads out of"):
        generate_set(None, tasks, sampling, 0, 1, tmp_path / "out", print)


def test_evaluation_writes_means_and_each_image(world, tmp_path, capsys):
    config, images = world
    assert main(["evaluate", "--config", str(config), "--images", str(images), "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "test.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "test.scores.jsonl").read_text().splitlines()]
    assert result["scores"]["pickscore"]["n"] == len(rows) == 6
    mean = sum(row["pickscore"] for row in rows) / 6
    assert result["scores"]["pickscore"]["mean"] == pytest.approx(mean)
    assert result["provenance"]["seed"] == 0  # of the images


def test_a_trained_run_is_generated_with_its_weights(world, tmp_path):
    config, images = world
    run = ["--config", str(config), "--run", "flow_pro"]
    assert main(["train", *run, "--out", str(tmp_path / "run")]) == 0
    trained = ["generate", *run, "--weights", str(tmp_path / "run" / "final"), "--out", str(tmp_path / "images")]
    assert main(trained) == 0
    assert digests(tmp_path / "images")["test/00000.png"] != digests(images)["test/00000.png"]


def test_errors_are_one_line_and_leave_results_alone(world, tmp_path, capsys):
    config, images = world
    cases = [
        (["generate", "--config", config, "--run", "base_sd36m", "--out", tmp_path], "base_sd36m"),
        (["generate", "--config", config, "--run", "flow_pro", "--out", tmp_path], "--weights"),
        (["generate", "--config", config, "--run", "base_sd35m", "--prompts", "tset", "--out", tmp_path], "tset"),
        (
            ["generate", "--config", config, "--run", "flow_pro", "--weights", tmp_path / "no", "--out", tmp_path],
            "train the run first",
        ),
        (["evaluate", "--config", config, "--images", tmp_path / "no", "--out", tmp_path], "no such folder"),
        (["evaluate", "--config", config, "--images", tmp_path, "--out", tmp_path], "holds no prompt set"),
    ]
    for arguments, expected in cases:
        assert main([str(a) for a in arguments]) == 2
        error = capsys.readouterr().err
        assert expected in error
        assert len(error.splitlines()) == 1


@pytest.mark.parametrize("command", ["generate", "learning-curve"])
def test_nothing_is_written_among_the_weights_that_are_used(world, tmp_path, capsys, command):
    config, _ = world
    final, own = tmp_path / "final", tmp_path / "config.yaml"
    final.mkdir()
    own.write_text(yaml.safe_dump({**read_yaml(config), "learning_curve": "test"}))
    options = ["--config", str(own), "--run", "flow_pro", "--weights", str(final), "--out", str(final / "out")]
    assert main([command, *options]) == 2
    assert "lies in the folder of the weights" in capsys.readouterr().err
    assert not list(final.iterdir())


def test_prompts_that_cannot_be_read_are_found_before_anything_is_made(world, tmp_path, capsys, monkeypatch):
    config, _ = world
    data = read_yaml(config)
    blank = tmp_path / "blank.txt"
    blank.write_text("\n")
    data["prompt_sets"]["blank"] = {"path": str(blank)}
    data["evaluations"]["blank"] = data["evaluations"]["test"]
    other = tmp_path / "config.yaml"
    other.write_text(yaml.safe_dump(data))
    monkeypatch.setattr("progrpo.jobs.generate.load_model", lambda *_: pytest.fail("a model was loaded"))
    arguments = ["generate", "--config", str(other), "--run", "base_sd35m", "--prompts", "test", "blank"]
    assert main([*arguments, "--out", str(tmp_path / "images")]) == 2
    assert "blank.txt: holds no prompt" in capsys.readouterr().err
    assert not (tmp_path / "images").exists()


def test_an_image_that_does_not_open_is_named(world, tmp_path, capsys):
    config, _ = world
    assert generate(config, tmp_path / "images") == 0
    (tmp_path / "images" / "test" / "00002.png").write_bytes(b"no image")
    arguments = [
        "evaluate",
        "--config",
        str(config),
        "--images",
        str(tmp_path / "images"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(arguments) == 2
    assert "00002.png" in capsys.readouterr().err
    assert not (tmp_path / "out" / "test.json").exists()
