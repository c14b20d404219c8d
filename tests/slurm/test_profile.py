"""`snakemake --profile slurm` on a real Slurm: the DAG, time limits, cancelled jobs, Ctrl-C, several ranks."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Cluster
from cut import RUN, change, outcome

from checkout import ENVIRONMENT
from progrpo.files import read_json, read_jsonl, write_json
from small_results import analyses

pytestmark = pytest.mark.xdist_group("slurm")
TRAINED = f"{RUN}/final/provenance.json"
POLLING = Path(__file__).with_name("polling.py")
LOG = "results/cut/logs/train/progrpo_sd35m-seed0.log"
# Slurm has no accounting here, and the first status query need not wait as long as on a busy cluster.
FOR_TESTS = (
    "--slurm-status-command",
    "squeue",
    "--slurm-init-seconds-before-status-checks",
    "2",
    "--latency-wait",
    "5",
)


class Workflow:
    """One `snakemake --profile slurm` in a checkout."""

    def __init__(self, checkout: Path, cluster: Cluster, *targets: str):
        command = [sys.executable, str(POLLING), *targets, "--profile", "slurm", *FOR_TESTS, "--config", "tier=cut"]
        self.checkout, self.cluster = checkout, cluster
        self.log = checkout / "snakemake.out"
        path = f"{cluster.folder / 'bin'}:{ENVIRONMENT['PATH']}:/usr/sbin"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=checkout,
                env={**ENVIRONMENT, **cluster.environment, "PATH": path},
                stdout=log,
                stderr=log,
                start_new_session=True,
                # A shell's background job ignores Ctrl-C, and what it starts inherits that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def wait(self) -> int:
        """Exit status; the test fails with the log when it hangs. A slow machine beside other tests takes seven minutes."""
        try:
            return self.process.wait(timeout=1500)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            pytest.fail(f"snakemake did not end:\n{self.text()[-3000:]}")

    def finish(self) -> None:
        """Wait for success."""
        assert self.wait() == 0, self.text()[-3000:]

    def text(self) -> str:
        return self.log.read_text()

    def until(self, ready: Callable[[], object], what: str, seconds: float = 1500) -> object:
        """Wait for a condition while the workflow runs; its value."""
        end = time.monotonic() + seconds
        while not (value := ready()):
            if time.monotonic() > end or self.process.poll() is not None:
                pytest.fail(f"no {what}:\n{self.text()[-3000:]}")
            time.sleep(0.1)
        return value

    def frozen_training(self, after: int = 0) -> tuple[int, int]:
        """(Slurm job, process) of the training, stopped past an iteration so that it cannot be too fast for the test."""
        self.until(lambda: list((self.checkout / RUN / "state").glob("*.pt")), "resume state")
        self.until(lambda: recorded(self.checkout) > after, f"iteration after {after}")
        process = self.until(lambda: training_process(self.checkout), "training process")
        os.kill(process, signal.SIGSTOP)
        (job,) = self.cluster.jobs()
        return job, process


def training_process(checkout: Path) -> int | None:
    """The process that trains in a checkout; not the Snakemake inside a job, which can hang at a signal where no cgroup ends it."""
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            here = folder.name.isdigit() and len(words) > 2 and Path(os.readlink(folder / "cwd")) == checkout
        except OSError:
            continue
        if here and words[1].endswith(b"/progrpo") and words[2] == b"train":
            return int(folder.name)
    return None


def recorded(checkout: Path) -> int:
    """How many iterations a training has recorded so far."""
    metrics = checkout / RUN / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def iterations(checkout: Path) -> list[int]:
    """Numbers of the iterations that a training has recorded."""
    return [line["iteration"] for _, line in read_jsonl(checkout / RUN / "metrics.jsonl")]


def check_uninterrupted(checkout: Path, reference: tuple[str, bytes]) -> None:
    """The training of a checkout ended as if nothing had happened to it."""
    assert outcome(checkout) == reference


def test_the_whole_dag_runs_as_jobs(cut, slurm, reference):
    write_json(cut / "results/cut/analysis/flops.json", analyses()["flops"])  # to count them takes a minute
    before = len(slurm.states())
    Workflow(cut, slurm, "all").finish()
    states = slurm.states()[before:]
    assert set(states) == {"COMPLETED"}
    assert len(states) >= 6  # a training, two generations, two evaluations, the summary
    check_uninterrupted(cut, reference)
    evaluations = read_json(cut / "results/cut/summary.json")["evaluations"]
    assert set(evaluations) == {"base_sd35m", "progrpo_sd35m"}
    second = Workflow(cut, slurm, "all")
    second.finish()
    assert "Nothing to be done" in second.text()


def test_a_training_that_meets_its_time_limit_and_is_cancelled_goes_on_from_its_state(cut, slurm, reference):
    workflow = Workflow(cut, slurm, TRAINED)
    job, process = workflow.frozen_training()
    before = recorded(cut)
    ends = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 2))
    slurm.run("scontrol", "update", f"JobId={job}", f"EndTime={ends}")
    workflow.until(lambda: not Path(f"/proc/{process}").exists(), "end at the time limit")
    second, _ = workflow.frozen_training(before)
    assert second != job
    slurm.run("scancel", str(second))
    workflow.finish()
    assert slurm.states()[-3:] == ["TIMEOUT", "CANCELLED", "COMPLETED"]
    assert "resuming after iteration" in (cut / LOG).read_text()
    check_uninterrupted(cut, reference)


def test_ctrl_c_leaves_nothing_behind_and_the_same_command_goes_on(cut, slurm, reference):
    workflow = Workflow(cut, slurm, TRAINED)
    _, process = workflow.frozen_training()
    workflow.process.send_signal(signal.SIGINT)
    assert workflow.wait() != 0
    end = time.monotonic() + 300
    ending = Path(f"/proc/{process}")
    while (slurm.jobs() or training_process(cut) or ending.exists()) and time.monotonic() < end:
        time.sleep(0.2)
    assert slurm.jobs() == []
    assert training_process(cut) is None
    assert not ending.exists()
    assert not (cut / TRAINED).exists()
    Workflow(cut, slurm, TRAINED).finish()
    check_uninterrupted(cut, reference)


def test_two_ranks_train_inside_one_allocation(cut, slurm):
    change(cut, hardware={"gpus": 2, "memory_gb": 2, "hours": 1}, iterations=2)
    Workflow(cut, slurm, TRAINED).finish()
    assert iterations(cut) == [1, 2]
    assert "on each of 2 ranks" in (cut / LOG).read_text()


def test_two_nodes_train_together(cut, slurm):
    change(cut, hardware={"gpus": 1, "nodes": 2, "memory_gb": 1, "hours": 1}, iterations=2)
    Workflow(cut, slurm, TRAINED).finish()
    assert iterations(cut) == [1, 2]
    assert "on each of 2 ranks" in (cut / LOG).read_text()
    assert slurm.run("squeue", "-h", "-t", "all", "-o", "%A %D", "--sort=-i").splitlines()[0].endswith(" 2")
