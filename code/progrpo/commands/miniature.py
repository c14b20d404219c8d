"""`progrpo miniature`: make the miniature world's prompts, autoencoder and base models anew."""

import argparse
import time
from pathlib import Path

from progrpo.commands.options import HelpFormatter

PARTS = ("prompts", "autoencoder", "sd35m", "sd14")


def add_parser(commands) -> None:
    """Declare the sub-command's options."""
    parser = commands.add_parser(
        "miniature",
        help="make the miniature world's prompts, autoencoder and base models",
        description="Make one part of the miniature world. The stored parts came from exactly these commands.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("part", choices=PARTS, help="what to make; sd35m and sd14 are the two base models")
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    parser.add_argument("--autoencoder", type=Path, help="autoencoder folder that the base models are trained on")
    parser.add_argument("--steps", type=int, help="training steps (default: autoencoder 3500, sd35m 2600, sd14 2400)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and scenes")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the part and save it in its official layout."""
    import torch

    from progrpo.errors import UserError
    from progrpo.miniature import world

    torch.set_num_threads(1)  # one core per process; results do not depend on the machine's core count
    start = time.monotonic()

    def log(message: str) -> None:
        print(f"[{time.monotonic() - start:6.0f} s] {message}", flush=True)

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
