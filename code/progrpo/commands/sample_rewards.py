"""`progrpo sample-rewards`: the rewards that the reward-clustering analysis and the pruning pilot are computed from."""

import argparse
from pathlib import Path

from progrpo.commands.options import HelpFormatter, add_device, file_path


def add_parser(commands) -> None:
    """Declare the sub-command's options."""
    parser = commands.add_parser(
        "sample-rewards",
        help="sample the groups of an analysis and store their rewards",
        description="Sample unpruned groups under a base model and store terminal rewards, for the pruning pilot also the"
        " preview rewards of every step and a grid of preview images (.npz beside OUT), for the gradient study an .npz with the"
        " inner products of the trajectories' gradients.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--config", required=True, type=Path, help="configuration of a tier, config/<tier>.yaml")
    parser.add_argument("--analysis", required=True, help="name of an analysis in that configuration")
    parser.add_argument("--out", required=True, type=file_path, help="JSON file to write; .npz for the gradient study")
    add_device(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Sample and store."""
    from progrpo.config import load_config

    config = load_config(arguments.config)
    if config.get_analysis(arguments.analysis).gradients_of is not None:
        from progrpo.jobs.sample_gradients import sample_gradients

        sample_gradients(config, arguments.analysis, arguments.out, arguments.device)
        return 0
    from progrpo.jobs.sample_rewards import sample_analysis

    sample_analysis(config, arguments.analysis, arguments.out, arguments.device)
    return 0
