"""A misspelt name is answered before anything is imported that takes seconds."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from checkout import ROOT
from progrpo.cli import main

SCRIPT = """
import sys
from progrpo.cli import main
status = main(sys.argv[1:])
assert "torch" not in sys.modules, "torch was imported"
sys.exit(status)
"""
MISTAKES = {
    "config": (["train", "--config", "nope.yaml", "--run", "x", "--out", "o"], "no such config"),
    "run": (["train", "--config", "config/smoke.yaml", "--run", "x", "--out", "o"], "no such run"),
    "images": (["generate", "--config", "config/smoke.yaml", "--run", "x", "--out", "o"], "no such run"),
    "analysis": (["sample-rewards", "--config", "config/smoke.yaml", "--analysis", "x", "--out", "o"], "--analysis x"),
    "detections": (["geneval", "verdict", "--detections", "nope.jsonl", "--out", "o"], "nope.jsonl"),
    "timed run": (["bench", "--config", "config/smoke.yaml", "--compare", "plain", "--runs", "x"], "no such run"),
    **{
        f"seed {seed} of {command}": (
            [command, "--config", "config/smoke.yaml", "--run", "progrpo_sd35m", "--seed", seed, "--out", "o"],
            f"--seed {seed}: must be between 0 and",
        )
        for command, seed in (("train", "-1"), ("train", str(2**32)), ("generate", "-1"), ("learning-curve", "-1"))
    },
    "seed of miniature": (["miniature", "pickscore", "--seed", "-1", "--out", "o"], "--seed -1: must be between 0 and"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_without_torch(mistake):
    arguments, expected = MISTAKES[mistake]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1


PARSED = """
import sys
from snakemake.cli import main
try:
    main(sys.argv[1:])
finally:
    assert "progrpo.workflow.plan" in sys.modules
    assert "torch" not in sys.modules, "torch was imported"
"""


def test_the_rules_are_read_without_torch():
    """The Snakemake inside every job reads them again."""
    options = ["-n", "results/smoke/analysis/flops.json", "--quiet", "all", "--nolock", "--config", "tier=smoke"]
    done = subprocess.run([sys.executable, "-c", PARSED, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_version_is_that_of_the_project(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert capsys.readouterr().out == f"progrpo {version}\n"


def test_the_package_is_imported_without_its_libraries():
    code = "import sys; before = set(sys.modules); import progrpo; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["progrpo"]


def test_images_are_scored_without_the_library_that_makes_them():
    """A tier has hundreds of such jobs, and diffusers takes seconds to import."""
    code = "import sys, progrpo.jobs.evaluate; print(*{'diffusers', 'peft', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split()


COMMAND = [sys.executable, "-c", "import sys; from progrpo.cli import main; sys.exit(main(sys.argv[1:]))"]


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["--completion", "bash"], ["fetch", "--list"]])
def test_a_reader_that_has_left_is_no_traceback(arguments):
    """As `progrpo ... | head -1`, of short outputs and long ones."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(writer)
    assert done.returncode in (0, 141)  # argparse itself passes over a help text that nobody reads
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_behind_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "fetch", "--list"], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == "progrpo fetch: error: standard output: No space left on device\n"


@pytest.mark.parametrize(
    ("closed", "arguments", "status"),
    [(">&-", "--version", 0), (">&-", "fetch --list", 0), ("2>&-", "claims --tier nope", 2), (">&- 2>&-", "--help", 0)],
)
def test_a_closed_output_is_no_failure(closed, arguments, status):
    """As under a daemon."""
    command = ["bash", "-c", f'"$@" {arguments} {closed}', "bash", *COMMAND]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


def test_a_shortened_option_is_none(capsys, tmp_path, monkeypatch):
    """`--ou ''` would pass the check of `--out` and train into the current folder."""
    monkeypatch.chdir(tmp_path)
    config = str(ROOT / "config" / "smoke.yaml")
    with pytest.raises(SystemExit) as left:
        main(["train", "--config", config, "--run", "progrpo_sd35m", "--ou", ""])
    assert left.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["sample-rewards", "--config", "c", "--analysis", "reward_clustering"],
        ["analyse", "reward-clustering", "--rewards", "r"],
        ["costs", "--config", "c", "--run", "r", "--folder", "f"],
        ["bench", "--config", "c"],
        ["scorers", "throughput"],
    ],
)
def test_a_folder_in_the_place_of_a_file_is_found_before_the_work(capsys, tmp_path, arguments):
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--out", str(tmp_path)])
    assert left.value.code == 2
    assert "names no file" in capsys.readouterr().err


def test_a_variable_of_the_shell_that_is_not_set_is_no_folder(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = str(ROOT / "config" / "smoke.yaml")
    assert main(["train", "--config", config, "--run", "progrpo_sd35m", "--seed", "0", "--out", ""]) == 2
    assert capsys.readouterr().err == "progrpo: error: --out: is empty\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("command", "missing"), [("compare", "results/published"), ("summary", "results/smoke")])
def test_from_another_folder_nothing_false_is_said_or_written(capsys, tmp_path, monkeypatch, command, missing):
    monkeypatch.chdir(tmp_path)
    assert main([command, "--config", str(ROOT / "config" / "smoke.yaml")]) == 2
    said = capsys.readouterr()
    assert f"{missing} is not here" in said.err
    assert said.out == ""
    assert not list(tmp_path.iterdir())
