"""A misspelt name is answered before anything is imported that takes seconds."""

import subprocess
import sys
import tomllib

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
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_without_torch(mistake):
    arguments, expected = MISTAKES[mistake]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1


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
