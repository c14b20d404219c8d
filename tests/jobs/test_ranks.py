"""Two processes of one training (gloo): what fails on one of them is told once, and neither waits for the other."""

import os
import socket
import subprocess
import sys

import pytest

import tiny

# `progrpo`, whose reward is no number on the rank that its first argument names.
PROGRAM = """
import os, sys, torch
from progrpo.cli import main
from progrpo.rewards.pickscore import PickScore
if os.environ["RANK"] == sys.argv[1]:
    PickScore.score_batch = lambda self, images, prompts: torch.full((len(images),), float("nan"))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_of_one_rank_is_one_line_of_all_ranks(tmp_path, failing):
    config = tiny.write_config(tmp_path / "config.yaml", tiny.make_models(tmp_path / "models"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    arguments = ["train", "--config", str(config), "--run", "flow_pro", "--out", str(tmp_path / "out"), "--device=cpu"]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(failing), *arguments],
            env={**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [2, 2], errors
    assert errors[1 - failing] == ""
    assert "pickscore: the score for prompt" in errors[failing]
    assert len(errors[failing].splitlines()) == 1
