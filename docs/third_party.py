"""Write docs/third-party.md, from the manifest of downloads and from the environment:  python docs/third_party.py"""

import re
import tomllib
from importlib.metadata import metadata
from pathlib import Path

from packaging.requirements import Requirement

from progrpo.weights.manifest import Entry, human_size, packaged_manifest

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("third-party.md")
CLASSIFIER = "License :: OSI Approved :: "


def origin(entry: Entry) -> str:
    """Where an entry comes from: the repository on the hub or on GitHub, or the host of a file."""
    if entry.hub:
        return f"hub {entry.hub}"
    if entry.url is None:
        return "written here"
    host, *folders = entry.url.split("/")[2:]
    return f"github {'/'.join(folders[:2])}" if "github" in host else host


def revision(entry: Entry) -> str:
    """An entry's revision, a commit by its first ten digits."""
    return entry.revision[:10] if re.fullmatch("[0-9a-f]{40}", entry.revision) else entry.revision


def hashes(entry: Entry) -> str:
    """Of how many files a public source states the hash; those of the others are recorded at the first download."""
    known = [stated for stated in entry.files.values() if stated is not None]
    if not known:
        return "first download"
    what = "beginning public" if any(stated.startswith("begins") for stated in known) else "public"
    rest = len(entry.files) - len(known)
    return f"{what} of {len(known)}, first download of {rest}" if rest else what


def downloads() -> list[str]:
    """Rows of prompts and weights: nothing of them is in this repository."""
    lines = [
        "| name | kind | from | revision | size | sha256 | licence | used for |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in packaged_manifest().items():
        where = (origin(entry), revision(entry), human_size(entry.size), hashes(entry))
        cells = (name, entry.kind, *where, entry.licence, entry.use)
        lines.append(f"| {' | '.join(cell.replace('|', ',') for cell in cells)} |")
    return lines


def licence(package: str) -> str:
    """What an installed package's metadata say of its licence, in one line."""
    said = metadata(package)
    classified = [line.removeprefix(CLASSIFIER) for line in said.get_all("Classifier") or [] if CLASSIFIER in line]
    return said.get("License-Expression") or ", ".join(classified) or said.get("License", "not stated").split("\n")[0]


def packages() -> list[tuple[str, str]]:
    """Name and locked version of every package that pyproject.toml asks for."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    locked = {line.split("==")[0].lower(): line.split("==")[1] for line in lines if not line.startswith("#")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    names = sorted((Requirement(text).name for text in asked), key=str.lower)
    return [(name, locked[name.lower()]) for name in names]


def page() -> str:
    """The whole page."""
    lines = [
        "# What comes from others",
        "",
        "Written by `docs/third_party.py`; do not edit. This repository's own code, prompts and miniature models: Apache-2.0.",
        "",
        "## Prompts and weights",
        "",
        "Downloaded by `progrpo fetch` or the workflow; tiers `smoke` and `mini` need none of it, and none is in this repository.",
        "Sizes may be rounded up. A hash is public where its source states it and the manifest has it; every other is written to",
        "`config/first_downloads/` at the first download, and each later one must equal it.",
        "",
        *downloads(),
        "",
        "## Packages",
        "",
        "What `pyproject.toml` asks for, with the licence that the package states; what these need in turn is in `requirements.txt`.",
        "",
        "| package | version | licence |",
        "|---|---|---|",
        *(f"| {name} | {version} | {licence(name)} |" for name, version in packages()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
