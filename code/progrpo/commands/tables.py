"""`progrpo tables`: one LaTeX fragment, all of a tier, or one HTML page of them, from the tier's summary."""

import argparse
from pathlib import Path

from progrpo.commands.options import HelpFormatter


def add_parser(commands) -> None:
    """Add the command's parser to `commands`."""
    parser = commands.add_parser(
        "tables",
        help="LaTeX fragments of the paper's tables",
        description="Write paper_tables/<tier>/<table>.tex from a tier's summary and paper_tables/expected/.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--tier", default="smoke", help="tier, i.e. the name of a file config/<tier>.yaml")
    parser.add_argument(
        "--table",
        default="all",
        help="name of one table, `all`, `document` (LaTeX that inputs all) or `page` (HTML of all)",
    )
    parser.add_argument("--config", help="config file; default: config/<tier>.yaml")
    parser.add_argument("--summary", help="summary to read; default: the config's results folder / summary.json")
    parser.add_argument(
        "--out",
        help="file (one table) or folder (all) to write; default: paper_tables/<tier>/, the results folder for `page`",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the fragments that were asked for."""
    from progrpo.config import load_config
    from progrpo.files import write_text
    from progrpo.report.tables import build, load_summary, table_names
    from progrpo.report.tables.document import document
    from progrpo.report.tables.page import page

    config = load_config(arguments.config or f"config/{arguments.tier}.yaml")
    folder = Path("paper_tables") / config.tier
    if arguments.table == "document":
        write_text(arguments.out or folder / "all_tables.tex", document(config))
        return 0
    summary = load_summary(arguments.summary or Path(config.results) / "summary.json", config.tier)
    if arguments.table == "page":
        write_text(arguments.out or Path(config.results) / "tables.html", page(summary, config))
        return 0
    if arguments.table != "all":
        write_text(arguments.out or folder / f"{arguments.table}.tex", build(arguments.table, summary, config))
        return 0
    texts = {name: build(name, summary, config) for name in table_names()}
    for name, text in texts.items():
        write_text(Path(arguments.out or folder) / f"{name}.tex", text)
    print(f"{len(texts)} fragments in {arguments.out or folder}")
    return 0
