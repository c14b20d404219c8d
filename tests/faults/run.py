"""`make faults`: kills and damages trainings of both families; the same command again must end bit for bit like the untouched one.

After every fault the command runs again, and its weights, their provenance, the metrics and `begun.json` are compared with those of
an uninterrupted training, and nothing may lie about; or it refuses in one line that names the culprit, and does what the line says.
Prints a table of figures; exit status 1 when a case ends in any other way.
"""

import argparse
import contextlib
import gc
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from trainings import RUNS, Training, Unmet, World, files, make_models, make_world, settle, signal_self, watch_writes

import tiny
from progrpo.provenance import code_hash

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
STOPPED = {0, 130, 143, *(-number for number in SIGNALS)}  # what a process that got a signal may end with


@dataclass
class Figures:
    """What came of the cases of one kind."""

    cases: int = 0
    resumed: int = 0
    refused: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: str = ""


class Skipped(Exception):
    """Why this machine cannot try a kind of fault."""


# ---------------------------------------------------------------- faults: each returns "resumed" or "refused", or raises Unmet


def kill_at_write(world: World, out: Path, draw: random.Random) -> str:
    """A signal right before one of the changes a training makes on the disk, and sometimes a second one after that."""
    for _ in range(draw.choice((1, 1, 2))):
        number, moment = draw.choice(SIGNALS), draw.randrange(world.writes)
        act = lambda count, number=number, moment=moment: count == moment and signal_self(number)  # noqa: E731
        require_stopped(world.start(out, before=lambda act=act: watch_writes(out, act)))
        settle(out)
    world.finish(out)
    return "resumed"


def kill_at_random(world: World, out: Path, draw: random.Random) -> str:
    """A signal after a random time, and sometimes a second one after that."""
    for _ in range(draw.choice((1, 1, 2))):
        training = world.start(out)
        time.sleep(draw.uniform(0.02, world.seconds))
        os.kill(training.process, draw.choice(SIGNALS))
        require_stopped(training)
        settle(out)
    world.finish(out)
    return "resumed"


def require_stopped(training: Training) -> None:
    """Unmet when a process that got a signal ends in another way than by it, or in more than a line."""
    status, lines = training.wait()
    if status not in STOPPED or len(lines) > 1:
        raise Unmet(f"after a signal it ends with {status}: {lines}")


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "cut": lambda data, draw: data[: draw.randrange(len(data))],
    "empty": lambda data, draw: b"",
    "a bit flipped": lambda data, draw: flip(data, draw),
    "noise": lambda data, draw: draw.randbytes(len(data)),
    "longer": lambda data, draw: data + draw.randbytes(10),
    "gone": lambda data, draw: None,
}


def flip(data: bytes, draw: random.Random) -> bytes:
    """One bit of the data changed."""
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]


def damage(world: World, source: Path, name: str, way: str, out: Path, draw: random.Random) -> str:
    """A file of a half or finished training is damaged: noticed and mended, or refused and mended when told to begin anew."""
    shutil.copytree(source, out)
    data = DAMAGES[way]((out / name).read_bytes(), draw)
    (out / name).unlink()
    if data is not None:
        (out / name).write_bytes(data)
    status, lines = world.start(out).wait()
    if status == 0:
        world.require_same(out)
        return "resumed"
    require_refused(status, lines, out)
    world.finish(out, "--if-changed", "begin-anew")
    return "refused"


def require_refused(status: int, lines: list[str], culprit: Path) -> None:
    """Unmet unless a training ended with status 2 and one line that names the culprit."""
    if status != 2 or len(lines) != 1 or str(culprit) not in lines[0]:
        raise Unmet(f"ends with {status}: {lines}")


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A tmpfs in `folder`; Skipped where this user or machine cannot mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount(folder, options)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mount(folder: Path, options: str) -> None:
    """Mount a tmpfs with these options, or change those of one; Skipped when that fails."""
    try:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[0]
        raise Skipped(f"cannot mount a tmpfs here ({reason})") from None


def full_disk(world: World, out: Path, draw: random.Random) -> str:
    """A disk on which a random part of the training has room; later it has room for all."""
    whole = sum(path.stat().st_size for path in files(world.reference))
    with mounted(out, f"size={draw.randrange(4096, whole)}"):
        status, lines = world.start(out).wait()
        if status:
            require_refused(status, lines, out)
            if "make room" not in lines[0]:
                raise Unmet(f"does not say what to do: {lines[0]}")
        mount(out, f"remount,size={10 * whole}")
        settle(out)
        world.finish(out)
    return "refused" if status else "resumed"


def read_only(world: World, out: Path, draw: random.Random) -> str:
    """A fresh, half or finished folder on a disk that is read-only at first."""
    source = draw.choice((None, world.half, world.reference))
    with mounted(out, "size=1g"):
        if source:
            shutil.copytree(source, out, dirs_exist_ok=True)
        mount(out, "remount,ro")
        status, lines = world.start(out).wait()
        require_refused(status, lines, out)
        mount(out, "remount,rw")
        world.finish(out)
    return "refused"


def two_at_once(world: World, out: Path, draw: random.Random) -> str:
    """Two processes start in one folder: one trains, the other refuses or finds it done; sometimes the first is killed."""
    both = [world.start(out), world.start(out)]
    if killed := draw.random() < 0.5:
        time.sleep(draw.uniform(0.02, world.seconds))
        os.kill(both[0].process, signal.SIGKILL)
    for training in both:
        status, lines = training.wait()
        if status == 2:
            require_refused(status, lines, out)
        elif status not in ((0, -signal.SIGKILL) if killed else (0,)):
            raise Unmet(f"one of two ends with {status}: {lines}")
    settle(out)
    world.finish(out)
    return "resumed"


# ---------------------------------------------------------------- the matrix


def damages_of(world: World, draw: random.Random) -> Iterator[tuple[Path, str, str]]:
    """(folder, file, way) for ever: all combinations in a random order, then again."""
    sources = (world.reference, world.half)
    cases = [
        (source, str(path.relative_to(source)), way)
        for source in sources
        for path in files(source)
        if path.name != "lock" and path.stat().st_size
        for way in DAMAGES
    ]
    while True:
        yield from draw.sample(cases, len(cases))


KINDS: dict[str, Callable[[World, Path, random.Random], str]] = {
    "signal at a write": kill_at_write,
    "signal at any moment": kill_at_random,
    "disk full": full_disk,
    "read-only": read_only,
    "two at once": two_at_once,
}
TIMES = {"signal at a write": 3, "signal at any moment": 2}  # of a kind in a round
DAMAGED = 5


def main_faults(rounds: int, seed: int, runs: list[str], folder: Path) -> int:
    """Try all kinds so many rounds and print the figures; 1 when a case failed."""
    draw, figures = random.Random(seed), {}
    tiny.write_config(folder / "config.yaml", make_models(folder / "models"), **{run: RUNS[run] for run in runs})
    code_hash()  # once: the sources may be edited meanwhile
    worlds = [make_world(folder, run) for run in runs]
    decks = {world.run: damages_of(world, draw) for world in worlds}
    for _ in range(rounds):
        for world in worlds:
            for kind, fault in KINDS.items():
                for _ in range(TIMES.get(kind, 1)):
                    case(figures.setdefault(kind, Figures()), kind, fault, world, draw)
            for _ in range(DAMAGED):
                source, name, way = next(decks[world.run])
                where = "half" if source == world.half else "finished"
                kind = f"damaged {Path(name).parts[0]}"

                def fault(world, out, draw, chosen=(source, name, way)):
                    return damage(world, *chosen, out, draw)

                case(figures.setdefault(kind, Figures()), f"{where} {name}: {way}", fault, world, draw)
    return report(figures)


def case(figures: Figures, what: str, fault: Callable, world: World, draw: random.Random) -> None:
    """Try one case in a folder of its own, and count what came of it."""
    out = Path(tempfile.mkdtemp(prefix="case-", dir=world.folder)) / "run"
    try:
        result = fault(world, out, draw)
        figures.resumed += result == "resumed"
        figures.refused += result == "refused"
    except Skipped as reason:
        figures.skipped = str(reason)
        return
    except Unmet as unmet:
        figures.failed.append(f"{world.run}, {what}: {unmet}")
        print(f"FAILED {figures.failed[-1]}", flush=True)
    finally:
        shutil.rmtree(out.parent)
    figures.cases += 1


def report(figures: dict[str, Figures]) -> int:
    """Print a line for each kind; 1 when a case failed."""
    print(f"{'kind':24} {'cases':>6} {'resumed bit for bit':>20} {'refused in one line':>20} {'failed':>7}")
    for kind, found in sorted(figures.items()):
        skipped = f"  skipped: {found.skipped}" if found.skipped else ""
        print(f"{kind:24} {found.cases:6} {found.resumed:20} {found.refused:20} {len(found.failed):7}{skipped}")
    failed = sum(len(found.failed) for found in figures.values())
    print(f"{sum(found.cases for found in figures.values())} cases, {failed} failed")
    return int(failed > 0)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="rounds of all kinds; one is 13 cases of each family")
    parser.add_argument("--seed", type=int, default=1, help="seed of the faults")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS), help="families")
    return parser.parse_args()


if __name__ == "__main__":
    options = parse()
    torch.set_num_threads(1)
    gc.freeze()  # forks share what is loaded
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        sys.exit(main_faults(options.rounds, options.seed, options.runs, Path(temporary)))
