"""What commands share: help, `--device`, how to begin in a folder, a progress bar."""

import argparse
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from progrpo.errors import UserError
from progrpo.files import SETTINGS, SUMMARY, beside
from progrpo.identity import Start


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help that says of every option whether it is required, or what its default is."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = action.help or ""
        if action.required:
            return f"{told} (required)" if action.option_strings else told
        if action.default is None or action.default is False or "default:" in told:
            return told
        return super()._get_help_string(action)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto: a GPU when there is one")


def add_start(parser: argparse.ArgumentParser) -> None:
    """Add what happens in a folder that was begun with something else, or that another process works in."""
    parser.add_argument(
        "--if-changed",
        choices=("refuse", "begin-anew"),
        default="refuse",
        help="when --out was begun with other settings or input files (OUT/begun.json): refuse, or drop what is there",
    )
    parser.add_argument(
        "--wait-for-lock",
        action="store_true",
        help="wait for a process that works in --out, as one that a killed Snakemake left, instead of refusing",
    )
    parser.add_argument(
        "--fingerprint", help="hash of what else decides the result, as the workflow's of the code; part of begun.json"
    )


def start_of(arguments: argparse.Namespace) -> Start:
    """The values of `add_start`'s options."""
    return Start(arguments.if_changed, arguments.wait_for_lock, arguments.fingerprint)


def add_allow_partial(parser: argparse.ArgumentParser) -> None:
    """Add `--allow-partial`."""
    parser.add_argument(
        "--allow-partial",
        action="store_true",
        help="score a folder in which images are missing or misnamed; the result says so",
    )


def file_path(text: str) -> Path:
    """The type of an option that names a file to write: the empty word and what is a folder name none."""
    path = Path(text)
    if path.name in ("", "..") or path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} names no file")
    return path


def require_between(name: str, value: float, low: float, high: float) -> None:
    """UserError when an option's value is not in [low, high]; NaN is not."""
    if not low <= value <= high:
        raise UserError(f"{name} {value}: must be between {low} and {high}")


def require_other_file(out: Path, source: Path) -> None:
    """UserError when --out, or the summary beside it, would replace the file that is read, or its settings."""
    written = {path.resolve() for path in (out, beside(out, SUMMARY))}
    if written & {path.resolve() for path in (source, beside(source, SETTINGS))}:
        raise UserError(f"--out {out}: would replace {source} or its settings; name another file")


def marked(partial: str | None) -> str:
    """What the last line of a benchmark says of a set that is not whole; nothing of a whole one."""
    return f"  PARTIAL: {partial}" if partial else ""


def progress_bar() -> tuple[tqdm, Callable[[int, int], None]]:
    """A bar that counts images, and the callback (done, total) that moves it."""
    bar = tqdm(unit="image", disable=None)  # None: silent where no terminal reads it, as in a log

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return bar, progress
