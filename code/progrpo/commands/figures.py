"""`progrpo figures`: draw one figure from stored results."""

import argparse
from pathlib import Path

from progrpo.commands.options import HelpFormatter, file_path, require_between
from progrpo.errors import UserError
from progrpo.paper_runs import distinct_names

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
    parser.add_argument(
        "--out", required=True, type=file_path, metavar="STEM", help="files to write, without .pdf and .png"
    )
    parser.add_argument("--keys", nargs="+", default=["candidates_mean"], help="fig5: quantities of metrics.jsonl")
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
    require_between("--window", arguments.window, 1, 10**6)
    try:
        paths = figures.save(_draw(arguments, arguments.data[0]), arguments.out)
    except (KeyError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{' '.join(arguments.data)}: not data of {arguments.figure} ({what})") from None
    for path in paths:
        print(path)
    return 0


def _draw(arguments: argparse.Namespace, path: str):
    from progrpo.report import figures, schema
    from progrpo.typed import read_checked

    if arguments.figure == "fig5":
        return figures.draw_training_curves(
            _runs(arguments.data), tuple(arguments.keys), arguments.window, arguments.over
        )
    if arguments.figure in ("fig7", "qualitative"):
        return figures.draw_grid(*_grid(path))
    draw, kind = {
        "fig2": (figures.draw_ovf_study, schema.OvfStudy),
        "fig6": (figures.draw_reward_distribution, schema.Clustering),
        "pilot": (figures.draw_pilot, schema.Pilot),
    }[arguments.figure]
    return draw(read_checked(kind, path))


def _grid(path: str) -> tuple:
    """Images, prompts and column labels of an .npz; without labels the columns are completed steps."""
    from progrpo.files import read_arrays

    stored = read_arrays(path, ("images", "prompts", "labels"))
    for key, kind, dimensions in (("images", "u1", 5), ("prompts", "U", 1), ("labels", "U", 1)):
        array = stored.get(key)
        if key == "labels" and array is None:
            continue
        if array is None or array.ndim != dimensions or array.dtype.kind != kind[0] or array.size == 0:
            raise UserError(
                f"{path}: {key}: missing, empty or of another type; expected {dimensions} dimensions of {kind}"
            )
    images = stored["images"]
    labels = stored["labels"].tolist() if "labels" in stored else [f"t = {step}" for step in range(images.shape[1])]
    prompts = [_printable(text) for text in stored["prompts"].tolist()]
    return images, prompts, distinct_names([_printable(text) for text in labels])


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _runs(paths: list[str]) -> dict[str, list[list[dict]]]:
    """{the paper's name of a run: records of each seed} from run folders `<run>-seed<seed>` or the metrics files inside them."""
    from progrpo.names import parse_seed_folder
    from progrpo.report.summary import read_metrics

    runs: dict[str, list[list[dict]]] = {}
    for path in map(Path, paths):
        folder = path.parent if path.suffix == ".jsonl" else path
        run, _ = parse_seed_folder(folder.name) or (folder.name, 0)
        records = read_metrics(folder / "metrics.jsonl")
        if not records:
            raise UserError(f"{folder / 'metrics.jsonl'}: empty; train the run first")
        runs.setdefault(run, []).append(records)
    return dict(zip(distinct_names(list(runs)), runs.values(), strict=True))
