"""The body of `make publish`:  publish.py TIER [REMOTE] [--drop]

The author's step: the results of this machine become the published ones of a tier, and its tables and verdicts are set from them.
Safe to repeat; what it changed is committed by hand. What is published and not among the results here stops it, unless --drop says
that it shall go. The remote inside the repository gets the evaluations, and of the weights what fits; a remote of one's own gets
everything: weights, images and prompts too.
"""

import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from progrpo.config import load_config
from progrpo.errors import UserError
from progrpo.files import write_json, write_text
from progrpo.names import seed_folder
from progrpo.report.claims_file import CLAIMS, load_claims
from progrpo.report.stored import PUBLISHED
from progrpo.report.summary import collect
from progrpo.workflow import publishing
from progrpo.workflow.code_inputs import Code
from progrpo.workflow.options import require_own_place
from progrpo.workflow.plan import Plan
from progrpo.workflow.publishing import EMBEDDED, Part

HARDWARE = PUBLISHED / "hardware"
LOCKS = shutil.ignore_patterns("*.lock", "lock", ".gitignore")


def dvc(*arguments: object) -> None:
    """Run DVC; its message and an end of this program when it fails."""
    subprocess.run(["dvc", *map(str, arguments)], check=True)


def link(source: str, target: str) -> None:
    """A second name of a file, which costs no disk, or a copy. Results are replaced by new files, never written into."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def pack(source: str | Path, target: str | Path) -> None:
    """A file as `<target>.gz`, of a fixed date, so that equal content has equal bytes."""
    Path(f"{target}.gz").write_bytes(gzip.compress(Path(source).read_bytes(), mtime=0))


def link_or_pack(source: str, target: str) -> None:
    """As `link`, and lines of every image or iteration packed: a quarter of the room in the remote, or less."""
    (pack if source.endswith(".jsonl") else link)(source, target)


def copy_folder(source: Path, target: Path, copy: Callable[[str, str], None] = link) -> None:
    """A folder under another name, without the files that say which process works in it."""
    shutil.copytree(source, target, copy_function=copy, ignore=LOCKS)


def copy_records(plan: Plan, target: Path) -> None:
    """What each ended training left of its iterations, packed."""
    for run, seed in publishing.recorded_runs(plan):
        folder = seed_folder(run, seed)
        for name in publishing.RECORD:
            if (file := Path(plan.config.results, "runs", folder, name)).is_file():
                (target / folder).mkdir(parents=True, exist_ok=True)
                pack(file, target / folder / name)


def plan_of(tier: str, remote: str, drop: bool) -> Plan:
    """The plan of a tier that can be published. UserError when it is not one that is published, was not run, would lose what is
    published, has a broken result, or the remote is unknown."""
    tiers = sorted(path.name for path in PUBLISHED.glob("*") if path.is_dir() and path != HARDWARE)
    if tier not in tiers:
        raise UserError(f"tier '{tier}' is not published; published are: {' '.join(tiers)}")
    listed = subprocess.run(["dvc", "remote", "list"], check=True, capture_output=True, text=True).stdout
    known = [line.split()[0] for line in listed.splitlines() if line.strip()]
    if remote not in known:
        raise UserError(f"REMOTE={remote}: no such DVC remote; known: {', '.join(known)}; `dvc remote add` makes one")
    plan = Plan(load_config(f"config/{tier}.yaml"), Code(Path("code")))
    results = Path(plan.config.results)
    require_own_place(f"config/{tier}.yaml", plan.config)
    if not any((results / name).is_dir() for name in (*publishing.RESULTS, "runs")):
        raise UserError(f"{results} holds no results; run the tier first")
    if (lost := publishing.would_be_lost(plan, PUBLISHED / tier, remote)) and not drop:
        raise UserError(
            f"{len(lost)} published files or folders are not in {results}, or not for {remote}, the first is {lost[0]};"
            f" `make restore TIER={tier}` brings them back, DROP=1 publishes without them"
        )
    collect(plan.config, HARDWARE)
    return plan


def copy_parts(plan: Plan, published: Path, remote: str) -> list[Part]:
    """Copy what the remote is to hold into the folder of the published results; the parts, in the order of their making."""
    results = Path(plan.config.results)
    names = [name for name in publishing.RESULTS if (results / name).is_dir()]
    if remote != EMBEDDED:
        names += [name for name in ("images",) if (results / name).is_dir()]
        for source in publishing.prompt_sources(plan):
            if source.is_dir():
                copy_folder(source, published / "prompts" / source.name)
    for name in names:
        copy_folder(results / name, published / name, link_or_pack if name in publishing.RESULTS else link)
    copy_records(plan, published / "training")
    names += [name for name in ("prompts", "training") if (published / name).is_dir()]

    candidates = publishing.weights(plan)
    sizes = {part.path: publishing.folder_size(results / part.path) for part in candidates}
    room = publishing.EMBEDDED_BYTES - publishing.LISTINGS - publishing.embedded_bytes(Path("results"), published)
    room -= sum(publishing.folder_size(published / name) for name in names)
    weights = publishing.fitting(candidates, sizes, room) if remote == EMBEDDED else candidates
    if left := len(candidates) - len(weights):
        print(
            f"{left} of {len(candidates)} folders of weights do not fit into {EMBEDDED}; REMOTE=<name> takes them all."
        )
    for part in weights:
        copy_folder(results / part.path, published / part.path)
    prompts = (str(published / "prompts"),) if "prompts" in names else ()
    weights = [Part(part.path, part.made_from + prompts) for part in weights]
    return [*weights, *(Part(name, publishing.lineage(plan, name, published, weights)) for name in names)]


def point(published: Path, parts: list[Part], remote: str) -> list[Path]:
    """A pointer beside each part, which knows what the part was made from; the pointers.

    A part that the summary is made from has a second output, the hashes of its files, which git holds: what the summary depends on
    is then there in every clone, pulled or not.
    """
    pointers = [published / f"{part.path}.dvc" for part in parts]
    if parts:
        dvc("add", "--quiet", *(published / part.path for part in parts))
    for part, pointer in zip(parts, pointers, strict=True):
        content = publishing.pointer_text(pointer, part.made_from, remote)
        if part.path in publishing.SUMMARISED:
            listing = f"{part.path}.sha256"
            write_text(published / listing, publishing.hashes(published, part.path))
            content["outs"].append({"path": listing, "cache": False})
        write_text(pointer, yaml.safe_dump(content, sort_keys=False))
    return pointers


def summarise(plan: Plan, published: Path, parts: list[Part]) -> Path:
    """Write the summary and its pointer, which is frozen: tables are set from it where nothing is pulled. The pointer."""
    write_json(published / "summary.json", collect(plan.config, HARDWARE, published / "runs"))
    names = sorted(f"{part.path}.sha256" for part in parts if part.path in publishing.SUMMARISED)
    content: dict = {"frozen": True, "outs": [{"path": "summary.json", "cache": False}]}
    if names:
        content["deps"] = [{"path": name} for name in [*names, os.path.relpath(HARDWARE, published)]]
    pointer = published / "summary.json.dvc"
    write_text(pointer, yaml.safe_dump(content, sort_keys=False))
    return pointer


def publish(tier: str, remote: str, drop: bool) -> None:
    """Everything from the results of this machine to the tables; UserError when it cannot be."""
    plan, published = plan_of(tier, remote, drop), PUBLISHED / tier
    if Path("results/hardware").is_dir():
        shutil.copytree("results/hardware", HARDWARE, dirs_exist_ok=True)
    for name in (*publishing.RESULTS, "images", "prompts", "training", "runs"):
        shutil.rmtree(published / name, ignore_errors=True)
    for pointer in (*published.glob("*.dvc"), *published.glob("*.sha256"), *published.glob(".gitignore")):
        pointer.unlink()
    parts = copy_parts(plan, published, remote)
    write_json(published / publishing.CONTENTS, {"files": publishing.contents(published)})
    pointers = point(published, parts, remote)
    summary = summarise(plan, published, parts)
    dvc("commit", "--quiet", "--force", *pointers, summary)
    if pointers:
        dvc("push", "--quiet", *pointers)
    # The remote travels in git, so each commit holds what its own pointers name and nothing else.
    dvc("gc", "--quiet", "--force", "--workspace", "--cloud", "--remote", EMBEDDED)
    publishing.require_small(Path("dvc-remote"))
    dvc("repro", "--quiet", "--glob", f"*@{tier}*")
    if load_claims(CLAIMS).of_tier(tier):
        subprocess.run(["progrpo", "claims", "--tier", tier, "--pages"], check=True)
    count = sum(part.path.endswith("/final") for part in parts)
    evaluated = len(list(Path(plan.config.results, "evaluations").glob("*/")))
    print(
        f"Published tier {tier}: {evaluated} models and seeds evaluated, the weights of {count} trainings, in {remote}."
    )
    print(
        "  python docs/pictures.py"
        " && git add README.md docs/pictures results/published paper_tables dvc.lock dvc-remote .dvc/config && git commit"
    )


if __name__ == "__main__":
    try:
        words = [word for word in sys.argv[1:] if word != "--drop"]
        publish(words[0], (words[1:] or [EMBEDDED])[0], "--drop" in sys.argv)
    except (UserError, subprocess.CalledProcessError) as error:
        print(f"make publish: {error}", file=sys.stderr)
        sys.exit(2)
