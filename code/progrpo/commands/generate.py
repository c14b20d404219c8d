"""`progrpo generate`: images of a trained run, or of a base model, for the prompt sets it is evaluated on."""

import argparse
from pathlib import Path

from progrpo.commands.options import HelpFormatter, add_device, add_start, require_between, start_of


def add_parser(commands) -> None:
    """Declare the sub-command's options."""
    parser = commands.add_parser(
        "generate",
        help="make the images that a model is evaluated on; an interrupted generation goes on",
        description="Make a model's images for its evaluation prompt sets, one sub-folder of OUT per set, with prompts.jsonl"
        " written last. Images that were made are kept. With --prompt, make one image of that text, OUT.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--config", required=True, type=Path, help="configuration of a tier, config/<tier>.yaml")
    parser.add_argument("--run", required=True, dest="run_name", help="name of a run, or base_<model> for a base model")
    parser.add_argument("--seed", type=int, default=0, help="seed of the images' noise")
    parser.add_argument("--weights", type=Path, help="the run's final/ folder; a base model has none")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--prompts", nargs="+", metavar="SET", help="prompt sets (default: all that the run is evaluated on)"
    )
    what.add_argument("--prompt", metavar="TEXT", help="one image of a text of your own, sampled as for the first set")
    parser.add_argument("--out", required=True, type=Path, help="folder of the images; with --prompt, a .png or .jpg")
    add_device(parser)
    add_start(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make what is missing."""
    require_between("--seed", arguments.seed, 0, 2**32 - 1)

    from progrpo.config import load_config
    from progrpo.jobs.generate import generate_image, generate_images

    config = load_config(arguments.config)
    if arguments.prompt is not None:
        generate_image(
            config,
            arguments.run_name,
            arguments.prompt,
            arguments.seed,
            arguments.weights,
            arguments.out,
            arguments.device,
        )
        return 0
    generate_images(
        config,
        arguments.run_name,
        arguments.prompts,
        arguments.seed,
        arguments.weights,
        arguments.out,
        arguments.device,
        start_of(arguments),
    )
    return 0
