"""What commands share: help, `--device`, a progress bar."""

import argparse
from collections.abc import Callable

from tqdm import tqdm


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


def progress_bar() -> tuple[tqdm, Callable[[int, int], None]]:
    """A bar that counts images, and the callback (done, total) that moves it."""
    bar = tqdm(unit="image")

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return bar, progress
