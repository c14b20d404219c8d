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
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare, write, print; 0 whatever the verdict."""
    from pathlib import Path

    from progrpo.config import load_config
    from progrpo.files import write_text
    from progrpo.report.comparison import NOTHING_PUBLISHED, compare, lines, verdict
    from progrpo.report.tables import PUBLISHED, load_summary

    config = load_config(arguments.config)
    published = PUBLISHED / config.tier / "summary.json"
    if not published.is_file():
        print(NOTHING_PUBLISHED.format(tier=config.tier))
        return 0
    own = load_summary(Path(config.results) / "summary.json", config.tier)
    cells = compare(own, load_summary(published, config.tier))
    if cells:
        out = Path(config.results) / "comparison.txt"
        write_text(out, "\n".join([*lines(cells), verdict(cells, config.tier)]) + "\n")
        print(f"Yours against the published, every cell: {out}")
        outside = [cell for cell in cells if cell.verdict == "outside"]
        if outside:
            print("\n".join(lines(outside)))
    print(verdict(cells, config.tier))
    return 0
