"""`progrpo rehearsal`: tier paper's DAG over random weights in the official layouts."""

import argparse
from pathlib import Path

from progrpo.commands.options import HelpFormatter, require_between


def add_parser(commands) -> None:
    """Add `rehearsal` to the command line."""
    parser = commands.add_parser(
        "rehearsal",
        help="run tier paper over random weights in the official layouts, on a CPU",
        description="Build every folder and file of the manifest with random weights at small width and run tier paper over it with"
        " the sizes and counts of config/overlays/rehearsal.yaml. It shows that what is fetched is read; its numbers mean nothing.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build/rehearsal"), help="folder to run in; it goes on where it was"
    )
    parser.add_argument("--cores", type=int, default=2, help="jobs at once")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Rehearse."""
    from progrpo.rehearsal.run import rehearse

    require_between("--cores", arguments.cores, 1, 1024)
    rehearse(arguments.out, arguments.cores)
