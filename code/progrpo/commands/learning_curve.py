"""`progrpo learning-curve`: held-out scores of a run's snapshots, or of a base model."""

import argparse
from pathlib import Path

from progrpo.commands.options import HelpFormatter, add_device, add_start, require_between, start_of


def add_parser(commands) -> None:
    """Declare the sub-command's options."""
    parser = commands.add_parser(
        "learning-curve",
        help="score a run's snapshots on held-out prompts",
        description="Score the images of a run's snapshots and final weights, or of a base model, for the prompts of the tier's"
        " learning_curve: OUT/<run>-seed<seed>.npz, every score of every image.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--config", required=True, type=Path, help="configuration of a tier, config/<tier>.yaml")
    parser.add_argument("--run", required=True, dest="run_name", help="name of a run, or base_<model> for a base model")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run, and of the images' noise")
    parser.add_argument("--weights", type=Path, help="the run's final/ folder; a base model has none")
    parser.add_argument("--out", required=True, type=Path, help="folder of the curves")
    add_device(parser)
    add_start(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Score what is missing."""
    require_between("--seed", arguments.seed, 0, 2**32 - 1)

    from progrpo.config import load_config
    from progrpo.jobs.learning_curve import learning_curve

    learning_curve(
        load_config(arguments.config),
        arguments.run_name,
        arguments.seed,
        arguments.weights,
        arguments.out,
        arguments.device,
        start_of(arguments),
    )
    return 0
