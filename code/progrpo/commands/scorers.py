"""`progrpo scorers`: report how well the miniature scorers rank, time every scorer."""

import argparse

from progrpo.commands.options import HelpFormatter, add_device, file_path, require_between
from progrpo.errors import UserError


def add_parser(commands) -> None:
    """Add the command's parser to `commands`."""
    parser = commands.add_parser("scorers", help="judge the miniature scorers, time every scorer")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    report = _action(actions, "report", "held-out pair accuracy and rank correlations", run_report)
    report.add_argument("--scorers", default="results/miniature/scorers", help="folder with one folder per scorer")
    report.add_argument("--out", required=True, type=file_path, help="JSON file to write")
    report.add_argument("--prompts", type=int, default=700, help="held-out prompts, balanced over the tags")
    report.add_argument("--seed", type=int, default=1, help="of prompts and images")

    throughput = _action(actions, "throughput", "images per second, a batch against one at a time", run_throughput)
    throughput.add_argument("--scorer", required=True, help="kind of the scorer")
    throughput.add_argument(
        "--full-size", action="store_true", help="official architecture with random weights, in place of --path"
    )
    throughput.add_argument("--path", default=None, help="folder of a scorer's weights")
    throughput.add_argument("--batch", type=int, default=8, help="images in a batch")
    throughput.add_argument("--repeats", type=int, default=3, help="measurements, of which the median counts")
    throughput.add_argument("--resolution", type=int, default=512, help="side of the scored images in pixels")
    throughput.add_argument("--precision", default="fp32", help="fp32, fp16 or bf16")
    add_device(throughput)
    throughput.add_argument(
        "--out", required=True, type=file_path, help="JSON file to write; results of other scorers in it are kept"
    )


def _action(actions, name: str, text: str, run) -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=text, description=text, formatter_class=HelpFormatter)
    action.set_defaults(run=run)
    return action


def run_report(arguments: argparse.Namespace) -> int:
    """Judge every scorer that has a folder under --scorers."""
    from pathlib import Path

    from progrpo.devices import choose_device
    from progrpo.files import write_json
    from progrpo.miniature.scorer_report import report
    from progrpo.plugins import SCORERS

    require_between("--prompts", arguments.prompts, 1, 10**5)
    require_between("--seed", arguments.seed, 0, 10**18)
    choose_device("cpu")
    folders = {kind: path for kind in SCORERS if (path := Path(arguments.scorers, kind)).is_dir()}
    if not folders:
        raise UserError(f"{arguments.scorers}: no folder of a scorer there; train them with `progrpo miniature`")
    result = report(folders, arguments.prompts, arguments.seed)
    write_json(arguments.out, result)
    for kind, accuracy in result["scorers"].items():
        degraded = accuracy["by_degradation"].values()
        print(f"{kind}: {accuracy['hard']:.3f} of hard pairs, {sum(degraded) / len(degraded):.3f} of crisp ones")
    return 0


def run_throughput(arguments: argparse.Namespace) -> int:
    """Time one scorer and put the result beside those of other scorers in the file."""
    from pathlib import Path

    import torch

    from progrpo.cost.throughput import FULL_SIZE, Load, measure
    from progrpo.devices import choose_device
    from progrpo.files import read_object, write_json
    from progrpo.provenance import device_name
    from progrpo.rewards import load_scorer
    from progrpo.typed import check

    if arguments.full_size == (arguments.path is not None):
        raise UserError("give either --full-size (random weights) or --path (a folder of weights)")
    if min(arguments.batch, arguments.repeats, arguments.resolution) < 1:
        raise UserError("--batch, --repeats and --resolution must be at least 1")
    device = choose_device(arguments.device)
    common = {"precision": arguments.precision, "batch_size": arguments.batch}
    if arguments.path is not None:
        scorer = load_scorer(arguments.scorer, arguments.path, device, **common)
    elif arguments.scorer in FULL_SIZE:
        scorer = FULL_SIZE[arguments.scorer](device, **common)
    else:
        raise UserError(f"--scorer {arguments.scorer}: unknown; use one of {', '.join(FULL_SIZE)}")
    result = measure(scorer, Load(arguments.batch, arguments.repeats, arguments.resolution), device)
    result |= {"precision": arguments.precision, "weights": "random, full size" if arguments.full_size else "folder"}
    stored = read_object(arguments.out) if Path(arguments.out).is_file() else {"scorers": {}}
    check(dict[str, dict], stored.get("scorers"), f"{arguments.out}: scorers")
    stored |= {"device": device_name(device), "threads": torch.get_num_threads(), "torch": torch.__version__}
    stored["scorers"][arguments.scorer] = result
    write_json(arguments.out, stored)
    print(
        f"{arguments.scorer}: {result['images_per_second_batched']} images/s in a batch of {arguments.batch},"
        f" {result['images_per_second_one_at_a_time']} one at a time"
    )
    return 0
