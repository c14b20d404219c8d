"""`progrpo tables`: one LaTeX fragment, all of a tier, or one HTML page of them, from published results or one's own."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from progrpo.commands.options import HelpFormatter

if TYPE_CHECKING:
    from progrpo.config import Config


def add_parser(commands) -> None:
    """Add the command's parser to `commands`."""
    parser = commands.add_parser(
        "tables",
        help="LaTeX fragments of the paper's tables",
        description="Write paper_tables/<tier>/<table>.tex from the published results of a tier, or with --own"
        " results/<tier>/tables/<table>.tex from the results of a run of your own.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--tier", default="mini", help="tier, i.e. the name of a file config/<tier>.yaml")
    parser.add_argument(
        "--table",
        default="all",
        help="name of one table, `all`, `document` (LaTeX that inputs all), `page` (HTML of all) or `metrics` (main"
        " numbers and held-out curves for `dvc metrics` and `dvc plots`)",
    )
    parser.add_argument("--own", action="store_true", help="from results/<tier>/, not from results/published/<tier>/")
    parser.add_argument("--config", help="config file; default: config/<tier>.yaml")
    parser.add_argument(
        "--out",
        help="file (one table) or folder (all) to write; default: paper_tables/<tier>/, with --own the results folder",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the fragments that were asked for."""
    from progrpo.config import load_config
    from progrpo.errors import UserError
    from progrpo.files import write_text
    from progrpo.report.stored import PUBLISHED, load_summary
    from progrpo.report.tables import build, table_names
    from progrpo.report.tables.document import document
    from progrpo.report.tables.page import page

    config = load_config(arguments.config or f"config/{arguments.tier}.yaml")
    source = Path(config.results) if arguments.own else PUBLISHED / config.tier
    folder = source / "tables" if arguments.own else Path("paper_tables") / config.tier
    if not arguments.own and not source.is_dir() and not (arguments.table == "document" and arguments.out):
        raise UserError(f"tier {config.tier} is not published ({source}); --own sets the tables of your own results")
    if arguments.table == "document":
        write_text(arguments.out or folder / "all_tables.tex", document(config))
        return 0
    summary = load_summary(source / "summary.json", config.tier)
    if arguments.table == "page":
        write_text(arguments.out or folder / "tables.html", page(summary, config))
        return 0
    if arguments.table == "metrics":
        write_metrics(Path(arguments.out or folder), summary, config)
        return 0
    names = table_names() if arguments.table == "all" else [arguments.table]
    texts = {name: build(name, summary, config, folder=source) for name in names}
    if arguments.table != "all":
        write_text(arguments.out or folder / f"{arguments.table}.tex", texts[arguments.table])
        return 0
    for name, text in texts.items():
        write_text(Path(arguments.out or folder) / f"{name}.tex", text)
    print(f"{len(texts)} fragments in {arguments.out or folder}")
    return 0


def write_metrics(folder: Path, summary: dict, config: "Config") -> None:
    """A file of main numbers per run, `metrics/<run>.json`, and the points of all held-out curves, `curves.json`."""
    from progrpo.files import write_json
    from progrpo.report.metrics import curve_points, main_metrics

    for run, values in main_metrics(summary, config).items():
        write_json(folder / "metrics" / f"{run}.json", values)
    write_json(folder / "curves.json", curve_points(summary))
