"""`progrpo figures`: draw one figure from stored results."""

import argparse
from pathlib import Path

from progrpo.commands.options import HelpFormatter
from progrpo.errors import UserError

FIGURES = {
    "fig2": "static OVF study: the JSON of `progrpo analyse ovf-study`",
    "fig5": "training curves: run folders or their metrics.jsonl, any number of runs and seeds",
    "fig6": "reward distribution: the JSON of `progrpo analyse reward-clustering`",
    "fig7": "previews over steps: an .npz with images (rows, steps, H, W, 3) and prompts",
    "pilot": "pruning pilot: the JSON of `progrpo analyse pruning-pilot`",
    "qualitative": "image grid: an .npz with images (rows, models, H, W, 3), prompts and labels",
}


def add_parser(commands) -> None:
    """Add the command's parser to `commands`."""
    parser = commands.add_parser(
        "figures",
        help="draw a figure as PDF and PNG from stored results",
        description="Figures and their data. " + "; ".join(f"{name}: {text}" for name, text in FIGURES.items()) + ".",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--figure", required=True, choices=FIGURES, help="which figure")
    parser.add_argument("--data", required=True, nargs="+", metavar="FILE", help="stored results, see above")
    parser.add_argument("--out", required=True, metavar="STEM", help="files to write, without .pdf and .png")
    parser.add_argument("--keys", nargs="+", default=["reward_mean"], help="fig5: quantities of metrics.jsonl")
    parser.add_argument(
        "--over", default="iteration", choices=("iteration", "denoiser_calls"), help="fig5: the horizontal axis"
    )
    parser.add_argument("--window", type=int, default=10, help="fig5: iterations of the trailing mean")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw and write both files."""
    from progrpo.report import figures

    if arguments.figure != "fig5" and len(arguments.data) != 1:
        raise UserError(f"--data: {arguments.figure} is drawn from one file, not {len(arguments.data)}")
    try:
        figure = _draw(arguments, arguments.data[0])
    except (KeyError, ValueError, TypeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{' '.join(arguments.data)}: not data of {arguments.figure} ({what})") from None
    for path in figures.save(figure, arguments.out):
        print(path)
    return 0


def _draw(arguments: argparse.Namespace, path: str):
    from progrpo.files import read_json
    from progrpo.report import figures

    if arguments.figure == "fig5":
        return figures.draw_training_curves(
            _runs(arguments.data), tuple(arguments.keys), arguments.window, arguments.over
        )
    if arguments.figure in ("fig7", "qualitative"):
        return figures.draw_grid(*_grid(path))
    draw = {
        "fig2": figures.draw_ovf_study,
        "fig6": figures.draw_reward_distribution,
        "pilot": figures.draw_pilot,
    }[arguments.figure]
    return draw(read_json(path))


def _grid(path: str) -> tuple:
    """Images, prompts and column labels of an .npz; without labels the columns are completed steps."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as stored:
            images, prompts = stored["images"], stored["prompts"].tolist()
            labels = stored["labels"].tolist() if "labels" in stored else None
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    return images, prompts, labels or [f"t = {step}" for step in range(images.shape[1])]


def _runs(paths: list[str]) -> dict[str, list[list[dict]]]:
    """{run: metric records of each seed} from run folders `<run>-seed<seed>` or the metrics files inside them."""
    from progrpo.files import read_jsonl
    from progrpo.names import parse_seed_folder

    runs: dict[str, list[list[dict]]] = {}
    for path in map(Path, paths):
        folder = path.parent if path.suffix == ".jsonl" else path
        run, _ = parse_seed_folder(folder.name) or (folder.name, 0)
        records = [record for _, record in read_jsonl(folder / "metrics.jsonl")]
        if not records:
            raise UserError(f"{folder / 'metrics.jsonl'}: empty; train the run first")
        runs.setdefault(run, []).append(records)
    return runs
