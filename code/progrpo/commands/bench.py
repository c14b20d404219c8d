"""`progrpo bench`: seconds per training iteration, by part, for miniature models or the official shapes."""

import argparse
import re
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from progrpo.commands.options import HelpFormatter, add_device, file_path
from progrpo.cost.flops import PUBLISHED
from progrpo.errors import UserError

if TYPE_CHECKING:
    from progrpo.grpo.backbone import Backbone
    from progrpo.rewards.base import Scorer

OFFICIAL = {  # architecture -> its methods of Tables 7 and 8
    run.backbone: tuple(name for name, other in PUBLISHED.items() if other.backbone == run.backbone)
    for run in PUBLISHED.values()
}
TABLES_7_AND_8 = Path("config/paper.yaml")
MARKS = ("<!-- speed -->", "<!-- /speed -->")  # of a document's table
GPU_TFLOPS, GPU_UTILISATION = 495, 0.35  # as `progrpo plan` assumes: a fast GPU makes saving the larger share
NEEDS = (  # an option, and the one without which it says nothing; random weights of official shapes have no plain loop
    ("compare", "config"),
    ("compile", "compare"),
    ("json", "compare"),
    ("into", "table"),
)
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
    what.add_argument("--table", default=None, help="JSON file of --compare, printed as Markdown")
    parser.add_argument(
        "--into", default=None, help=f"with --table: this file gets the wanted ratios, between {' and '.join(MARKS)}"
    )
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
        "--out", type=file_path, help="JSON file; default: results/hardware/<device>/<kind>_<what>.json"
    )
    parser.add_argument(
        "--compare",
        default=None,
        choices=("plain",),
        help="with --config: against the loop of public trainers, and with each switch of `speed` turned, iteration by"
        " iteration in turn, on a CPU in CPU time; with --runs, those runs alone, each against that loop",
    )
    parser.add_argument("--compile", action="store_true", help="with --compare: also compiled; takes minutes once")
    parser.add_argument("--json", action="store_true", help="with --compare: print the result as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Time every run, one after the other; the file is written again after each."""
    from progrpo.devices import choose_device

    for name, needed in NEEDS:
        if getattr(arguments, name) and not getattr(arguments, needed):
            raise UserError(f"--{name}: needs --{needed}")
    if arguments.table:
        return _table(Path(arguments.table), arguments.into)
    for name in ("warmup", "repeats", "prompts", "micro_batch", "sampling_batch"):
        least = 0 if name == "warmup" else 1
        if getattr(arguments, name) is not None and getattr(arguments, name) < least:
            raise UserError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: must be at least {least}")
    device = choose_device(arguments.device)
    if arguments.compare:
        return _compare(arguments, device)
    timed = _official(arguments, device) if arguments.official else _tier(arguments, device)
    results: dict[str, dict] = {}
    for name, result in timed:
        results[name] = result
        path = _write(arguments, device, results)
        print(
            f"{name}: sampling {result['sampling']:.3f} s, decoder {result['decoder']:.3f} s, reward"
            f" {result['reward']:.3f} s, update {result['update']:.3f} s, total {result['total']:.3f} s; of the matmul peak"
            f" sampling {result['utilisation']['sampling']:.1%}, update {result['utilisation']['update']:.1%}",
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

    config = load_config(arguments.config)
    for name, settings in _runs(arguments, config):
        yield name, wall_clock.time_run(settings, *_parts(config, settings, device), _repeats(arguments))


def _runs(arguments: argparse.Namespace, config):
    """(name, run) of the tier's runs that are timed, with as many prompts as asked for."""
    for name in arguments.runs or [name for known in OFFICIAL.values() for name in known if name in config.runs]:
        settings = config.get_run(name)
        if arguments.prompts:
            settings = settings.model_copy(update={"prompts_per_iteration": arguments.prompts})
        yield name, settings


def _parts(config, settings, device) -> "tuple[Backbone, Scorer, list[str]]":
    """A run's own model, reward and prompts, loaded anew."""
    from progrpo.grpo.backbone import load_backbone
    from progrpo.jobs.loading import prompts_of
    from progrpo.jobs.train import load_reward

    prompts = [record.prompt for record in prompts_of(config.prompt_sets[settings.prompts])]
    backbone = load_backbone(config.models[settings.model], device, train_all_weights=settings.lora is None)
    return backbone, load_reward(config, settings, device), prompts


def _compare(arguments: argparse.Namespace, device) -> int:
    """Runs of a tier and their plain loops in turn; prints tables or JSON, and writes the JSON."""
    from progrpo.config import load_config
    from progrpo.cost.comparison import arms_of, compare
    from progrpo.cost.comparison_table import markdown, ratios
    from progrpo.cost.saving import measure_saving, official_saving
    from progrpo.files import to_json

    config = load_config(arguments.config)
    runs = dict(_runs(arguments, config))

    def load(settings):
        return _parts(config, settings, device)

    arms = arms_of(runs, plain=bool(arguments.runs), compiled=arguments.compile)
    record = compare(arms, load, _repeats(arguments), device)
    record["prompts"] = {name: settings.prompts_per_iteration for name, settings in runs.items()}
    record["ratios"] = ratios(record)
    full = [(name, settings) for name, settings in runs.items() if not settings.lora and not settings.group.pruning]
    official = load_config(TABLES_7_AND_8)
    record["saving"] = {name: measure_saving(settings, load) for name, settings in full} | {
        f"{name} at official size, computed": official_saving(official.get_run(name), GPU_TFLOPS, GPU_UTILISATION)
        for name, _ in full
        if name in official.runs
    }
    path = _write(arguments, device, record)
    print(
        to_json(record, "the comparison", indent=1) if arguments.json else "\n".join([*markdown(record), "", str(path)])
    )
    return 0


def _table(path: Path, into: str | None) -> int:
    """Print a stored comparison, or put its ratios into a document; UserError for a file that is none, a document without marks."""
    from progrpo.cost.comparison_table import markdown, wanted
    from progrpo.files import read_json, read_text, write_text

    record = read_json(path)
    if not isinstance(record, dict) or not {"arms", "ratios", "matmul_peak", "saving"} <= record.keys():
        raise UserError(f"{path}: not a file of progrpo bench --compare")
    if into is None:
        print("\n".join(markdown(record)))
        return 0
    text = read_text(into)
    before, found, rest = text.partition(MARKS[0])
    _, also, after = rest.partition(MARKS[1])
    if not (found and also):
        raise UserError(f"{into}: has no lines {' and '.join(MARKS)} to put the table between")
    write_text(into, "\n".join([before + MARKS[0], *wanted(record), MARKS[1] + after]))
    return 0


def _write(arguments: argparse.Namespace, device, results: dict) -> Path:
    """The JSON file with the measured runs, or with a comparison."""
    from progrpo.config import load_config
    from progrpo.files import write_json
    from progrpo.provenance import LIBRARIES, device_name

    name = device_name(device)
    folder = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    what = arguments.official or load_config(arguments.config).tier
    if arguments.config:
        folder = f"{folder}-{what}"  # never beside the official shapes: the same names mean other sizes
    kind = "comparison" if arguments.compare else "wall_clock"
    path = Path(arguments.out or f"results/hardware/{folder}/{kind}_{what}.json")
    record = {
        "what": what,
        "device": name,
        "precision": arguments.precision if arguments.official else None,
        "warmup": arguments.warmup,
        "versions": {name: version(name) for name in ("progrpo", *LIBRARIES)},
        **(results if arguments.compare else {"runs": results}),
    }
    write_json(path, record)
    return path
