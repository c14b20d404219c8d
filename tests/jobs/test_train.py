"""A run's folder over several starts: resumed, refused, begun anew, published again, locked; and what generation makes of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import tiny
from progrpo.cli import main
from progrpo.config import Run
from progrpo.files import sha256
from progrpo.identity import REFUSE, Folder
from progrpo.jobs.publication import OWNS, is_complete

pytestmark = pytest.mark.xdist_group("train")  # its fixture is made once, by one worker
RUN = {**tiny.FLOW, "iterations": 2, "group": {"size": 2}, "prompts_per_iteration": 2, "updates_per_iteration": 1}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """config.yaml, a trained run in `run` and its images in `images`; each test leaves them as they were."""
    folder = tmp_path_factory.mktemp("world")
    config = tiny.write_config(folder / "config.yaml", tiny.make_models(folder / "models"), flow=RUN)
    assert train(config) == 0
    assert generate(config) == 0
    return config


def command(name: str, config: Path, *more: str) -> int:
    return main([name, "--config", str(config), "--run", "flow", *more])


def train(config: Path, *more: str) -> int:
    return command("train", config, "--out", str(config.parent / "run"), *more)


def generate(config: Path, *more: str) -> int:
    final, images = config.parent / "run" / "final", config.parent / "images"
    return command("generate", config, "--weights", str(final), "--out", str(images), *more)


def weights(config: Path) -> Path:
    return config.parent / "run" / "final" / "pytorch_lora_weights.safetensors"


def changed(config: Path, **values) -> Path:
    """A configuration beside `config` whose run has other values."""
    content = yaml.safe_load(config.read_text())
    content["runs"]["flow"] |= values
    other = config.with_name("changed.yaml")
    other.write_text(yaml.safe_dump(content))
    return other


def test_a_change_that_decides_nothing_is_already_trained(world, capsys):
    other = changed(world, method="Other", evaluations=[], save_every=2, hardware={"hours": 2}, micro_batch=1)
    assert train(other) == 0
    assert "already trained" in capsys.readouterr().out


def test_a_change_that_decides_is_refused_by_one_line_and_begun_anew_when_asked(world, capsys):
    before = sha256(weights(world))
    other = changed(world, optimizer={"learning_rate": 1e-2})
    assert train(other) == 2
    error = capsys.readouterr().err
    assert "optimizer.learning_rate: 0.001 is not 0.01;" in error
    assert len(error.splitlines()) == 1
    assert sha256(weights(world)) == before
    assert train(other, "--if-changed", "begin-anew") == 0
    assert "resuming" not in capsys.readouterr().out
    assert sha256(weights(world)) != before
    assert train(world, "--if-changed", "begin-anew") == 0
    assert sha256(weights(world)) == before


def test_weights_that_changed_are_neither_complete_nor_used(world, capsys):
    before, images = sha256(weights(world)), sha256(world.parent / "images" / "test" / "prompts.jsonl")
    content = bytearray(weights(world).read_bytes())
    content[-1] ^= 1
    weights(world).write_bytes(content)
    assert generate(world) == 2
    error = capsys.readouterr().err
    assert str(weights(world)) in error
    assert len(error.splitlines()) == 1
    assert train(world) == 0
    assert "resuming after iteration 2" in capsys.readouterr().out  # published again from the last state
    assert sha256(weights(world)) == before
    assert generate(world) == 0
    assert sha256(world.parent / "images" / "test" / "prompts.jsonl") == images


@pytest.mark.parametrize("name", ["metrics.jsonl", "final/provenance.json", "published.json"])
def test_a_record_of_a_finished_run_that_changed_is_made_again(world, capsys, name):
    file = world.parent / "run" / name
    before = file.read_bytes()
    file.write_bytes(before.replace(b"1", b"2", 1))
    assert train(world) == 0
    assert "published; going on from the last state" in capsys.readouterr().out
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", ["run", "images/test"])
def test_a_folder_in_use_is_refused(world, capsys, name):
    start = train if name == "run" else generate
    with Folder(world.parent / name, ()).held(wait=False):
        assert start(world) == 2
    error = capsys.readouterr().err
    assert "lock: held by process " in error
    assert len(error.splitlines()) == 1
    assert start(world) == 0


def test_images_of_another_run_are_not_kept(world, capsys):
    before = json.loads((world.parent / "images" / "test" / "begun.json").read_text())
    assert generate(world, "--seed", "1") == 2
    assert "seed: 0 is not 1" in capsys.readouterr().err
    assert generate(world, "--seed", "1", "--if-changed", "begin-anew") == 0
    assert "6/6 images" in capsys.readouterr().out
    assert generate(world, "--if-changed", "begin-anew") == 0
    assert json.loads((world.parent / "images" / "test" / "begun.json").read_text()) == before


def test_an_image_that_changed_is_not_evaluated_and_made_again(world, tmp_path, capsys):
    image = world.parent / "images" / "test" / "00002.png"
    before = sha256(image)
    image.write_bytes((world.parent / "images" / "test" / "00001.png").read_bytes())
    evaluate = ["evaluate", "--config", str(world), "--images", str(world.parent / "images"), "--out", str(tmp_path)]
    assert main(evaluate) == 2
    assert f"{image}: not the image that was made" in capsys.readouterr().err
    assert generate(world) == 0
    assert sha256(image) == before
    assert main(evaluate) == 0


def test_an_evaluation_knows_its_scorers_and_images(world, tmp_path, capsys):
    evaluate = ["--images", str(world.parent / "images"), "--out", str(tmp_path)]
    assert main(["evaluate", "--config", str(world), *evaluate]) == 0
    assert main(["evaluate", "--config", str(world), *evaluate]) == 0
    content = yaml.safe_load(world.read_text())
    content["scorers"]["pickscore"]["precision"] = "bf16"
    other = world.with_name("scorer.yaml")
    other.write_text(yaml.safe_dump(content))
    before = sha256(tmp_path / "test.scores.jsonl")
    capsys.readouterr()
    assert main(["evaluate", "--config", str(other), *evaluate]) == 2
    assert "scorers.pickscore.precision: fp32 is not bf16;" in capsys.readouterr().err
    assert sha256(tmp_path / "test.scores.jsonl") == before
    assert main(["evaluate", "--config", str(other), *evaluate, "--if-changed", "begin-anew"]) == 0
    assert sha256(tmp_path / "test.scores.jsonl") != before


def test_a_home_that_cannot_be_written_is_no_obstacle(world, tmp_path):
    """Neither the libraries nor the cache of hashes need one: in containers and on clusters it is often read-only."""
    others = ("XDG_CACHE_HOME", "HF_HOME", "TORCH_HOME", "MPLCONFIGDIR")
    environment = {**{k: v for k, v in os.environ.items() if k not in others}, "HOME": "/proc/nowhere"}
    common = ["--config", str(world), "--run", "flow"]
    out, images = tmp_path / "run", tmp_path / "images"
    commands = [
        ["train", *common, "--out", str(out)],
        ["generate", *common, "--weights", str(out / "final"), "--out", str(images)],
    ]
    both = f"import sys; from progrpo.cli import main; sys.exit([main(command) for command in {commands}] != [0, 0])"
    done = subprocess.run([sys.executable, "-c", both], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert sha256(out / "final" / weights(world).name) == sha256(weights(world))
    assert len(list((images / "test").glob("*.png"))) == 6


def test_an_empty_folder_that_the_workflow_made_is_no_finished_training(tmp_path, capsys):
    (tmp_path / "final").mkdir()
    assert not is_complete(Folder(tmp_path, OWNS), Run(**RUN), {"seed": 0}, REFUSE)
    assert capsys.readouterr().out == ""
