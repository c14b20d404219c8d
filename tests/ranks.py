"""Ranks of one training as processes of their own, forked from a server that has imported the libraries once."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import torch

import forked
from progrpo.cli import main
from progrpo.grpo.tuning import MovingAverage
from progrpo.rewards.pickscore import PickScore


def run_ranks(count: int, arguments: list[str], what: str = "", rank: int = -1) -> tuple[list[int], list[str]]:
    """(exit statuses, what was written on standard error) of `progrpo` on `count` ranks; its last argument is a folder to write.

    what: what is done to one rank. "no number": its reward is none; "killed": in iteration 2, as it samples; "stopped": asked to
    stop between two updates.
    """
    commands = [[__file__, what if k == rank else "", *arguments] for k in range(count)]
    return run_group(commands, Path(arguments[-1]))


def run_group(commands: list[list], out: Path) -> tuple[list[int], list[str]]:
    """(exit statuses, what was written on standard error) of one process of `python` for each command, which meet as one group.

    What they write lies beside `out`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        group = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free.getsockname()[1]),
            "WORLD_SIZE": str(len(commands)),
        }
    environment = {**os.environ, **group, "OMP_NUM_THREADS": "1"}
    said = [out.parent / f"{out.name}.rank{k}.err" for k in range(len(commands))]
    ranks: list[forked.Process] = []
    try:
        for k, (command, path) in enumerate(zip(commands, said, strict=True)):
            own = {**environment, "RANK": str(k), "LOCAL_RANK": str(k)}
            with open(path, "wb") as errors:
                process = forked.Process([sys.executable, *command], env=own, stdout=subprocess.DEVNULL, stderr=errors)
            ranks.append(process)
        statuses = [process.wait(1200) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    return statuses, [path.read_text() for path in said]


def _run_rank(what: str, arguments: list[str]) -> int:
    if what:
        {"no number": _score_no_number, "killed": _be_killed, "stopped": _be_stopped}[what](Path(arguments[-1]))
    return main(arguments)


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


if __name__ == "__main__":
    sys.exit(_run_rank(sys.argv[1], sys.argv[2:]))
