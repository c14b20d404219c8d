"""`progrpo compare`: the results of a run of your own beside the published ones."""

import argparse

from progrpo.commands.options import HelpFormatter


def add_parser(commands) -> None:
    """Add the command's parser to `commands`."""
    parser = commands.add_parser(
        "compare",
        help="your results against the published",
        description="Say of every evaluated number whether it lies in the interval in which a repetition of the published"
        " runs falls; all cells go to <results>/comparison.txt, those outside and the verdict to the screen.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--config", required=True, help="config/<tier>.yaml")
    parser.add_argument("--json", action="store_true", help="print every cell and the verdict as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare, write, print; 0 whatever the verdict."""
    from pathlib import Path

    from progrpo.config import load_config
    from progrpo.errors import UserError
    from progrpo.files import to_json, write_text
    from progrpo.report.comparison import as_data, compare, lines, verdict
    from progrpo.report.stored import PUBLISHED, load_summary

    config = load_config(arguments.config)
    if not PUBLISHED.is_dir():
        raise UserError(f"{PUBLISHED} is not here; give the command in the root of the repository")
    published = PUBLISHED / config.tier / "summary.json"
    cells = []
    if published.is_file():
        own = load_summary(Path(config.results) / "summary.json", config.tier)
        cells = compare(own, load_summary(published, config.tier))
    if arguments.json:
        print(to_json(as_data(cells, config.tier), "the comparison", indent=1))
        return 0
    if cells:
        out = Path(config.results) / "comparison.txt"
        write_text(out, "\n".join([*lines(cells), verdict(cells, config.tier)]) + "\n")
        print(f"Yours against the published, every cell: {out}")
        outside = [cell for cell in cells if cell.verdict == "outside"]
        if outside:
            print("\n".join(lines(outside)))
    print(verdict(cells, config.tier))
    return 0
