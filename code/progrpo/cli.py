"""`progrpo COMMAND ...`: one sub-command per module of `progrpo.commands`."""

import argparse
import importlib
import io
import os
import sys
from itertools import pairwise
from typing import Any, NoReturn

from progrpo.errors import UserError

COMMANDS = (
    "sample_rewards",
    "miniature",
    "train",
    "generate",
    "evaluate",
    "learning_curve",
    "costs",
    "geneval",
    "compbench",
    "scorers",
    "fetch",
    "summary",
    "tables",
    "claims",
    "compare",
    "plan",
    "flops",
    "bench",
    "analyse",
    "figures",
    "doctor",
    "rehearsal",
)


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line, as every other complaint is, and that takes no shortened options."""

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave with status 2."""
        self.exit(2, one_line(f"{self.prog}: error: {message}; see {self.prog} --help"))


class Version(argparse.Action):
    """`--version`; the package's metadata are read only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_) -> None:
        """Print the installed version and leave."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"progrpo {version('progrpo')}")
        except PackageNotFoundError:
            parser.error("not installed: `make install`")
        parser.exit()


class Completion(argparse.Action):
    """`--completion SHELL`; shtab is imported only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, _, shell, *__) -> None:
        """Print what makes a shell complete commands and options, and leave."""
        try:
            import shtab
        except ImportError:
            parser.error("--completion needs the package shtab, which comes with dvc")
        print(shtab.complete(parser, shell=str(shell)))
        parser.exit()


def one_line(message: str) -> str:
    """A message, whatever names and texts it quotes, as one printable line."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in message)[:2000] + "\n"


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; each command module adds its own parser and names its `run` function."""
    parser = Parser(prog="progrpo", description="Pro-GRPO: train, generate, evaluate, analyse, tabulate.")
    parser.add_argument("--version", action=Version, nargs=0, help="print the version and leave")
    told = "print what the Tab key needs, and leave: source <(progrpo --completion bash)"
    parser.add_argument("--completion", action=Completion, choices=("bash", "zsh", "tcsh"), metavar="SHELL", help=told)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"progrpo.commands.{name}").add_parser(commands)
    return parser


def _check_names(arguments: argparse.Namespace) -> None:
    """Answer a missing or misspelt configuration, run or analysis before a command imports torch, which takes seconds."""
    path = getattr(arguments, "config", None)
    if path is None:
        return
    from progrpo.config import load_config
    from progrpo.names import is_base

    config = load_config(path)
    runs = [getattr(arguments, "run_name", None), *(getattr(arguments, "runs", None) or ())]
    for run in runs:
        if run is not None and not is_base(run):
            config.get_run(run)
    analysis = getattr(arguments, "analysis", None)
    if analysis is not None:
        config.get_analysis(analysis)


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 with one line on standard error when the input was bad."""
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name need not be text
    name = "progrpo"
    try:
        arguments = _parsed(argv)
        name += f" {arguments.command}"
        _check_names(arguments)
        status = arguments.run(arguments) or 0
        sys.stdout.flush()  # here a reader that has left is noticed
    except UserError as error:
        sys.stderr.write(one_line(f"{name}: error: {error}"))
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a name that is too long, a folder that may not be read, a full disk
        sys.stderr.write(one_line(f"{name}: error: {error.filename or 'standard output'}: {error.strerror or error}"))
        return 2
    return status


def _open_streams() -> None:
    """Where a shell or a daemon has closed standard output or error, what is written there goes nowhere, and to no file of ours."""
    if sys.stdout is None or sys.stderr is None:
        place = os.open(os.devnull, os.O_RDWR)
        for number, name in ((1, "stdout"), (2, "stderr")):
            if getattr(sys, name) is None:
                os.dup2(place, number)
                setattr(sys, name, os.fdopen(number, "w", closefd=False))


def _parsed(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser()
    if any("\0" in word for word in argv or ()):  # a shell cannot pass it, a caller in Python can
        parser.error("a NUL character in an argument")
    try:
        arguments = parser.parse_args(argv)
    except SystemExit:  # after --help or --version, whose text is still to be written
        sys.stdout.flush()
        raise
    words = sys.argv[1:] if argv is None else argv
    if "--out=" in words or ("--out", "") in pairwise(words):  # a variable of a shell that is not set
        raise UserError("--out: is empty")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
