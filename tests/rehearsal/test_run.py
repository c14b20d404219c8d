"""The steps of the rehearsal: the whole DAG of tier paper, then two ranks against one; what fails is one line."""

import subprocess
from pathlib import Path

import pytest

from checkout import ROOT
from progrpo.config import Config, load_config
from progrpo.errors import UserError
from progrpo.files import write_jsonl
from progrpo.rehearsal import run


@pytest.fixture
def stage(tmp_path, monkeypatch) -> Path:
    """A stage that is set already, on which each command notes itself and leaves the metrics of its training."""
    config: Config = load_config(ROOT / "config" / "paper.yaml")
    monkeypatch.setattr(run, "set_stage", lambda folder: config)
    trained = {
        "snakemake": tmp_path / config.results / "runs" / f"{run.TWO_RANKS}-seed0",
        "bash": tmp_path / "results/two_ranks",
    }

    def call(command, cwd, env, check):
        with open(tmp_path / "commands", "a") as file:
            file.write(" ".join(command) + "\n")
        assert env["PROGRPO_DEVICE"] == "cpu"
        reward = {"snakemake": 1.0, "bash": float((tmp_path / "reward").read_text())}[command[0]]
        write_jsonl(trained[command[0]] / "metrics.jsonl", [{"reward_mean": reward, "reward_std": 0.1}])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(run.subprocess, "run", call)
    return tmp_path


def test_the_whole_dag_runs_and_then_one_training_on_two_ranks(stage, capsys):
    (stage / "reward").write_text("1.001")
    run.rehearse(stage, cores=3)
    first, second = (stage / "commands").read_text().splitlines()
    assert first == "snakemake all --profile local --cores 3 --config tier=paper"
    assert second.startswith("bash workflow/scripts/launch.sh 1 2 progrpo train --config config/paper.yaml")
    assert "numbers mean nothing" in capsys.readouterr().out


def test_ranks_that_sample_something_else_are_refused(stage):
    (stage / "reward").write_text("1.1")
    with pytest.raises(UserError, match="two_ranks: the first mean reward on two ranks is 1.1, on one 1.0"):
        run.rehearse(stage, cores=1)


def test_a_step_that_fails_is_named(stage, monkeypatch):
    monkeypatch.setattr(run.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1))
    with pytest.raises(UserError, match="the DAG failed with status 1"):
        run.rehearse(stage, cores=1)


def test_a_rehearsal_begins_at_the_repositorys_root(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="start the rehearsal from the root of the repository"):
        run.set_stage(tmp_path / "stage")
