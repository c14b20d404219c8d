"""What commands share: help, `--device`, how to begin in a folder, a progress bar."""

import argparse
from collections.abc import Callable

from tqdm import tqdm

from progrpo.identity import Start


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help that says of every option whether it is required, or what its default is."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.required:
            return f"{action.help} (required)" if action.option_strings else action.help
        if action.default is None or action.default is False or "default:" in action.help:
            return action.help
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


def progress_bar() -> tuple[tqdm, Callable[[int, int], None]]:
    """A bar that counts images, and the callback (done, total) that moves it."""
    bar = tqdm(unit="image")

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return bar, progress
