"""A fork of tests/forked.py ends as the command itself does, which is started beside it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import forked
from checkout import ENVIRONMENT

SAYS = "import os, sys; print(sys.argv, os.getcwd(), os.environ['SAID'], sys.path[0]); print('b', file=sys.stderr); "
PROGRAMS = {
    "status": f"{SAYS}sys.exit(7)",
    "word": f"{SAYS}sys.exit('a word')",
    "signal": f"{SAYS}sys.stdout.flush(); os.kill(os.getpid(), 15)",
    "interrupted": f"{SAYS}import signal; signal.signal(2, signal.default_int_handler); os.kill(os.getpid(), 2)",
    "input": f"{SAYS}sys.stdout.reconfigure(errors='backslashreplace'); print([sys.stdin.read()])",
    "at exit": f"{SAYS}import atexit; atexit.register(print, 'bye')",
}


@pytest.fixture(autouse=True)
def light(monkeypatch):
    """A server that imports nothing."""
    monkeypatch.setattr(forked, "TRAINING", ())


def both(command: list[str], folder: Path) -> list[tuple[int, str, str]]:
    """(status, standard output, standard error up to a traceback) of a command and of its fork."""
    options = {"cwd": folder, "env": {**ENVIRONMENT, "SAID": "ä"}, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    done = [subprocess.run(command, text=True, stdin=subprocess.DEVNULL, **options), forked.run(command, **options)]
    return [(each.returncode, each.stdout, each.stderr.partition("Traceback")[0]) for each in done]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_fork_ends_as_the_command_does(tmp_path, program):
    command, fork = both(["python", "-c", PROGRAMS[program], "a word", "--option"], tmp_path)
    assert fork == command
    assert "--option" in fork[1]


def test_scripts_and_modules_are_what_is_run(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "script.py").write_text(f"{SAYS}assert __name__ == '__main__'; 1 / 0")
    for words in (["inside/script.py", "x"], ["-m", "inside.script"]):
        command, fork = both([sys.executable, *words], tmp_path)
        assert fork == command
        assert fork[0] == 1
        assert "script.py" in fork[1]
    command, fork = both(["progrpo", "train", "--config", "none.yaml", "--run", "x", "--out", "y"], tmp_path)
    assert fork == command
    assert "none.yaml" in fork[2]


def test_a_fork_is_read_from_waited_for_and_killed():
    program = "import time; print('here', flush=True); time.sleep(60)"
    process = forked.Process([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout.readline() == "here\n"
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert process.communicate() == ("", None)


def test_what_this_python_does_not_run_is_no_fork(tmp_path):
    (tmp_path / "progrpo").write_text("#!/bin/sh\n")
    (tmp_path / "progrpo").chmod(0o755)
    own = {"PATH": str(tmp_path)}
    assert forked.program_of(["progrpo"], own) is None
    assert forked.program_of(["absent"], own) is None
    assert forked.program_of(["git"], ENVIRONMENT) is None
    assert forked.program_of([sys.executable, "-c", "1"], own) == ["-c", "1"]
