"""Several processes of one training (gloo): the update does not depend on how many, and what ends one of them is told once."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tiny
from progrpo.cli import main
from progrpo.config import load_config
from progrpo.jobs.train import train_run

# `progrpo`, with what is done to the rank that its second argument names: its reward is no number, or it is killed in iteration 2.
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
if os.environ["RANK"] == rank:
    no_number = lambda self, images, prompts: torch.full((len(images),), float("nan"))
    PickScore.score_batch = {"no number": no_number, "killed": killed}[what]
sys.exit(main([*arguments, "--out", out]))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return tiny.make_models(tmp_path_factory.mktemp("models"))


def train(count: int, config: Path, out: Path, what: str = "", rank: int = -1) -> tuple[list[int], list[str]]:
    """(exit statuses, what was written on standard error) of the ranks of a training."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count)}
    arguments = ["train", "--config", str(config), "--run", "flow_pro", "--device=cpu"]
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


def test_one_two_and_four_ranks_make_the_same_update(models, tmp_path):
    run = {**tiny.FLOW, "iterations": 1, "updates_per_iteration": 1}
    config = tiny.write_config(tmp_path / "config.yaml", models, flow_pro=run)
    updates = {}
    for count in (1, 2, 4):
        statuses, errors = train(count, config, tmp_path / f"{count}")
        assert statuses == [0] * count, errors
        updates[count] = first_moment(tmp_path / f"{count}")
    for count in (2, 4):
        assert (updates[count] - updates[1]).norm() < 1e-4 * updates[1].norm()


def test_a_launcher_that_shards_the_model_is_refused(models, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    config = tiny.write_config(tmp_path / "config.yaml", models)
    assert main(["train", "--config", str(config), "--run", "flow_pro", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "ACCELERATE_USE_FSDP: a training does not shard its model" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()
