"""A copy of this repository as git sees it, for tests that run the workflow and must not touch the real results."""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import forked

ROOT = Path(__file__).parents[1]
IDENTITY = {f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
ENVIRONMENT = {
    **os.environ,
    **IDENTITY,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
}


def make_checkout(folder: Path) -> Path:
    """Copy all files that git tracks, or would, in a repository of their own where they are committed."""
    shutil.copytree(_committed(), folder, symlinks=True, dirs_exist_ok=True)
    subprocess.run(["git", "update-index", "-q", "--refresh"], cwd=folder, check=True, env=ENVIRONMENT)
    return folder


@functools.cache
def _committed() -> Path:
    """The one that others of this process are copied from, committed uncompressed: to compress 60 MB takes seconds."""
    kept = tempfile.TemporaryDirectory(prefix="checkout")
    atexit.register(kept.cleanup)
    folder = Path(kept.name)
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in listing.decode().split("\0"):
        if name and (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    add = ["-c", "core.compression=0", "add", "--all"]
    for command in (["init", "--quiet"], add, ["commit", "--quiet", "--message", "copy"]):
        subprocess.run(["git", *command], cwd=folder, check=True, env=ENVIRONMENT)
    return folder


def call(*command: str, cwd: Path, seconds: float = 1800, **environment: str) -> subprocess.CompletedProcess:
    """Run a command in a checkout; its output is text, errors included. `snakemake` is forked: its imports take half of a run."""
    environment = {**ENVIRONMENT, **environment}
    options = {"cwd": cwd, "env": environment, "timeout": seconds}
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    if command[0] == "snakemake" and forked.program_of(command, environment):
        return forked.run(command, **options)
    return subprocess.run(command, text=True, **options)
