"""What a person reads while the DAG runs, from the events that Snakemake sends."""

import pytest

from checkout import call
from progrpo.workflow.console import Console, duration, title

SNAKEFILE = """
rule all:
    input: expand("{run}-seed{seed}.txt", run=["a", "b"], seed=[0, 1])
rule train:
    output: "{run}-seed{seed}.txt"
    log: "{run}-seed{seed}.log"
    shell: "echo 'progrpo: {wildcards.run} has no weights' > {log}; test {wildcards.run} != {config[bad]} && touch {output}"
"""


def announce(console: Console, number: int, rule: str, now: float, **wildcards: str) -> None:
    console.lines("job_info", {"jobid": number, "rule_name": rule, "wildcards": wildcards, "log": []}, "", now)


def finish(console: Console, number: int, now: float) -> str:
    return "\n".join(console.lines("job_finished", {"job_id": number}, "", now))


@pytest.mark.parametrize(
    ("seconds", "text"), [(34.2, "34 s"), (200, "3 min 20 s"), (59.7, "1 min 0 s"), (7500, "2 h 5 min")]
)
def test_a_duration_has_two_units(seconds, text):
    assert duration(seconds) == text


def test_a_job_is_named_by_its_run_and_seed():
    assert title("train", {"run": "flowgrpo_sd35m", "seed": "0"}) == "train flowgrpo_sd35m seed 0"
    assert title("count_flops", {}) == "count flops"


def test_the_time_left_weighs_each_kind_by_what_its_finished_jobs_took():
    console = Console()
    console.lines("run_info", {"stats": {"train": 3, "draw": 2, "all": 1, "total": 6}}, "", 0.0)
    for number, rule in enumerate(["train", "train", "draw"]):
        announce(console, number, rule, 0.0, run="a")
    assert finish(console, 0, 100.0) == "train a: 1 min 40 s  (1 of 6 jobs)"
    assert console.seconds_left(100.0) is None
    finish(console, 2, 100.0)
    finish(console, 1, 100.0)
    # to come: train of 100 s, draw of 100 s, and `all` at the mean of the kinds; 300 s of work in 100 s were three at once
    assert console.seconds_left(100.0) == pytest.approx(300 / 3)


def test_the_closing_line_counts_every_job():
    console = Console()
    console.lines("run_info", {"stats": {"draw": 1, "all": 1, "total": 2}}, "", 0.0)
    for number, rule in enumerate(["draw", "all"]):
        announce(console, number, rule, 1.0)
    assert finish(console, 0, 3.0) == "draw: 2 s  (1 of 2 jobs)"
    assert finish(console, 1, 65.0) == "2 of 2 jobs done in 1 min 5 s"


def test_snakemake_names_the_run_of_each_job_and_the_end_of_the_log_of_a_failed_one(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    command = ("snakemake", "all", "--logger", "progrpo", "--cores", "1", "--keep-going", "--config")
    failed = call(*command, "bad=b", cwd=tmp_path)
    assert failed.returncode == 1
    assert "train a seed 1: " in failed.stdout
    assert "train b seed 0: failed after " in failed.stdout
    assert (
        failed.stdout.count("progrpo: b has no weights") == 2
    )  # once for each seed, though Snakemake repeats its errors
    assert "CalledProcessError" not in failed.stdout
    again = call(*command, "bad=none", cwd=tmp_path)
    assert again.returncode == 0
    assert again.stdout.splitlines()[:3] == ["3 jobs:", "      2  train", "      1  all"]
    assert again.stdout.splitlines()[-1].startswith("3 of 3 jobs done in ")
    logs = sorted((tmp_path / ".snakemake" / "log").iterdir())
    assert "rule train:" in logs[-1].read_text()  # the complete log is kept
