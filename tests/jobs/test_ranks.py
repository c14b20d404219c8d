"""Several processes of one training (gloo): the update does not depend on how many, and what ends one of them is told once."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tiny
from progrpo.cli import main
from progrpo.config import load_config
from progrpo.jobs.train import train_run

# `progrpo`, with what is done to the rank that its second argument names: its reward is no number, or in iteration 2 it is killed or
# asked to stop.
PROGRAM = """
import os, signal, sys, time, torch
from pathlib import Path
from progrpo.cli import main
from progrpo.rewards.pickscore import PickScore
what, rank, out, *arguments = sys.argv[1:]
score = PickScore.score_batch
def killed(self, images, prompts):
    if Path(out, "metrics.jsonl").exists():
        while not list(Path(out, "state").glob("*.pt")):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    return score(self, images, prompts)
def stopped(self, images, prompts):
    if Path(out, "metrics.jsonl").exists():
        os.kill(os.getpid(), signal.SIGTERM)
    return score(self, images, prompts)
if os.environ["RANK"] == rank:
    no_number = lambda self, images, prompts: torch.full((len(images),), float("nan"))
    PickScore.score_batch = {"no number": no_number, "killed": killed, "stopped": stopped}[what]
sys.exit(main([*arguments, "--out", out]))
"""

SHARD = {"shard": True}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return tiny.make_models(tmp_path_factory.mktemp("models"))


def train(
    count: int, config: Path, out: Path, what: str = "", rank: int = -1, run: str = "flow_pro"
) -> tuple[list[int], list[str]]:
    """(exit statuses, what was written on standard error) of the ranks of a training."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count)}
    arguments = ["train", "--config", str(config), "--run", run, "--device=cpu"]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, what, str(rank), str(out), *arguments],
            env={**os.environ, **group, "RANK": str(k), "LOCAL_RANK": str(k), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in range(count)
    ]
    try:
        errors = [process.communicate(timeout=1200)[1] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    return [process.returncode for process in ranks], errors


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_of_one_rank_is_one_line_of_all_ranks(models, tmp_path, failing):
    config = tiny.write_config(tmp_path / "config.yaml", models)
    statuses, errors = train(2, config, tmp_path / "out", "no number", failing)
    assert statuses == [2, 2], errors
    assert errors[1 - failing] == ""
    assert "pickscore: the score for prompt" in errors[failing]
    assert len(errors[failing].splitlines()) == 1


@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_rank_ends_the_job_with_one_line_and_the_same_command_goes_on(models, tmp_path, lost):
    config, out = tiny.write_config(tmp_path / "config.yaml", models), tmp_path / "out"
    statuses, errors = train(2, config, out, "killed", lost)
    assert (statuses[lost], statuses[1 - lost]) == (-signal.SIGKILL, 2), errors
    assert "".join(errors).splitlines() == [
        f"{out}: another rank ended without a word, as one that is killed does; what is saved is whole, and the same command goes on"
    ]
    assert train_run(load_config(config), "flow_pro", 0, out, "cpu") == 0
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 3


def first_moment(out: Path) -> torch.Tensor:
    """AdamW's first moment after one update: a tenth of the clipped gradient, without the sign function that the weights take."""
    state = torch.load(next((out / "state").glob("*.pt")), weights_only=True)
    return torch.cat([moments["exp_avg"].flatten() for moments in state["optimizer"]["state"].values()])


def test_one_two_and_four_ranks_make_the_same_update_with_whole_and_sharded_weights(models, tmp_path):
    run = {**tiny.FLOW, "iterations": 1, "updates_per_iteration": 1}
    config = tiny.write_config(tmp_path / "config.yaml", models, flow_pro=run, sharded={**run, "speed": SHARD})
    assert train_run(load_config(config), "flow_pro", 0, tmp_path / "one", "cpu") == 0
    alone = first_moment(tmp_path / "one")
    for name, count in itertools.product(("flow_pro", "sharded"), (2, 4)):
        statuses, errors = train(count, config, tmp_path / f"{name}{count}", run=name)
        assert statuses == [0] * count, errors
        assert (first_moment(tmp_path / f"{name}{count}") - alone).norm() < 1e-4 * alone.norm()


@pytest.mark.parametrize("run", [{**tiny.FLOW, "snapshots": [1]}, {**tiny.DIFFUSION, "ema": tiny.FLOW["ema"]}])
def test_sharded_weights_are_stopped_resumed_and_published_as_whole_ones(models, tmp_path, run):
    """Adapters beside sharded weights; all weights sharded, their reference and average too. A signal to one rank stops both."""
    config = tiny.write_config(tmp_path / "config.yaml", models, whole=run, sharded={**run, "speed": SHARD})
    assert train_run(load_config(config), "whole", 0, tmp_path / "whole", "cpu") == 0
    statuses, errors = train(2, config, tmp_path / "two", "stopped", 1, run="sharded")
    assert (statuses, errors) == ([143, 143], ["", ""])
    assert len((tmp_path / "two/metrics.jsonl").read_text().splitlines()) == 1
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    assert train_run(load_config(config), "sharded", 0, tmp_path / "one", "cpu") == 0
    assert train(2, config, tmp_path / "two", run="sharded") == ([0, 0], ["", ""])
    for out in (tmp_path / "one", tmp_path / "two"):
        for folder in ("final", "snapshots"):
            require_equal_up_to_rounding(tmp_path / "whole" / folder, out / folder)


def require_equal_up_to_rounding(expected: Path, found: Path) -> None:
    files = {str(path.relative_to(expected)) for path in expected.rglob("*") if path.is_file()}
    assert files == {str(path.relative_to(found)) for path in found.rglob("*") if path.is_file()}
    for name in files:
        if name.endswith(".safetensors"):
            weights, others = load_file(expected / name), load_file(found / name)
            assert weights.keys() == others.keys()
            for key, weight in weights.items():
                torch.testing.assert_close(others[key], weight, rtol=1e-4, atol=1e-6)
        elif not name.endswith("provenance.json"):
            assert (found / name).read_bytes() == (expected / name).read_bytes(), name


def test_a_launcher_that_shards_the_model_is_refused(models, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    config = tiny.write_config(tmp_path / "config.yaml", models)
    assert main(["train", "--config", str(config), "--run", "flow_pro", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "ACCELERATE_USE_FSDP: a training shards its own weights" in error
    assert "speed.shard: true" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()
