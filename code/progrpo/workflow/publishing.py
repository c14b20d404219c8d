"""What `make publish` puts under DVC: the parts of a tier's results, what each was made from, and which fit into a remote.

A part is a folder of results/<tier>/ that is copied to the same place below results/published/<tier>/ and has a pointer there. The
pointer names what the part was made from, which is what `dvc dag` draws.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from progrpo.config import Config
from progrpo.errors import UserError
from progrpo.files import read_object, sha256
from progrpo.names import evaluated_names, seed_folder, seeds_of
from progrpo.typed import read_yaml
from progrpo.workflow.plan import Plan
from progrpo.workflow.sources import prompt_file

EMBEDDED = "embedded"  # the remote that travels inside the repository, and how many bytes it may hold
EMBEDDED_BYTES = 60 * 10**6
LISTINGS = 10**6  # of those, for DVC's own lists of files
RESULTS = ("evaluations", "analysis", "curves")  # always published, as far as they were made
SUMMARISED = (*RESULTS, "training")  # parts that a summary is made from
WEIGHTS = ("final", "snapshots")  # folders of a run, the more important first
CONTENTS = "contents.json"  # beside the pointers: the files of RESULTS that are published, which a pointer does not say
ADOPTED = "adopted.sha256"  # in a tier's results: of the trainings that came from what is published
RECORD = (
    "metrics.jsonl",
    "timings.jsonl",
)  # files of a run that its curves are drawn and its costs counted from


@dataclass(frozen=True)
class Part:
    """A folder `path` below results/<tier>/, and the files and folders that it was made from."""

    path: str
    made_from: tuple[str, ...] = ()


def folder_size(folder: Path) -> int:
    """Bytes of all files of a folder; 0 where there is none."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def finished_runs(plan: Plan) -> list[tuple[str, int]]:
    """(run, seed) of every training of the tier that has ended: its provenance is written last."""
    runs = [(run, seed) for run in plan.config.runs for seed in seeds_of(plan.config, run)]
    return [
        (run, seed) for run, seed in runs if _run_folder(plan, run, seed).joinpath("final/provenance.json").is_file()
    ]


def recorded_runs(plan: Plan) -> list[tuple[str, int]]:
    """(run, seed) of every training that has ended, also where its weights did not fit and only its curve came back."""
    ended = set(finished_runs(plan))
    runs = [(run, seed) for run in plan.config.runs for seed in seeds_of(plan.config, run)]
    return [(run, seed) for run, seed in runs if (run, seed) in ended or _came_back(plan, run, seed)]


def _came_back(plan: Plan, run: str, seed: int) -> bool:
    """Whether a training's curve is there and its record whole: of one that is trained anew, the record is not."""
    curve = Path(plan.config.results, "curves", f"{seed_folder(run, seed)}.npz")
    metrics = _run_folder(plan, run, seed) / "metrics.jsonl"
    whole = metrics.is_file() and metrics.read_bytes().count(b"\n") == plan.config.runs[run].iterations
    return curve.is_file() and whole


def would_be_lost(plan: Plan, published: Path, remote: str) -> list[str]:
    """What is published of a tier and would not be by publishing again to this remote: it is not among the results here, or the
    embedded remote does not take it. Weights that do not fit into the embedded remote are told of elsewhere."""
    results, listing = Path(plan.config.results), published / CONTENTS
    files = read_object(listing)["files"] if listing.is_file() else []
    lost = [file for file in files if not (results / file).is_file()]
    for pointer in sorted(published.glob("runs/*/*.dvc")):
        weights = pointer.relative_to(published).with_suffix("")
        if not folder_size(results / weights):
            lost.append(str(weights))
    recorded = {f"training/{seed_folder(run, seed)}" for run, seed in recorded_runs(plan)}
    lost += sorted(_listed(published, "training") - recorded)
    if (published / "training.dvc").is_file() and not recorded and not lost:
        lost.append("training")
    everything = {"images": [results / "images"], "prompts": prompt_sources(plan)}
    for name, sources in everything.items():
        gone = remote == EMBEDDED or not any(source.is_dir() for source in sources)
        if (published / f"{name}.dvc").is_file() and gone:
            lost.append(name)
    return lost


def _listed(published: Path, part: str) -> set[str]:
    """The folders of a part that is published, as `<part>/<folder>`, from its hashes, which git holds."""
    listing = published / f"{part}.sha256"
    lines = listing.read_text().splitlines() if listing.is_file() else []
    return {str(Path(line.split(maxsplit=1)[1]).parent) for line in lines}


def foreign_training(results: Path) -> Path | None:
    """The `provenance.json` of a training in a tier's results that was not adopted from what is published; None for none."""
    adopted = results / ADOPTED
    known = {line.split()[0] for line in adopted.read_text().splitlines()} if adopted.is_file() else set()
    trained = sorted(results.glob("runs/*/final/provenance.json"))
    return next((file for file in trained if sha256(file) not in known), None)


def _run_folder(plan: Plan, run: str, seed: int) -> Path:
    return Path(plan.config.results, "runs", seed_folder(run, seed))


def weights(plan: Plan) -> list[Part]:
    """The weights of every ended training, those first that a remote of limited size should rather hold: final ones, of these small
    ones, to the megabyte, and of equally large ones the first seeds of every arm, as arms are compared seed by seed."""
    parts = {}
    for run, seed in finished_runs(plan):
        read = tuple(plan.train_inputs(SimpleNamespace(run=run)))
        for rank, name in enumerate(WEIGHTS):
            if size := folder_size(_run_folder(plan, run, seed) / name):
                parts[rank, size >> 20, seed, f"runs/{seed_folder(run, seed)}/{name}"] = read
    return [Part(path, read) for (_, _, _, path), read in sorted(parts.items())]


def fitting(parts: Iterable[Part], sizes: dict[str, int], room: int) -> list[Part]:
    """Those of some parts, in their order, that fit into so many bytes."""
    taken = []
    for part in parts:
        if sizes[part.path] <= room:
            room -= sizes[part.path]
            taken.append(part)
    return taken


def contents(published: Path) -> list[str]:
    """The files of `RESULTS` in a folder of published results, by the names that they had in the tier's results, not packed."""
    found = [file for name in RESULTS for file in (published / name).rglob("*") if file.is_file()]
    return sorted(str(file.relative_to(published)).removesuffix(".gz") for file in found)


def hashes(published: Path, part: str) -> str:
    """The SHA-256 of each file of a part, as `sha256sum -c` reads them in the folder of the published results."""
    files = sorted(file for file in (published / part).rglob("*") if file.is_file())
    return "".join(f"{sha256(file)}  {file.relative_to(published)}\n" for file in files)


def stored_files(published: Path) -> list[str]:
    """Those that are published of a tier, as `make publish` listed them; UserError where nothing is."""
    if not (listing := published / CONTENTS).is_file() or not (files := read_object(listing)["files"]):
        raise UserError(f"nothing is published of tier {published.name} ({listing} is missing or empty)")
    return files


def with_published_weights(config: Config, published: Path) -> Config:
    """A tier of those runs and seeds alone whose weights are published; UserError where there are none."""
    runs = {
        name: run.model_copy(update={"seeds": seeds})
        for name, run in config.runs.items()
        if (seeds := tuple(s for s in seeds_of(config, name) if _pointer(published, name, s).is_file()))
    }
    if not runs:
        raise UserError(f"no weights are published of tier {config.tier} ({published / 'runs'})")
    return config.model_copy(update={"runs": runs})


def stored_curves(config: Config, published: Path) -> list[str] | None:
    """The published learning curves, where those of a tier of published weights cannot be made: not all snapshots are published."""
    if config.learning_curve is None or all(
        (published / "runs" / seed_folder(name, seed) / "snapshots.dvc").is_file()
        for name, run in config.runs.items()
        for seed in seeds_of(config, name)
        if run.snapshots
    ):
        return None
    return [file for file in stored_files(published) if file.startswith("curves/")]


def _pointer(published: Path, run: str, seed: int) -> Path:
    return published / "runs" / seed_folder(run, seed) / "final.dvc"


def prompt_sources(plan: Plan) -> list[Path]:
    """The downloaded folders that the tier's prompts lie in; none where they are the miniature world's."""
    names = [name for name, prompts in plan.config.prompt_sets.items() if prompts.source]
    return sorted({Path(prompt_file(plan.config, name)).parent for name in names})


def lineage(plan: Plan, path: str, published: Path, trained: Iterable[Part]) -> tuple[str, ...]:
    """What a part that is no weights was made from: trained weights, images, models, prompts and scorers."""
    finals = [str(published / part.path) for part in trained if part.path.endswith("/final")]
    sets = list(plan.config.evaluations)
    read = [file for run in plan.config.runs for file in plan.train_inputs(SimpleNamespace(run=run))]
    drawn = [
        file
        for name in evaluated_names(plan.config)
        for file in plan.generate_inputs(sets)(SimpleNamespace(model=name))
    ]
    analysed = [file for name in plan.config.analyses for file in plan.analysis_inputs(SimpleNamespace(analysis=name))]
    made_from = {
        "images": [*finals, *drawn],
        "evaluations": [*finals, str(published / "images"), *plan.evaluate_inputs(plan.scored(sets))],
        "curves": [*(str(published / part.path) for part in trained), *plan.evaluate_inputs(plan.scored(sets))],
        "analysis": [*analysed, str(published / "training")],
        "training": read,
    }
    return tuple(sorted(set(made_from.get(path, []))))


def pointer_text(pointer: Path, made_from: Iterable[str], remote: str) -> dict[str, Any]:
    """A pointer as `dvc add` wrote it, with what its folder was made from, as far as it is here, and the remote that holds it.

    One file alone is not named: DVC takes a pointer with one dependency and no command for an import, and pushes no content of it.
    """
    content = read_yaml(pointer)
    there = [name for name in made_from if not Path(name).is_absolute() and Path(name).exists()]
    if len(there) > 1:
        content["deps"] = [{"path": os.path.relpath(name, pointer.parent)} for name in there]
    content["outs"][0]["remote"] = remote  # whatever the reader's default is
    return content


def embedded_bytes(results: Path, without: Path) -> int:
    """Bytes that the remote inside the repository holds for the pointers below `results`, except those below `without`."""
    outs = [
        out
        for pointer in results.rglob("*.dvc")
        if not pointer.is_relative_to(without)
        for out in read_yaml(pointer)["outs"]
    ]
    return sum(out["size"] for out in outs if out.get("cache", True) and out.get("remote", EMBEDDED) == EMBEDDED)


def require_small(remote: Path, limit: int = EMBEDDED_BYTES) -> None:
    """UserError when the remote inside the repository holds more bytes than it may."""
    if (size := folder_size(remote)) > limit:
        raise UserError(
            f"{remote} holds {size / 1e6:.1f} MB, {limit / 1e6:.0f} are allowed; publish to REMOTE=<name> instead"
        )
