"""`progrpo costs`: what a finished training cost per iteration."""

import argparse
from pathlib import Path

from progrpo.commands.options import HelpFormatter, file_path, require_other_file


def add_parser(commands) -> None:
    """Declare the sub-command's options."""
    parser = commands.add_parser(
        "costs",
        help="denoiser calls and seconds of a training's iterations",
        description="Write denoiser calls and median seconds per iteration of a finished training: what claims at equal calls and"
        " equal seconds are judged by.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--config", required=True, type=Path, help="configuration of a tier, config/<tier>.yaml")
    parser.add_argument("--run", required=True, dest="run_name", help="name of the run")
    parser.add_argument("--folder", required=True, type=Path, help="the run's folder")
    parser.add_argument("--out", required=True, type=file_path, help="JSON file to write")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the file."""
    from progrpo.config import load_config
    from progrpo.files import write_json
    from progrpo.report.costs import run_costs

    for source in ("metrics.jsonl", "timings.jsonl"):
        require_other_file(arguments.out, arguments.folder / source)
    write_json(arguments.out, run_costs(arguments.folder, load_config(arguments.config).get_run(arguments.run_name)))
    return 0
