"""The rehearsal: tier paper's DAG over random weights, on a CPU, and one of its trainings once more on two processes."""

import os
import subprocess
from pathlib import Path

from progrpo.errors import UserError
from progrpo.files import read_jsonl
from progrpo.names import seed_folder
from progrpo.paper_runs import PROGRPO
from progrpo.rehearsal.stage import set_stage

TWO_RANKS = PROGRPO  # trained on two processes too
TOLERANCE = 0.05  # of the first mean reward, in its standard deviations: two processes round bf16 sums otherwise
ENVIRONMENT = {"PROGRPO_DEVICE": "cpu", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def rehearse(folder: Path, cores: int) -> None:
    """Set the stage in `folder`, run every rule of tier paper there, train on two ranks, and say what was made.

    The same command goes on where it was. UserError names the step that failed and its log.
    """
    config = set_stage(folder)
    _call(folder, "the DAG", "snakemake", "all", "--profile", "local", "--cores", str(cores), "--config", "tier=paper")
    alone = folder / config.results / "runs" / seed_folder(TWO_RANKS, config.run_seeds(TWO_RANKS)[0])
    together = folder / "results" / "two_ranks"
    train = ("progrpo", "train", "--config", "config/paper.yaml", "--run", TWO_RANKS, "--out", "results/two_ranks")
    launch = ("bash", "workflow/scripts/launch.sh", "1", "2", *train, "--if-changed", "begin-anew")
    _call(folder, "two ranks", *launch)
    one, two = (_first_iteration(run / "metrics.jsonl") for run in (alone, together))
    if not abs(one["reward_mean"] - two["reward_mean"]) <= TOLERANCE * one["reward_std"]:
        raise UserError(
            f"{together}: the first mean reward on two ranks is {two['reward_mean']}, on one {one['reward_mean']}"
        )
    print(
        f"The rehearsal of tier paper is complete in {folder}: {len(config.runs)} runs, {len(config.evaluations)} prompt sets,"
        f" {len(config.scorers)} scorers, {len(config.analyses) + 1} analyses; two ranks sample as one.\n"
        f"  tables  {folder / config.results / 'tables.html'}\n"
        "Its numbers mean nothing: the weights are random."
    )


def _call(folder: Path, step: str, *command: str) -> None:
    """Run a command in the folder; its output is this process's own."""
    outside = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}  # of an interactive job
    done = subprocess.run(command, cwd=folder, env={**outside, **ENVIRONMENT}, check=False)
    if done.returncode:
        raise UserError(f"{folder}: {step} failed with status {done.returncode}; the lines above name its log")


def _first_iteration(metrics: Path) -> dict[str, float]:
    return next(line for _, line in read_jsonl(metrics))
