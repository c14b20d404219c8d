"""The analyses of a results folder, checked as they are read."""

from pathlib import Path
from typing import Any

from progrpo.report.schema import Analyses
from progrpo.typed import check, read_checked

ANALYSES = ("flops", "pruning_pilot", "reward_clustering", "ovf_study", "gradient_signal")


def stored_analyses(results: Path) -> dict[str, Any]:
    """{name: JSON} of the analyses that are there; UserError names a file that is no such analysis."""
    files = {name: results / "analysis" / f"{name}.json" for name in ANALYSES}
    found = {name: read_checked(dict[str, Any], path) for name, path in files.items() if path.is_file()}
    for name, result in found.items():
        check(Analyses, {name: result}, files[name])
    return found
