"""What this machine has: packages, device, models, downloads, disk, tools. Looks and changes nothing; paths are those of the checkout.

Slow things are left to their own functions: torch is imported by `device` alone, hashes are computed only when asked for.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typing_extensions import TypedDict

from progrpo.errors import UserError
from progrpo.files import read_text, sha256
from progrpo.typed import check, read_checked, read_yaml
from progrpo.weights.manifest import RECORD, Entry, packaged_manifest

POINTER = Path("results/miniature.dvc")
OBJECTS = Path("dvc-remote/files/md5")  # of the remote that travels inside the repository
NOT_STORED = "autoencoder"  # made while the miniature is trained; .dvcignore leaves it out
TOOLS = {"Slurm": "sbatch", "LaTeX": "pdflatex", "git": "git"}


class Stored(TypedDict):
    """What a DVC pointer says of a folder: the hash of its listing, bytes and number of files."""

    md5: str
    size: int
    nfiles: int


class Pointer(TypedDict):
    """A `.dvc` file of one output."""

    outs: list[Stored]


def packages() -> dict[str, Any]:
    """Installed versions beside those of requirements.txt, and `problems`: what pyproject.toml needs and is not there."""
    lines = read_text("requirements.txt").splitlines()
    locked = dict(line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))
    found = {name: {"installed": installed(name), "locked": locked[name]} for name in locked}
    project = tomllib.loads(read_text("pyproject.toml"))["project"]
    needed = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["workflow"]]
    problems = [_problem(requirement, installed(requirement.name)) for requirement in needed]
    python = ".".join(map(str, sys.version_info[:3]))
    problems.append(_problem(Requirement(f"python{project['requires-python']}"), python))
    return {"python": python, "packages": found, "problems": [problem for problem in problems if problem]}


def installed(name: str) -> str | None:
    """The installed version of a package; None when it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _problem(requirement: Requirement, found: str | None) -> str | None:
    if found is not None and requirement.specifier.contains(found, prereleases=True):
        return None
    return f"{canonicalize_name(requirement.name)} {found or 'is missing'}, needed is {requirement.specifier}"


def device() -> dict[str, Any]:
    """CPU cores, memory in bytes, and the GPUs that torch sees; `problem` when torch cannot be imported."""
    page = os.sysconf("SC_PAGE_SIZE")
    found = {"cores": len(os.sched_getaffinity(0)), "memory": page * os.sysconf("SC_PHYS_PAGES")}
    try:
        import torch
    except Exception as error:  # whatever a broken installation raises
        return {**found, "gpus": [], "problem": f"torch cannot be imported: {error}"}
    gpus = [torch.cuda.get_device_properties(k) for k in range(torch.cuda.device_count())]
    return {**found, "gpus": [{"name": gpu.name, "memory": gpu.total_memory} for gpu in gpus], "problem": None}


def miniature(hashes: bool = False) -> dict[str, Any]:
    """The miniature models against their DVC pointer, by number of files and bytes, with `hashes` by content.

    `state` is published, differs (trained here, or damaged), incomplete or absent. `restorable`: the remote inside the repository
    has every file that the pointer stands for.
    """
    wanted = check(Pointer, read_yaml(POINTER), POINTER)["outs"][0]
    folder = POINTER.with_suffix("")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = [path for path in files if path.relative_to(folder).parts[0] != NOT_STORED]
    size = sum(path.stat().st_size for path in files)
    same = (len(files), size) == (wanted["nfiles"], wanted["size"])
    if same and hashes:
        same = listing_hash(folder, files) == wanted["md5"]
    state = "published" if same else "differs" if len(files) >= wanted["nfiles"] else "incomplete"
    return {
        "state": state if files else "absent",
        "files": len(files),
        "bytes": size,
        "published": {"files": wanted["nfiles"], "bytes": wanted["size"]},
        "hashes": hashes,
        "restorable": _restorable(wanted["md5"]),
    }


def listing_hash(folder: Path, files: list[Path]) -> str:
    """DVC's hash of a folder: the MD5 of its listing, which is JSON of each file's MD5 and name in the order of names."""
    entries = [
        {"md5": hashlib.md5(path.read_bytes()).hexdigest(), "relpath": path.relative_to(folder).as_posix()}
        for path in files
    ]
    entries.sort(key=lambda entry: entry["relpath"].split("/"))
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"


def _restorable(md5: str) -> bool:
    listing = _object(md5)
    return listing.is_file() and all(_object(entry["md5"]).is_file() for entry in json.loads(read_text(listing)))


def _object(md5: str) -> Path:
    return OBJECTS / md5[:2] / md5[2:]


def downloads(hashes: bool = False) -> dict[str, dict[str, Any]]:
    """Every entry of the manifest: bytes, and `state` present, absent, or what is wrong with its folder `data/<name>`.

    A download is present when the record that it wrote last names all files of the manifest and each has its size, with `hashes`
    also its SHA-256.
    """
    return {
        name: {"state": _state(Path("data") / name, entry, hashes), "bytes": entry.size, "licence": entry.licence}
        for name, entry in packaged_manifest().items()
    }


def _state(folder: Path, entry: Entry, hashes: bool) -> str:
    from progrpo.weights.fetch import Record, expected_hash

    if not (folder / RECORD).is_file():
        return "absent"
    try:
        record = read_checked(Record, folder / RECORD)
    except UserError as error:
        return str(error)
    if record.get("source") != entry.source:
        return f"{folder} is of another revision: {record.get('source')}"
    recorded = record["files"]
    plain = [file for file in entry.files if not re.search(r"[*?\[]", file)]
    for file in sorted({*plain, *recorded}):
        path = folder / file
        if file not in recorded or not path.is_file() or path.stat().st_size != recorded[file].get("bytes"):
            return f"{path} is missing or has another size"
        if hashes and not sha256(path).startswith(expected_hash(entry, folder, file) or ""):
            return f"{path} has another hash"
    return "present"


def free_disk() -> int:
    """Bytes that are free where the checkout lies."""
    return shutil.disk_usage(".").free


def tools() -> dict[str, bool]:
    """Which of the programs that are no Python packages are there."""
    return {name: shutil.which(program) is not None for name, program in TOOLS.items()}
