"""`progrpo claims`: the paper's claims judged from stored results."""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from progrpo.commands.options import HelpFormatter, file_path, require_between


def add_parser(commands) -> None:
    """Add the command's parser to `commands`."""
    parser = commands.add_parser(
        "claims",
        help="the paper's claims judged by the rules of config/claims.yaml",
        description="Judge the claims of a tier from its published curves, costs and analyses, or with --own from those of a run of"
        " your own: supported, not supported, inconclusive, not run, or void where the baseline itself does not learn.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--tier", default="mini", help="tier, i.e. the name of a file config/<tier>.yaml")
    parser.add_argument("--config", help="config file; default: config/<tier>.yaml")
    parser.add_argument("--claims", default="config/claims.yaml", help="the claims and their rules")
    parser.add_argument("--own", action="store_true", help="from results/<tier>/, not from results/published/<tier>/")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of a table")
    parser.add_argument("--out", type=file_path, help="also write the JSON to this file")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="also draw the figures of the claims there")
    parser.add_argument(
        "--pages", action="store_true", help="also write the published tier's README.md, and the outcomes in README.md"
    )
    parser.add_argument(
        "--targets",
        type=int,
        metavar="SEEDS",
        help="only print the files that so many seeds of each run need, for snakemake",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Judge, print, write."""
    from progrpo.config import load_config
    from progrpo.errors import UserError
    from progrpo.files import to_json, write_json, write_text
    from progrpo.report.arms_page import arm_tables
    from progrpo.report.claims_file import load_claims
    from progrpo.report.claims_page import as_json, lines, page, with_outcomes, with_tables
    from progrpo.report.stored import load_summary
    from progrpo.report.verdicts import judge, targets

    if arguments.pages and arguments.own:
        raise UserError(
            "--pages: writes the published pages, and --own judges results that are not published; leave one out"
        )
    config = load_config(arguments.config or f"config/{arguments.tier}.yaml")
    claims = load_claims(arguments.claims)
    if arguments.targets is not None:
        require_between("--targets", arguments.targets, 1, 100)
        print("\n".join(targets(claims, config, arguments.targets)))
        return 0
    evidence = _evidence(config, arguments.own)
    try:
        verdicts = judge(claims, evidence)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{evidence.source}: results that claims cannot be judged from ({error})") from None
    result = as_json(claims, verdicts, config.tier)
    if arguments.out:
        write_json(arguments.out, result)
    if arguments.figures:
        from progrpo.report.claims_figures import draw_all

        draw_all(claims, verdicts, evidence, arguments.figures)
    if arguments.pages:
        arms = arm_tables(claims, verdicts, evidence)
        readme = Path("README.md")
        evaluations = load_summary(evidence.source / "summary.json", config.tier)["evaluations"]
        outcomes = with_outcomes(readme.read_text(), verdicts, config.tier, evaluations)
        outcomes = with_tables(outcomes, claims, verdicts, arms, config.tier)
        write_text(f"results/published/{config.tier}/README.md", page(claims, verdicts, arms, config.tier))
        write_text(readme, outcomes)
    if not verdicts:
        print(f"{arguments.claims}: has no claim of tier {config.tier}", file=sys.stderr)
    print(to_json(result, "the verdicts", indent=1) if arguments.json else "\n".join(lines(verdicts)))
    return 0


def _pulled(pointer: Path) -> bool:
    """Whether DVC brought what a pointer names, from the remote inside the repository."""
    command = ["dvc", "pull", "--quiet", str(pointer)]
    return shutil.which("dvc") is not None and subprocess.run(command, capture_output=True).returncode == 0


def _evidence(config, own: bool):
    """The stored results of a tier, pulled where only their pointer is here; UserError where they cannot be had."""
    from progrpo.errors import UserError
    from progrpo.report.evidence import Evidence
    from progrpo.report.stored import PUBLISHED, load_summary, stored_analyses

    source = Path(config.results) if own else PUBLISHED / config.tier
    if own:
        if not source.is_dir():
            raise UserError(f"{source} is not here; run the tier first, or leave --own out to judge what is published")
        return Evidence(config, source, stored_analyses(source))
    if not source.is_dir():
        raise UserError(f"tier {config.tier} is not published ({source}); --own judges results of your own")
    pointer = source / "curves.dvc"
    if pointer.is_file() and not (source / "curves").is_dir() and not _pulled(pointer):
        raise UserError(f"{source}/curves is not here; `dvc pull {pointer}` brings it")
    return Evidence(config, source, load_summary(source / "summary.json", config.tier)["analysis"])
