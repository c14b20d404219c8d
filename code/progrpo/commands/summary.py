"""`progrpo summary`: every number of a tier that a table reads, in one file."""

import argparse

from progrpo.commands.options import HelpFormatter


def add_parser(commands) -> None:
    """Add the command's parser to `commands`."""
    parser = commands.add_parser(
        "summary",
        help="collect a tier's results into one file",
        description="Collect evaluations, training curves, analyses and stored wall-clock measurements."
        " What was not run is left out; a half-written file is an error.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--config", required=True, help="config/<tier>.yaml")
    parser.add_argument("--out", help="file to write; default: <results>/summary.json of the config")
    parser.add_argument(
        "--hardware", help="folder of measurements of `progrpo bench`; default: results/hardware, if it is there"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the summary."""
    from pathlib import Path

    from progrpo.config import load_config
    from progrpo.errors import UserError
    from progrpo.files import write_json
    from progrpo.report.summary import collect

    config = load_config(arguments.config)
    if not Path(config.results).is_dir():
        raise UserError(f"{config.results} is not here; run the tier first, in the root of the repository")
    hardware = Path(arguments.hardware or "results/hardware")
    if arguments.hardware and not hardware.is_dir():
        raise UserError(f"--hardware {hardware}: no such folder")
    out = Path(arguments.out or Path(config.results) / "summary.json")
    write_json(out, collect(config, hardware))
    return 0
