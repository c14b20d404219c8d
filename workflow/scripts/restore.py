"""The body of `make restore`:  restore.py TIER

Published trainings and scores come back into a tier's results, from where the rules go on: what is there is not made again, and what
is not is trained. A file that is there already stays.
"""

import gzip
import shutil
import subprocess
import sys
from collections.abc import Collection
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from progrpo.config import load_config
from progrpo.errors import UserError
from progrpo.files import sha256, write_atomic, write_text
from progrpo.identity import BEGUN
from progrpo.workflow import publishing
from progrpo.workflow.code_inputs import Code
from progrpo.workflow.plan import Plan

PLACES = {"training": "runs", "runs": "runs"} | {
    name: name for name in publishing.RESULTS
}  # in the order of their making


def own_trainings(results: Path, published: Path) -> list[str]:
    """Names `<run>-seed<seed>` of the published trainings that were begun in `results` too: nothing published belongs to those."""
    found = []
    for path in sorted(results.glob(f"runs/*/{BEGUN}")):
        own, other = (folder / "runs" / path.parent.name / "final/provenance.json" for folder in (results, published))
        if not (own.is_file() and other.is_file() and sha256(own) == sha256(other)):
            found.append(path.parent.name)
    return found


def bring(source: Path, target: Path, own: Collection[str] = ()) -> int:
    """Copy the files of a folder that `target` lacks, unpacked, each newer than those before it; how many.

    own: trainings whose folders and files, `<run>-seed<seed>` or with an ending, are left out.
    """
    files = [
        file
        for file in sorted(source.rglob("*"))
        if file.is_file()
        and file.suffix != ".dvc"
        and file.name != ".gitignore"
        and file.relative_to(source).parts[0].partition(".")[0] not in own
    ]
    # Samples before the analyses of them; a training is complete when its provenance is there.
    files.sort(key=lambda file: (file.name == "provenance.json", "samples" not in file.parts))
    places = {file: target / str(file.relative_to(source)).removesuffix(".gz") for file in files}
    missing = {file: place for file, place in places.items() if not place.exists()}
    for file, place in missing.items():
        with gzip.open(file) if file.suffix == ".gz" else open(file, "rb") as stored:
            write_atomic(place, partial(shutil.copyfileobj, stored))  # half a file would stay for good
    return len(missing)


def bring_inputs(plan: Plan) -> None:
    """Models, prompts and scorers: what is restored must be newer than what it was made from, or the rules make it again."""
    read = {file for run in plan.config.runs for file in plan.train_inputs(SimpleNamespace(run=run))}
    read |= {*plan.evaluate_inputs(plan.scored(plan.config.evaluations))}
    missing = sorted(file for file in read if not Path(file).exists())
    if missing:
        options = ("--profile", "local", "--cores", "1", "--config", f"tier={plan.config.tier}")
        subprocess.run(["snakemake", *missing, *options], check=True)


def restore(tier: str) -> None:
    """Pull and copy; UserError when nothing is published."""
    published = Path("results/published", tier)
    publishing.stored_files(published)
    plan = Plan(load_config(f"config/{tier}.yaml"), Code(Path("code")))
    results = Path(plan.config.results)
    bring_inputs(plan)
    pointers = [*published.glob("*.dvc"), *published.glob("runs/*/*.dvc")]
    wanted = [str(path) for path in pointers if path.stem not in ("summary.json", "images", "prompts")]
    subprocess.run(["dvc", "pull", "--quiet", "--force", *wanted], check=True)
    own = own_trainings(results, published)
    count = sum(
        bring(published / name, results / place, own) for name, place in PLACES.items() if (published / name).is_dir()
    )
    lines = [f"{sha256(path)}  {path}\n" for path in published.glob("runs/*/final/provenance.json")]
    write_text(results / publishing.ADOPTED, "".join(sorted(lines)))
    if own:
        print(f"Left as they are, being of your own: {', '.join(own)}. What is published of them is not restored.")
    runs = len(list(results.glob("runs/*/final/provenance.json")))
    print(
        f"{count} files restored into {results}: {runs} trainings are there. `make claims RERUN=1 SEEDS=<n>` trains what is not."
    )


if __name__ == "__main__":
    try:
        restore(sys.argv[1])
    except (UserError, subprocess.CalledProcessError) as error:
        print(f"make restore: {error}", file=sys.stderr)
        sys.exit(2)
