"""One case: a command on damaged input, in this process, and what must hold whatever it was given."""

import contextlib
import io
import json
import math
import os
import random
import re
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from progrpo.cli import main
from progrpo.files import _remove_litter

SECONDS, WAITING, LINES = 90, 900, 3  # of processor time, which a busy machine does not stretch; of the clock
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Case:
    """What to run in a folder, and what a success must have made there (a message when it has not)."""

    arguments: list[str]
    verify: Callable[[Path], str | None] = lambda folder: None


Target = Callable[[Path, random.Random], Case]


class Writes:
    """While entered, notes every file that is opened for writing, made or renamed outside a folder."""

    current: "Writes | None" = None

    def __init__(self, folder: Path):
        self.folder, self.outside = os.path.realpath(folder), []

    def __enter__(self) -> "Writes":
        Writes.current = self
        return self

    def __exit__(self, *error: object) -> None:
        Writes.current = None

    def note(self, event: str, arguments: tuple) -> None:
        """An audit event of the interpreter."""
        if event == "open":
            path, mode, flags = arguments
            paths = [path] if (flags or 0) & WRITING or (mode and set(mode) & set("wax+")) else []
        else:
            paths = {"os.mkdir": arguments[:1], "os.rename": arguments[:2], "os.remove": arguments[:1]}.get(event, ())
        for path in paths:
            if isinstance(path, str | bytes | os.PathLike):
                real = os.path.realpath(os.fsdecode(path))
                if not real.startswith((self.folder, "/dev/")) and "__pycache__" not in real:
                    self.outside.append(real)


def _audit(event: str, arguments: tuple) -> None:
    if Writes.current is not None and event in ("open", "os.mkdir", "os.rename", "os.remove"):
        Writes.current.note(event, arguments)


sys.addaudithook(_audit)


def run_case(case: Case, folder: Path) -> tuple[list[str], int | None]:
    """(what is wrong with a case: nothing when the property holds; its exit status)."""

    def too_long(*_: object) -> None:
        raise TimeoutError(f"still running after {SECONDS} s of work or {WAITING} s by the clock")

    out, err = io.StringIO(), io.StringIO()
    before, handlers = (
        Path.cwd(),
        {number: signal.signal(number, too_long) for number in (signal.SIGALRM, signal.SIGPROF)},
    )
    os.chdir(folder)
    signal.alarm(WAITING)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    _remove_litter.cache_clear()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), Writes(folder) as writes:
            try:
                status = main(case.arguments)
            except SystemExit as error:  # argparse
                status = error.code
    except BaseException:
        return [f"traceback: {traceback.format_exc(limit=-4)}"], None
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.chdir(before)
    wrong = [f"a file outside: {path}" for path in writes.outside]
    lines = [line for line in err.getvalue().splitlines() if line.strip()]
    if (folder / "X").exists():
        wrong.append("a command that the input holds was run")
    if status == 2 and (not lines or len(lines) > LINES or max(map(len, lines)) > 2100):
        wrong.append(f"status 2 with {len(lines)} lines: {err.getvalue()[:500]}")
    if status == 2 and "Traceback" in err.getvalue():
        wrong.append("status 2 with a traceback")
    if status == 0:
        wrong += [*not_finite(folder / "out"), *filter(None, [case.verify(folder)])]
    if status not in (0, 2):
        wrong.append(f"status {status}: {err.getvalue()[:300]}")
    return wrong, status


def not_finite(out: Path) -> list[str]:
    """Files below a folder that hold a number which is none."""
    wrong = []
    for path in sorted(out.rglob("*")) if out.is_dir() else []:
        if path.suffix in (".json", ".jsonl"):
            texts = path.read_text().split("\n") if path.suffix == ".jsonl" else [path.read_text()]
            values = [json.loads(text, parse_constant=lambda name: math.nan) for text in texts if text]
            if any(isinstance(number, float) and not math.isfinite(number) for number in _leaves(values)):
                wrong.append(f"{path.name} holds a number that is not finite")
        if path.suffix in (".tex", ".html", ".txt") and re.search(
            r"(?<![A-Za-z])(nan|inf)(?![A-Za-z])", path.read_text()
        ):
            wrong.append(f"{path.name} prints a number that is not finite")
        if path.name.startswith(".tmp-"):
            wrong.append(f"a temporary file is left: {path.name}")
    return wrong


def _leaves(value: Any) -> list[Any]:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return [value] if items is None else [leaf for item in items for leaf in _leaves(item)]
