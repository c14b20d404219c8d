"""The summary and the analyses of a results folder, checked as they are read, and where the published ones lie."""

from pathlib import Path
from typing import Any

from progrpo.errors import UserError
from progrpo.report.schema import Analyses, Summary
from progrpo.typed import check, read_checked

PUBLISHED = Path("results/published")  # <tier>/summary.json and pointers, hardware/; `make publish` alone writes there
ANALYSES = ("flops", "pruning_pilot", "reward_clustering", "ovf_study", "gradient_signal")


def load_summary(path: Path | str, tier: str) -> dict:
    """The summary of a tier; UserError when it is missing, no summary or another tier's."""
    summary = read_checked(Summary, path)
    if summary["tier"] != tier:
        raise UserError(f"{path}: summary of tier {summary['tier']}, wanted {tier}")
    return summary


def stored_analyses(results: Path) -> dict[str, Any]:
    """{name: JSON} of the analyses that are there; UserError names a file that is no such analysis."""
    files = {name: results / "analysis" / f"{name}.json" for name in ANALYSES}
    found = {name: read_checked(dict[str, Any], path) for name, path in files.items() if path.is_file()}
    for name, result in found.items():
        check(Analyses, {name: result}, files[name])
    return found
