"""`progrpo bench`: seconds per training iteration, by part, for miniature models or the official shapes."""

import argparse
import re
from importlib.metadata import version
from pathlib import Path

from progrpo.commands.options import HelpFormatter, add_device
from progrpo.cost.flops import PUBLISHED
from progrpo.errors import UserError

OFFICIAL = {  # architecture -> its methods of Tables 7 and 8
    run.backbone: tuple(name for name, other in PUBLISHED.items() if other.backbone == run.backbone)
    for run in PUBLISHED.values()
}
TABLES_7_AND_8 = Path("config/paper.yaml")
PROMPTS = [f"random prompt {number}" for number in range(64)]


def add_parser(commands) -> None:
    """Add the command's parser to `commands`."""
    parser = commands.add_parser(
        "bench",
        help="wall clock of rollout and update (Table 13)",
        description="Time real training iterations: the runs of a tier's config, or the methods of Tables 7 and 8 on"
        " the official architectures with random weights (weights do not change the time).",
        formatter_class=HelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", default=None, help="config file of a tier whose models exist on disk")
    what.add_argument("--official", default=None, choices=OFFICIAL, help="official architecture, random weights")
    parser.add_argument(
        "--runs", nargs="+", default=None, help="runs to time; default: all of Tables 7 and 8 that exist"
    )
    add_device(parser)
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp16", "fp32"), help="official only")
    parser.add_argument("--prompts", type=int, default=None, help="prompts per iteration; default: config, official 2")
    parser.add_argument("--micro-batch", type=int, default=8, help="official only: samples per pass of the update")
    parser.add_argument("--sampling-batch", type=int, default=None, help="official only; default: the micro-batch")
    parser.add_argument("--warmup", type=int, default=1, help="iterations that are not counted")
    parser.add_argument("--repeats", type=int, default=3, help="iterations whose median is reported")
    parser.add_argument(
        "--out", default=None, help="JSON file; default: results/hardware/<device>/wall_clock_<what>.json"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Time every run, one after the other; the file is written again after each."""
    from progrpo.devices import choose_device

    for name in ("repeats", "prompts", "micro_batch", "sampling_batch"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: must be at least 1")
    device = choose_device(arguments.device)
    timed = _official(arguments, device) if arguments.official else _tier(arguments, device)
    results: dict[str, dict] = {}
    for name, result in timed:
        results[name] = result
        path = _write(arguments, device, results)
        print(
            f"{name}: sampling {result['sampling']:.3f} s, decoder {result['decoder']:.3f} s, reward"
            f" {result['reward']:.3f} s, update {result['update']:.3f} s, total {result['total']:.3f} s",
            flush=True,
        )
    print(path)
    return 0


def _repeats(arguments: argparse.Namespace):
    from progrpo.cost.wall_clock import Repeats

    return Repeats(arguments.warmup, arguments.repeats)


def _official(arguments: argparse.Namespace, device):
    """(run, result) of the methods on one official architecture."""
    known = OFFICIAL[arguments.official]
    for name in arguments.runs or known:
        if name not in known:
            raise UserError(f"--runs {name}: not a method of {arguments.official}; known: {', '.join(known)}")
        yield name, _time_official(name, arguments, device)


def _time_official(name: str, arguments: argparse.Namespace, device) -> dict:
    """One method with a fresh model, which is gone when this returns."""
    from pydantic import ValidationError

    from progrpo.config import load_config
    from progrpo.cost import architectures, atomic_costs, random_models, wall_clock

    run = load_config(TABLES_7_AND_8).get_run(name)
    try:
        settings = wall_clock.timed_run(run, arguments.prompts or 2, arguments.micro_batch, arguments.sampling_batch)
    except ValidationError as error:
        raise UserError(f"{name}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    backbone = random_models.official_backbone(arguments.official, arguments.precision, device)
    tokens = atomic_costs.REWARD_TOKENS[arguments.official]
    with device:  # a billion weights are drawn faster where they are used
        clip = architectures.clip("H")
    reward = random_models.RandomClip(clip, tokens, device, arguments.precision)
    return wall_clock.time_run(settings, backbone, reward, PROMPTS, _repeats(arguments))


def _tier(arguments: argparse.Namespace, device):
    """(run, result) of runs of a tier with its own models, prompts and rewards."""
    from progrpo.config import load_config
    from progrpo.cost import wall_clock
    from progrpo.grpo.backbone import load_backbone
    from progrpo.jobs.loading import prompts_of
    from progrpo.jobs.train import load_reward

    config = load_config(arguments.config)
    names = arguments.runs or [name for known in OFFICIAL.values() for name in known if name in config.runs]
    for name in names:
        settings = config.get_run(name)
        if arguments.prompts:
            settings = settings.model_copy(update={"prompts_per_iteration": arguments.prompts})
        prompts = [record.prompt for record in prompts_of(config.prompt_sets[settings.prompts])]
        backbone = load_backbone(config.models[settings.model], device, train_all_weights=settings.lora is None)
        reward = load_reward(config, settings, device)
        yield name, wall_clock.time_run(settings, backbone, reward, prompts, _repeats(arguments))


def _write(arguments: argparse.Namespace, device, results: dict[str, dict]) -> Path:
    from progrpo.config import load_config
    from progrpo.files import write_json
    from progrpo.provenance import LIBRARIES, device_name

    name = device_name() if device.type == "cuda" else "cpu"
    folder = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    what = arguments.official or load_config(arguments.config).tier
    if arguments.config:
        folder = f"{folder}-{what}"  # never beside the official shapes: the same names mean other sizes
    path = Path(arguments.out or f"results/hardware/{folder}/wall_clock_{what}.json")
    record = {
        "what": what,
        "device": name,
        "precision": arguments.precision if arguments.official else None,
        "warmup": arguments.warmup,
        "versions": {name: version(name) for name in ("progrpo", *LIBRARIES)},
        "runs": results,
    }
    write_json(path, record)
    return path
