"""`progrpo miniature`: make the miniature world anew, part by part."""

import argparse
import time
from pathlib import Path

from progrpo.commands.options import HelpFormatter, require_between
from progrpo.plugins import SCORERS

JUDGES = (*SCORERS, "detector", "blip_vqa")  # detector: with its classifier of colours
PARTS = ("prompts", "autoencoder", "sd35m", "sd14", *JUDGES)


def add_parser(commands) -> None:
    """Declare the sub-command's options."""
    parser = commands.add_parser(
        "miniature",
        help="make the miniature world: prompts, base models, scorers, GenEval's detector, CompBench's VQA",
        description="Make one part of the miniature world. The stored parts came from exactly these commands.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("part", choices=PARTS, help="what to make")
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    parser.add_argument("--autoencoder", type=Path, help="autoencoder folder that the base models are trained on")
    parser.add_argument("--steps", type=int, help="training steps (default: autoencoder 3500, sd35m 2600, sd14 2400)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and scenes")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the part and save it in its official layout."""
    require_between("--seed", arguments.seed, 0, 2**32 - 1)
    if arguments.steps is not None:
        require_between("--steps", arguments.steps, 1, 10**9)

    import torch

    from progrpo.errors import UserError
    from progrpo.miniature import world

    torch.set_num_threads(1)  # one core per process; results do not depend on the machine's core count
    start = time.monotonic()

    def log(message: str) -> None:
        print(f"[{time.monotonic() - start:6.0f} s] {message}", flush=True)

    if arguments.part in JUDGES:
        return _train_judge(arguments)
    if arguments.part == "prompts":
        world.write_prompts(arguments.out)
    elif arguments.part == "autoencoder":
        world.make_autoencoder(arguments.out, arguments.steps or 3500, arguments.seed, log)
    elif arguments.autoencoder is None:
        raise UserError(
            "--autoencoder FOLDER is needed to train a base model; make it with `progrpo miniature autoencoder`"
        )
    else:
        world.make_base_model(
            arguments.part, arguments.autoencoder, arguments.out, arguments.steps, arguments.seed, log
        )
    return 0


def _train_judge(arguments: argparse.Namespace) -> int:
    """Train a scorer or a benchmark's model in the layout of the official one; its own module knows how many steps it takes."""
    from progrpo.errors import UserError
    from progrpo.miniature import detector_training, scorer_training, vqa_training

    if arguments.part in SCORERS:
        scorer_training.train_scorer(arguments.part, arguments.out, arguments.steps, arguments.seed)
        return 0
    if arguments.part == "detector" and arguments.steps is not None:
        raise UserError("--steps: the detector and its classifier of colours take their own numbers of steps")
    train = detector_training.train if arguments.part == "detector" else vqa_training.train
    steps = {} if arguments.steps is None else {"steps": arguments.steps}
    for name, value in train(arguments.out, seed=arguments.seed, **steps).items():
        print(f"{name}: {value}")
    return 0
