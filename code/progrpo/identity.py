"""Whose a folder is: what it was begun with, which process works in it, and whether its files are those that were written.

Two files stand beside a command's results: `begun.json`, everything that decides them (parts of the configuration, hashes of the
input files), and `lock`, held with flock while a command works there. A lock ends with its process, however that ends.
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO

from progrpo.errors import UserError
from progrpo.files import CANNOT_WRITE, read_json, sha256, write_json, write_text

CACHED_FROM = 64 * 2**20  # bytes; a smaller file is hashed sooner than the doubt about a cache is worth
SETTLED_NS = 2 * 10**9  # a file that changed this recently can change again within its time stamp's grain
MOST_FILES = 10_000  # of a folder of weights or prompts; more are a home or a whole disk
NOT_DECISIVE = {".md", ".png", ".jpg", ".lock"}  # beside weights: descriptions and pictures
RECORD = "fetched.json"
ABSENT = "none"
BEGUN = "begun.json"


# ---------------------------------------------------------------- files


def hash_files(path: Path | str, what: str) -> dict[str, str] | str:
    """SHA-256 of a file, or {relative name: SHA-256} of the files of a folder that a model can be loaded from.

    Hidden files, descriptions and `fetched.json` decide nothing and are left out. UserError when nothing is there.
    """
    path = Path(path)
    if path.is_file():
        return cached_sha256(path)
    present = list(islice((file for file in path.rglob("*") if file.is_file()), MOST_FILES + 1))
    if len(present) > MOST_FILES:
        raise UserError(f"{path}: more than {MOST_FILES} files, no {what}; name the folder itself")
    files = {
        str(name): path / name
        for name in sorted(file.relative_to(path) for file in present)
        if not any(part.startswith(".") for part in name.parts)
        if name.suffix not in NOT_DECISIVE and name.name != RECORD
    }
    if not files:
        raise UserError(f"{path}: no {what}; fetch it (progrpo fetch), or make it with `make reproduce`")
    return {name: cached_sha256(file) for name, file in files.items()}


def cached_sha256(path: Path) -> str:
    """SHA-256 of a file; a large one is read once, and again when its path, size, time of change or inode is another.

    Weights of tens of GB would take a minute at every start. The price: a bit that the disk itself flips in a base model or scorer,
    without anybody writing the file, is not noticed (`progrpo fetch` verifies downloads). A run's own weights are always read.
    """
    status = path.stat()
    settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS
    if status.st_size < CACHED_FROM or not settled:
        return sha256(path)
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}|{status.st_ino}"
    entry = _cache() / hashlib.sha256(key.encode()).hexdigest()
    with suppress(OSError):  # a home that is another user's
        if entry.is_file():
            return entry.read_text()
    digest = sha256(path)
    try:
        write_text(entry, digest)
    except UserError:
        print(
            f"{path}: its hash cannot be kept in {entry.parent}, so large files are read anew at every start;"
            " set XDG_CACHE_HOME to a folder that can be written",
            file=sys.stderr,
        )
    return digest


def _cache() -> Path:
    """Where hashes of large files are kept; a place that cannot be written for a user without a home."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        home = Path(os.devnull)
    return home / "progrpo" / "sha256"


def hash_results(folder: Path) -> dict[str, str]:
    """{relative name: SHA-256} of every file of a folder of results but `provenance.json`, read anew."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != "provenance.json")
    return {str(file.relative_to(folder)): sha256(file) for file in files}


def spoilt_file(final: Path) -> str | None:
    """The first file of trained weights that is not the one its `provenance.json` records; None when all are."""
    if not (final / "provenance.json").is_file():
        return f"{final}: no provenance.json of a finished training"
    try:
        record = read_json(final / "provenance.json")
    except UserError as error:
        return str(error)
    published = record.get("files") if isinstance(record, dict) else None
    if not isinstance(published, dict) or not published:
        return f"{final / 'provenance.json'}: records no weights"
    found = hash_results(final)
    for name in sorted({*published, *found}):
        if published.get(name) != found.get(name):
            return f"{final / name}: {difference('sha256', published.get(name), found.get(name))}, as it was published"
    return None


# ---------------------------------------------------------------- folders


@dataclass(frozen=True)
class Start:
    """How a command begins in a folder that is another's, or in use."""

    if_changed: Literal["refuse", "begin-anew"] = "refuse"
    wait_for_lock: bool = False
    fingerprint: str | None = None


REFUSE = Start()


class Folder:
    """A folder that a command fills, perhaps over several starts. `owns` are patterns of what the command writes there.

    `prefix` begins the names of the two files, for folders in which several results lie side by side.
    """

    def __init__(self, path: Path, owns: tuple[str, ...], prefix: str = ""):
        self.path, self.owns = path, owns
        self.begun, self.lock_file = path / f"{prefix}{BEGUN}", path / f"{prefix}lock"
        self._lock: TextIO | None = None

    # -------- one process at a time

    @contextmanager
    def held(self, wait: bool) -> Iterator[None]:
        """The folder locked by this process. UserError names the process that has it, unless `wait`: then until it ends."""
        if holder := self.lock(0):
            if not wait:
                raise UserError(holder)
            print(f"{holder}; waiting for it", flush=True)
            while self.lock(60):
                pass
        try:
            yield
        finally:
            self.release()

    def lock(self, seconds: float) -> str | None:
        """Try to lock the folder for some seconds; None when it is locked, else a line that names its holder."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.lock_file, "a+")  # noqa: SIM115  (held until `release`)
        except OSError as error:
            raise UserError(f"{self.lock_file}: {CANNOT_WRITE.format(error.strerror)}") from error
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    file.seek(0)
                    holder = file.read().strip() or "another process"
                    file.close()
                    return f"{self.lock_file}: held by {holder}; wait for it, or stop it"
                time.sleep(0.2)
            except OSError as error:
                raise UserError(f"{self.lock_file}: this file system cannot lock files ({error.strerror})") from error
        self._lock = file
        self._sign(file)
        return None

    def _sign(self, file: TextIO) -> None:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        command = " ".join(["progrpo", *sys.argv[1:]]).replace("\n", " ")
        holder = f"process {os.getpid()} on {socket.gethostname()} since {since} ({command})"
        try:
            file.truncate(0)
            os.write(file.fileno(), holder.encode(errors="backslashreplace"))  # an argument need not be text
        except OSError as error:
            self.release()
            raise UserError(f"{self.lock_file}: {CANNOT_WRITE.format(error.strerror)}") from error

    def release(self) -> None:
        """Unlock. The file stays: to remove it would let two processes lock two files of one name."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # -------- one content

    def claim(self, identity: dict[str, Any], start: Start) -> None:
        """Mark the folder as begun with `identity`, or find that it was; call it while the folder is locked.

        Another identity, or results without one, is a UserError that names what differs, or with "begin-anew" empties the folder.
        A fingerprint of what the command cannot see, as the workflow passes its code's, is compared where both starts gave one.
        """
        before = self._before() if self._results() else {}
        changes = self._changes(before, identity, start.fingerprint)
        if changes:
            listed = ", ".join(changes[:3]) + (f" and {len(changes) - 3} more" if len(changes) > 3 else "")
            if start.if_changed == "refuse":
                raise UserError(
                    f"{self.path}: begun with something else: {listed};"
                    " choose another --out, or give --if-changed begin-anew to drop what is there"
                )
            print(f"{self.path}: begun with something else: {listed}; beginning anew", flush=True)
            self._empty()
        kept = None if changes else before.get("fingerprint")
        write_json(self.begun, {"identity": identity, "fingerprint": start.fingerprint or kept})

    def _before(self) -> dict:
        """What the present results were begun with; an empty identity when nobody can tell."""
        try:
            before = read_json(self.begun)
        except UserError:
            before = None
        return before if isinstance(before, dict) and isinstance(before.get("identity"), dict) else {"identity": None}

    def _changes(self, before: dict, identity: dict, fingerprint: str | None) -> list[str]:
        if not before:
            return []
        if before["identity"] is None:
            return [f"{self._results()[0].name} is there, but no {self.begun.name} that tells what it was made from"]
        changes = differences(before["identity"], identity)
        known = before.get("fingerprint")
        if known and fingerprint and known != fingerprint:
            changes.append(difference("fingerprint", known, fingerprint))
        return changes

    def _results(self) -> list[Path]:
        found = {path for pattern in self.owns for path in self.path.glob(pattern)} - {self.begun, self.lock_file}
        # Snakemake makes the folders of a job's outputs before the job begins.
        return sorted(path for path in found if not path.is_dir() or any(path.iterdir()))

    def _empty(self) -> None:
        self.begun.unlink(missing_ok=True)  # first: a kill in between leaves results that belong to nobody
        for path in self._results():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def differences(before: dict, after: dict) -> list[str]:
    """`key.of.a.key: old is not new` for every leaf in which two nested dicts differ."""
    old, new = dict(_leaves(json.loads(json.dumps(before)), "")), dict(_leaves(json.loads(json.dumps(after)), ""))
    changed = {
        name: (old.get(name, ABSENT), new.get(name, ABSENT))
        for name in sorted({*old, *new})
        if old.get(name, ABSENT) != new.get(name, ABSENT)
    }
    # A section that is there on one side only is told by its keys.
    told = [name for name, pair in changed.items() if _short(pair[0]) != _short(pair[1])]
    return [difference(name, *changed[name]) for name in told or changed]


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else key)
    else:
        yield name, value


def difference(name: str, before: Any, after: Any) -> str:
    """`name: before is not after`, hashes cut to what a person compares."""
    return f"{name}: {_short(before)} is not {_short(after)}"


def _short(value: Any) -> str:
    text = ABSENT if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else text[:12] + "…"
