"""`progrpo train`: one run with one seed, resumed wherever it was interrupted."""

import argparse
from pathlib import Path

from progrpo.commands.options import HelpFormatter, add_device, add_start, require_between, start_of


def add_parser(commands) -> None:
    """Declare the sub-command's options."""
    parser = commands.add_parser(
        "train",
        help="train one run; on an existing folder it goes on or says that it is done",
        description="Train one run of a tier with one seed. OUT/final holds the trained weights, OUT/metrics.jsonl a line per"
        " iteration, OUT/timings.jsonl its seconds, OUT/state the resume state. A killed training goes on bit for bit.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--config", required=True, type=Path, help="configuration of a tier, config/<tier>.yaml")
    parser.add_argument("--run", required=True, dest="run_name", help="name of a run in that configuration")
    parser.add_argument("--seed", type=int, default=0, help="seed of prompts, noise and adapters")
    parser.add_argument("--out", required=True, type=Path, help="folder of the run")
    add_device(parser)
    add_start(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train; 0 when the run is complete, 143 when a signal stopped it (the same command goes on)."""
    require_between("--seed", arguments.seed, 0, 2**32 - 1)

    from progrpo.config import load_config
    from progrpo.jobs.train import train_run

    config = load_config(arguments.config)
    start = start_of(arguments)
    return train_run(config, arguments.run_name, arguments.seed, arguments.out, arguments.device, start)
