"""`make reproduce` in one folder: one at a time, and never an unlocking of a Snakemake that works; Snakemake itself is a stand-in."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from checkout import ROOT

SCRIPT = "workflow/scripts/reproduce.sh"
# Notes its arguments; `snakemake all` says that it works and waits until it is told to end.
SNAKEMAKE = """#!/usr/bin/env bash
echo "snakemake $*" >> calls
if [ "$1" = all ]; then touch working; while [ ! -e end ]; do sleep 0.02; done; fi
"""
OTHER = '#!/usr/bin/env bash\necho "$(basename "$0") $*" >> calls\n'


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with the script, a tier, and stand-ins for the commands that the script calls."""
    for name, text in (("snakemake", SNAKEMAKE), ("python", OTHER), ("progrpo", OTHER)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "tiny.yaml").write_text("")
    (tmp_path / SCRIPT).parent.mkdir(parents=True)
    shutil.copy(ROOT / SCRIPT, tmp_path / SCRIPT)
    return tmp_path


def start(folder: Path) -> subprocess.Popen:
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PWD": str(folder)}
    return subprocess.Popen(
        ["bash", SCRIPT, "tiny", "1"], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"no {path.name} after a minute"
        time.sleep(0.02)


def calls(folder: Path) -> list[str]:
    return [line.split()[0] + (" --unlock" if "--unlock" in line else "") for line in open(folder / "calls")]


def leave_lock(folder: Path) -> None:
    """What a Snakemake that works, or was killed, has in the folder."""
    (folder / ".snakemake" / "locks").mkdir(parents=True, exist_ok=True)
    (folder / ".snakemake" / "locks" / "0.input.lock").touch()


def test_the_second_of_two_at_one_moment_is_refused_in_one_line_and_unlocks_nothing(folder):
    first = start(folder)
    wait_for(folder / "working")
    leave_lock(folder)
    second = start(folder)
    _, error = second.communicate(timeout=60)
    assert second.returncode == 2
    assert error == "make reproduce: already runs in this folder; wait for it or stop it\n"
    (folder / "end").touch()
    assert first.wait(timeout=60) == 0
    assert calls(folder) == ["snakemake", "python", "progrpo"]


def test_of_many_at_once_exactly_one_runs(folder):
    together = [start(folder) for _ in range(4)]
    wait_for(folder / "working")
    while sum(process.poll() is not None for process in together) < 3:
        time.sleep(0.02)
    (folder / "end").touch()
    assert sorted(process.wait(timeout=60) for process in together) == [0, 2, 2, 2]
    assert calls(folder) == ["snakemake", "python", "progrpo"]


@pytest.mark.parametrize("linked", [False, True])
def test_a_snakemake_that_was_started_by_hand_is_not_unlocked(folder, linked):
    if linked:  # homes of clusters often are
        (folder.parent / "link").unlink(missing_ok=True)
        (folder.parent / "link").symlink_to(folder)
        folder = folder.parent / "link"
    by_hand = subprocess.Popen([folder / "bin" / "snakemake", "all"], cwd=folder)
    wait_for(folder / "working")
    leave_lock(folder)
    second = start(folder)
    _, error = second.communicate(timeout=60)
    assert second.returncode == 2
    assert f"already runs in this folder (process {by_hand.pid})" in error
    (folder / "end").touch()
    by_hand.wait(timeout=60)
    assert calls(folder) == ["snakemake"]


def test_the_lock_of_a_killed_snakemake_is_removed(folder):
    leave_lock(folder)
    (folder / "end").touch()
    assert start(folder).wait(timeout=60) == 0
    assert calls(folder) == ["snakemake --unlock", "snakemake", "python", "progrpo"]


def test_what_snakemake_leaves_running_does_not_hold_the_lock(folder):
    """A training that outlives a stopped `make reproduce` must not refuse the next one: it keeps its own folder locked."""
    (folder / "bin" / "snakemake").write_text("#!/usr/bin/env bash\nsleep 60 > /dev/null 2>&1 & echo $! > left\n")
    assert start(folder).wait(timeout=60) == 0
    left = int((folder / "left").read_text())
    try:
        assert start(folder).wait(timeout=60) == 0
    finally:
        os.kill(left, 15)
        os.kill(int((folder / "left").read_text()), 15)
