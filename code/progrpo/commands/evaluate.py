"""`progrpo evaluate`: scores and benchmarks of generated images."""

import argparse
from pathlib import Path

from progrpo.commands.options import HelpFormatter, add_device, add_start, start_of


def add_parser(commands) -> None:
    """Declare the sub-command's options."""
    parser = commands.add_parser(
        "evaluate",
        help="score generated images with every scorer and benchmark of the configuration",
        description="Score the images that `progrpo generate` made. For each prompt set OUT/<set>.json holds the means and"
        " OUT/<set>.scores.jsonl the scores per image; the benchmarks' detections and answers lie beside them.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--config", required=True, type=Path, help="configuration of a tier, config/<tier>.yaml")
    parser.add_argument("--images", required=True, type=Path, help="folder that `progrpo generate` wrote")
    parser.add_argument(
        "--prompts", nargs="+", metavar="SET", help="prompt sets (default: every sub-folder of --images)"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder of the results")
    add_device(parser)
    add_start(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Score every prompt set."""
    from progrpo.config import load_config
    from progrpo.jobs.evaluate import evaluate_images

    config = load_config(arguments.config)
    start = start_of(arguments)
    evaluate_images(config, arguments.images, arguments.prompts, arguments.out, arguments.device, start)
    return 0
