"""Ranks of one training as processes of their own, forked from a server that has imported the libraries once."""

import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path

import torch

from progrpo.cli import main
from progrpo.grpo.tuning import MovingAverage
from progrpo.rewards.pickscore import PickScore

SERVER = multiprocessing.get_context("forkserver")
# Not this module: the server finds what is installed, and says nothing of what it does not find.
SERVER.set_forkserver_preload(["progrpo.jobs.train", "progrpo.rewards.pickscore"])


def run_ranks(count: int, arguments: list[str], what: str = "", rank: int = -1) -> tuple[list[int], list[str]]:
    """(exit statuses, what was written on standard error) of `progrpo` on `count` ranks; its last argument is a folder to write.

    what: what is done to one rank. "no number": its reward is none; "killed": in iteration 2, as it samples; "stopped": asked to
    stop between two updates.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count)}
    out = Path(arguments[-1])
    said = [out.parent / f"{out.name}.rank{k}.err" for k in range(count)]
    ranks = [
        SERVER.Process(
            target=_rank,
            args=({**group, "RANK": str(k), "LOCAL_RANK": str(k)}, said[k], what if k == rank else "", arguments),
            daemon=True,
        )
        for k in range(count)
    ]
    try:
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(1200)
        assert all(process.exitcode is not None for process in ranks), "a rank hangs"
    finally:
        for process in ranks:
            process.kill()
    return [int(process.exitcode or 0) for process in ranks], [path.read_text() for path in said]


def _rank(group: dict[str, str], said: Path, what: str, arguments: list[str]) -> None:
    with open(said, "wb") as file:
        os.dup2(file.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.environ.update({**group, "OMP_NUM_THREADS": "1"})
    torch.set_num_threads(1)  # the server read the variable before
    if what:
        {"no number": _score_no_number, "killed": _be_killed, "stopped": _be_stopped}[what](Path(arguments[-1]))
    sys.exit(main(arguments))


def _score_no_number(out: Path) -> None:
    PickScore.score_batch = lambda self, images, prompts: torch.full((len(images),), float("nan"))


def _be_killed(out: Path) -> None:
    score = PickScore.score_batch

    def killed(self, images, prompts):
        if (out / "metrics.jsonl").exists():
            while not list((out / "state").glob("*.pt")):
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)
        return score(self, images, prompts)

    PickScore.score_batch = killed


def _be_stopped(out: Path) -> None:
    update = MovingAverage.update

    def stopped(self, parameters, step):
        update(self, parameters, step)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    MovingAverage.update = stopped
