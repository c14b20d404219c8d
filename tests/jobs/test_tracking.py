"""What a training shows while it runs: TensorBoard by default, Weights & Biases where asked."""

import json
import threading
from pathlib import Path

import pytest
import yaml
from accelerate import PartialState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tiny
from progrpo.cli import main
from progrpo.config import Run
from progrpo.errors import UserError
from progrpo.jobs.tracking import Tracking

RUN = {**tiny.FLOW, "iterations": 2, "group": {"size": 2}, "prompts_per_iteration": 2, "updates_per_iteration": 1}


def scalars(folder: Path, name: str) -> dict[int, float]:
    """{step: value} as TensorBoard would draw it."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {event.step: event.value for event in events.Scalars(name)}


def tracking(folder: Path, *names: str) -> Tracking:
    PartialState(cpu=True)  # a trainer has made it
    return Tracking(names, "flow", Run.model_validate(RUN), 0, folder)


def line(step: int, reward: float) -> dict:
    return {"iteration": step, "reward_mean": reward, "kl": None}


@pytest.fixture
def config(tmp_path) -> Path:
    return tiny.write_config(tmp_path / "config.yaml", tiny.make_models(tmp_path / "models"), flow=RUN)


def train(config: Path) -> int:
    return main(["train", "--config", str(config), "--run", "flow", "--out", str(config.parent / "run")])


def with_tracking(config: Path, names: list[str]) -> Path:
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"tracking": names}))
    return config


def test_tensorboard_shows_metrics_jsonl(config, capsys):
    assert train(config) == 0
    out = config.parent / "run"
    metrics = [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()]
    for name in ("reward_mean", "loss", "denoiser_calls"):
        expected = {each["iteration"]: pytest.approx(each[name]) for each in metrics}
        assert scalars(out / "tensorboard", name) == expected
    assert set(scalars(out / "tensorboard", "seconds/update")) == {1, 2}
    capsys.readouterr()
    assert train(with_tracking(config, [])) == 0  # it decides nothing
    assert "already trained" in capsys.readouterr().out


def test_without_trackers_there_is_no_folder_of_theirs(config):
    assert train(with_tracking(config, [])) == 0
    assert not (config.parent / "run/tensorboard").exists()


def test_iterations_that_come_again_are_drawn_once(tmp_path):
    with tracking(tmp_path, "tensorboard") as killed:
        for step in (1, 2, 3):
            killed.log(line(step, 0.25), {})
    with tracking(tmp_path, "tensorboard") as resumed:
        for step in (3, 4):
            resumed.log(line(step, 0.5), {"update": 1.0})
    assert scalars(tmp_path / "tensorboard", "reward_mean") == {1: 0.25, 2: 0.25, 3: 0.5, 4: 0.5}


def test_a_full_disk_ends_the_curves_and_not_the_training(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    with tracking(tmp_path, "tensorboard") as tracked:
        tracked.log(line(1, 0.5), {})

        def full(_):
            raise OSError(28, "No space left on device")

        writer = tracked.trackers["tensorboard"].writer.file_writer.event_writer._async_writer
        monkeypatch.setattr(writer._writer, "write", full)
        for step in (2, 3, 4):
            tracked.log(line(step, 0.5), {})
        assert tracked.trackers == {}
    told = capfd.readouterr()
    assert told.out.count("tensorboard: ") == 1
    assert "No space left on device" in told.out
    assert "Traceback" not in told.out + told.err


def test_a_folder_that_cannot_be_made_ends_the_curves_and_not_the_training(tmp_path, capsys):
    (tmp_path / "tensorboard").write_text("a file in its place")
    with tracking(tmp_path, "tensorboard") as tracked:
        tracked.log(line(1, 0.5), {})
        tracked.log(line(2, 0.5), {})
    told = capsys.readouterr().out
    assert told.count("tensorboard: ") == 1
    assert "not logged from here on" in told


def test_a_tracker_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install wandb"):
        tracking(tmp_path, "wandb")


def test_wandb_has_the_numbers_and_the_settings(tmp_path, monkeypatch, capfd):
    pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with tracking(tmp_path, "wandb") as tracked:
        tracked.log(line(1, 0.5), {"update": 1.0})
        run = tracked.trackers["wandb"].tracker
        assert (run.name, run.id, run.project) == ("flow-seed0", "flow-seed0", "progrpo")
        assert run.config["iterations"] == 2
    told = capfd.readouterr().err.split("Run summary:")[1]  # in this process it has none without a server
    assert "reward_mean 0.5" in told
    assert "seconds/update 1" in told
    assert list(tmp_path.glob("wandb/offline-run-*/run-flow-seed0.wandb"))
