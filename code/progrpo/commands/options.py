"""What the parsers of all commands share."""

import argparse


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
