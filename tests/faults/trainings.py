"""Trainings of the tiny tier as forks of this process, which has the heavy libraries loaded: a case costs its own work alone."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

import tiny  # noqa: E402
from progrpo.cli import main  # noqa: E402
from progrpo.files import TEMPORARY  # noqa: E402
from progrpo.jobs import train  # noqa: E402, F401  (loads what a training needs before the first fork)

WRITES = ("os.rename", "os.remove", "os.mkdir", "shutil.rmtree")  # and files that are opened for writing
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
SECONDS = 300  # a training that takes longer hangs
SHORT = {"prompts_per_iteration": 2, "sampling": {"steps": 3, "guidance_scale": 1.0, "noise": 0.7}, "micro_batch": 4}
RUNS = {
    "flow": {**tiny.FLOW, **SHORT, "group": {"size": 3, "pruning": [{"step": 2, "keep": 2}]}},
    "diffusion": {**tiny.DIFFUSION, **SHORT},
}


class Unmet(Exception):
    """A property that a case does not have, in words."""


@dataclass
class Training:
    """A started `progrpo train`, and where its complaints go."""

    process: int
    log: Path

    def wait(self) -> tuple[int, list[str]]:
        """(exit status, negative for a signal; lines on standard error); Unmet when it hangs or shows a traceback."""
        end = time.monotonic() + SECONDS
        while not (found := os.waitpid(self.process, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.kill(self.process, signal.SIGKILL)
                os.waitpid(self.process, 0)
                raise Unmet(f"still running after {SECONDS} s")
            time.sleep(0.01)
        text = self.log.read_text(errors="replace")
        if "Traceback" in text:
            raise Unmet(f"a traceback: {text.strip().splitlines()[-1]}")
        return os.waitstatus_to_exitcode(found[1]), text.splitlines()


@dataclass
class World:
    """A run of the tiny tier, an uninterrupted training of it, and the same killed half-way."""

    folder: Path
    run: str
    seconds: float = 0.0
    writes: int = 0

    @property
    def reference(self) -> Path:
        """The folder of the uninterrupted training."""
        return self.folder / self.run

    @property
    def half(self) -> Path:
        """The folder of a training that was killed after its second state."""
        return self.folder / f"{self.run}-half"

    def start(self, out: Path, *more: str, before: Callable[[], object] = lambda: None) -> Training:
        """Fork a training into `out`; `before` runs first in the child."""
        log = self.folder / f"{out.name}-{time.monotonic_ns()}.log"
        config = str(self.folder / "config.yaml")
        arguments = ["train", "--config", config, "--run", self.run, "--out", str(out), "--device", "cpu", *more]
        if process := os.fork():
            return Training(process, log)
        status = 1
        try:
            os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            before()
            status = main(arguments)
        except KeyboardInterrupt:
            status = 130
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def finish(self, out: Path, *more: str) -> None:
        """The same command again; Unmet when it does not end like the uninterrupted one."""
        status, lines = self.start(out, *more).wait()
        if status:
            raise Unmet(f"the same command ends with {status}: {lines[-1:]}")
        self.require_same(out)

    def require_same(self, out: Path) -> None:
        """Unmet names the first file of a finished training that is not the uninterrupted one's."""
        decisive = ["begun.json", "metrics.jsonl", *(str(f.relative_to(self.reference)) for f in files(self.final))]
        for name in decisive:
            if not (out / name).is_file() or (out / name).read_bytes() != (self.reference / name).read_bytes():
                raise Unmet(f"{name} is another")
        if more := {f.relative_to(out) for f in files(out / "final")} - {Path(name) for name in decisive}:
            raise Unmet(f"also holds {sorted(map(str, more))}")
        if litter := [f.name for f in files(out) if f.name.startswith(TEMPORARY) or "incoming" in str(f)]:
            raise Unmet(f"leaves {litter}")

    @property
    def final(self) -> Path:
        """The weights of the uninterrupted training."""
        return self.reference / "final"


def files(folder: Path) -> list[Path]:
    """All files below a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def watch_writes(out: Path, act: Callable[[int], object]) -> None:
    """Call `act(number)`, counted from 0, before every change that this process makes to the file system in `out`."""
    count, inside = -1, f"{out}{os.sep}"

    def watch(event: str, arguments: tuple) -> None:
        nonlocal count
        if event in WRITES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING):
            paths = [os.fsdecode(path) for path in arguments[:2] if isinstance(path, str | bytes | os.PathLike)]
            if any(path.startswith(inside) for path in paths):
                count += 1
                act(count)

    sys.addaudithook(watch)


def make_world(folder: Path, run: str) -> World:
    """The references: how long a training takes, how often it writes, what it ends with, how it looks half-way."""
    world = World(folder, run)
    read, write = os.pipe()
    start = time.monotonic()
    status, lines = world.start(
        world.reference, before=lambda: watch_writes(world.reference, lambda _: os.write(write, b"."))
    ).wait()
    world.seconds = time.monotonic() - start
    os.close(write)
    with open(read, "rb") as counts:
        world.writes = len(counts.read())
    half = world.half
    with_two_states = lambda _: any(half.glob("state/000002-*")) and signal_self(signal.SIGKILL)  # noqa: E731
    world.start(half, before=lambda: watch_writes(half, with_two_states)).wait()
    if status or not world.writes or (half / "final").exists() or len(files(half / "state")) != 2:
        raise SystemExit(f"faults: the references of {run} cannot be made: {lines}, {files(half)}")
    settle(half)
    return world


def signal_self(number: signal.Signals) -> None:
    """A signal to this process."""
    os.kill(os.getpid(), number)


def settle(out: Path) -> None:
    """Let time pass for the temporary files of killed writes: young ones may be another process's."""
    for path in files(out):
        if path.name.startswith(TEMPORARY):
            os.utime(path, (0, 0))


def make_models(folder: Path) -> Path:
    """The tiny models, made in a child: this process runs no network, so that its forks can."""
    if process := os.fork():
        if os.waitpid(process, 0)[1]:
            raise SystemExit("faults: the tiny models cannot be made")
        return folder
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        tiny.write_models(folder)
        status = 0
    finally:
        os._exit(status)
