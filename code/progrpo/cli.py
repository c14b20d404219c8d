"""`progrpo COMMAND ...`: one sub-command per module of `progrpo.commands`."""

import argparse
import importlib
import os
import sys

from progrpo.errors import UserError

COMMANDS = (
    "sample_rewards",
    "miniature",
    "train",
    "generate",
    "evaluate",
    "geneval",
    "compbench",
    "scorers",
    "fetch",
    "summary",
    "tables",
    "compare",
    "flops",
    "bench",
    "analyse",
    "figures",
)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; each command module adds its own parser and names its `run` function."""
    parser = argparse.ArgumentParser(
        prog="progrpo", description="Pro-GRPO: train, generate, evaluate, analyse, tabulate."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"progrpo.commands.{name}").add_parser(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 with one line on standard error when the input was bad."""
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except UserError as error:
        print(f"progrpo {arguments.command}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"progrpo {arguments.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


if __name__ == "__main__":
    sys.exit(main())
