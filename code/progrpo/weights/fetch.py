"""Downloads: resumable, verified, never half-written under the final name, nothing without licence and size said
first."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NotRequired

import requests
from tqdm import tqdm
from typing_extensions import TypedDict

from progrpo.errors import UserError
from progrpo.files import CANNOT_WRITE, sha256, write_json
from progrpo.safe_names import path_inside
from progrpo.typed import read_checked
from progrpo.weights.manifest import CONFIRM_ABOVE, RECORD, Entry, Hash, human_size


class Fetched(TypedDict):
    """What is known of a downloaded file."""

    sha256: Hash


class Record(TypedDict):
    """What `RECORD` holds."""

    source: NotRequired[str]
    files: dict[str, Fetched]


class FirstDownload(TypedDict):
    """Hashes that no public source states, as the first download found them."""

    source: str
    files: dict[str, Hash]


CHUNK, TIMEOUT = 1 << 16, 60  # bytes that an interruption may lose; seconds without an answer


def fetch(
    name: str,
    entry: Entry,
    to: Path,
    from_folder: Path | None = None,
    confirmed: bool = False,
    ask: Callable[[str], str] = input,
    first: Path | None = None,
) -> list[Path]:
    """Bring the files of a manifest entry into the folder `to` and verify them; files that are there and right stay.

    from_folder: take them from this local folder instead of the network. confirmed: do not ask above 1 GB. first: file
    of the hashes that the first download found where no public source states any; written then, compared afterwards.
    UserError: not confirmed, unreachable, interrupted (run again to resume), a full disk, a wrong hash (nothing is kept
    under the final name).
    """
    print(
        f"{name}: {entry.use}\n  from    {entry.source}\n  licence {entry.licence}\n  size    {human_size(entry.size)}"
    )
    if from_folder is None and not entry.generated:
        _confirm(name, entry, to, confirmed, ask)
    _require_inside(entry, to)
    try:
        paths = _bring(name, _with_first(entry, first), to, from_folder)
    except OSError as error:
        raise UserError(f"{to}: {CANNOT_WRITE.format(error.strerror or error)}") from error
    _record(entry, to, paths)
    if first is not None and from_folder is None:
        _record_first(entry, to, first)
    return paths


def _require_inside(entry: Entry, to: Path) -> None:
    """UserError for a folder in `to` that is a link to another place; a part that is one is no part of ours and goes."""
    for file in entry.files:
        try:
            part = path_inside(to, f"{file}.part")
        except ValueError as error:
            raise UserError(f"{to}: {error}; nothing is written") from None
        if part.is_symlink():
            part.unlink()


def _with_first(entry: Entry, first: Path | None) -> Entry:
    """The entry with the hashes of the first download of the same revision where the manifest has none."""
    if first is None or not first.is_file():
        return entry
    found = read_checked(FirstDownload, first)
    if found["source"] != entry.source:
        return entry
    files = {file: known or found["files"].get(file) for file, known in entry.files.items()}
    return entry.model_copy(update={"files": files})


def _record_first(entry: Entry, to: Path, first: Path) -> None:
    unknown = [file for file, known in entry.files.items() if known is None]
    if unknown:
        first.parent.mkdir(parents=True, exist_ok=True)
        write_json(first, {"source": entry.source, "files": {file: sha256(to / file) for file in unknown}})


def _bring(name: str, entry: Entry, to: Path, from_folder: Path | None) -> list[Path]:
    if from_folder is not None:
        return _from_folder(name, entry, to, Path(from_folder))
    if entry.generated:
        return _generate(entry, to)
    return _from_hub(name, entry, to) if entry.hub else _from_url(name, entry, to)


def _confirm(name: str, entry: Entry, to: Path, confirmed: bool, ask: Callable[[str], str]) -> None:
    present = to.is_dir() and all((to / file).is_file() for file in entry.files)
    earlier = _earlier(to) if present else None
    outdated = earlier is not None and earlier.get("source") != entry.source  # its files come anew
    if confirmed or (present and not outdated) or entry.size <= CONFIRM_ABOVE:
        return
    try:
        answer = ask(f"download {human_size(entry.size)} into {to}? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise UserError(f"{name}: not downloaded; confirm or give --yes")


def _earlier(to: Path) -> Record | None:
    """What the last download into a folder recorded, or None."""
    return read_checked(Record, to / RECORD) if (to / RECORD).is_file() else None


def expected_hash(entry: Entry, to: Path, file: str) -> str | None:
    """What a file's sha256 must begin with: the manifest's hash, else that of the first download from the same source, as
    the folder's record has it, else None."""
    known = entry.files.get(file)
    if known:
        return known.removeprefix("begins ")
    earlier = _earlier(to)
    if earlier is None or earlier.get("source") != entry.source:  # another revision may hold another file
        return None
    found = earlier["files"].get(file)
    return found["sha256"] if found else None


def verify(entry: Entry, to: Path, file: str, path: Path) -> None:
    """UserError when the file at `path` does not have the hash that `file` must have; it is removed then."""
    wanted = expected_hash(entry, to, file)
    if wanted is None:
        return
    found = sha256(path)
    if not found.startswith(wanted):
        path.unlink()
        raise UserError(f"{file}: sha256 is {found}, expected {wanted}; refused and removed, try again or report it")


def _record(entry: Entry, to: Path, paths: list[Path]) -> None:
    """Write what is there, so that later downloads of files without a published hash must be the same."""
    files = {
        str(path.relative_to(to)): {"sha256": sha256(path), "bytes": path.stat().st_size} for path in sorted(paths)
    }
    write_json(to / RECORD, {"source": entry.source, "licence": entry.licence, "use": entry.use, "files": files})


def _present(entry: Entry, to: Path, file: str) -> bool:
    path = to / file
    wanted = expected_hash(entry, to, file)
    return path.is_file() and wanted is not None and sha256(path).startswith(wanted)


def _install(entry: Entry, to: Path, file: str, part: Path) -> Path:
    """Verify a finished part and give it its final name."""
    verify(entry, to, file, part)
    with open(part, "rb") as stream:
        os.fsync(stream.fileno())
    os.replace(part, to / file)
    return to / file


def _from_url(name: str, entry: Entry, to: Path) -> list[Path]:
    assert entry.url is not None, name
    paths = []
    for file in entry.files:
        path = to / file
        if not _present(entry, to, file):
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(path.name + ".part")
            download(entry.url.replace("{file}", file), part)
            _install(entry, to, file, part)
        paths.append(path)
    return paths


def download(url: str, part: Path) -> None:
    """Stream an address into a .part file, going on where an earlier attempt stopped.

    UserError: unreachable, refused by the server, or interrupted; what arrived stays in the .part file.
    """
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # a range counts bytes as they are sent, the part holds them unpacked
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if have and response.status_code == 416:  # nothing left to send: the part is whole, or not of this file
                total = response.headers.get("Content-Range", "").rpartition("/")[2]
                if total != str(have):
                    part.unlink()
                    download(url, part)
                return
            response.raise_for_status()
            resumed = response.status_code == 206
            _stream(response, part, have if resumed else 0)
    except requests.RequestException as error:
        kept = part.stat().st_size if part.exists() else 0
        raise UserError(
            f"{url}: {_reason(error)}; {human_size(kept)} kept, run the command again to go on, or use --from-folder"
        ) from None


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    return f"the download failed ({type(error).__name__})"


def _stream(response: requests.Response, part: Path, start: int) -> None:
    """Append (or write, from 0) a response's body to a file with a progress bar; an early end is a
    ConnectionError."""
    length = response.headers.get("Content-Length")
    total = start + int(length) if length is not None else None
    with (
        open(part, "ab" if start else "wb") as file,
        tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=None) as bar,
    ):
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    if total is not None and part.stat().st_size < total:
        raise requests.ConnectionError("the connection ended early")


def _from_hub(name: str, entry: Entry, to: Path) -> list[Path]:
    """Files of a hub repository at its pinned revision; the hub's client resumes and uses its cache when offline."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    assert entry.hub is not None, name
    try:
        snapshot_download(
            entry.hub,
            repo_type=entry.type,
            revision=entry.revision,
            allow_patterns=list(entry.files),
            local_dir=to,
        )
    except GatedRepoError:
        raise UserError(
            f"{name}: {entry.hub} is gated; accept its licence on the hub and run `hf auth login`"
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().split("\n")[0][:160]
        raise UserError(f"{name}: {entry.hub}: {reason}; run again to go on, or use --from-folder") from None
    return _verified(name, entry, to)


def _verified(name: str, entry: Entry, to: Path) -> list[Path]:
    """All files of an entry in its folder, each verified; UserError for one that is missing."""
    for file in entry.files:
        if not (to / file).is_file():
            raise UserError(f"{name}: {file} is not in {entry.source}; the manifest needs an update")
        verify(entry, to, file, to / file)
    return [to / file for file in entry.files]


def _from_folder(name: str, entry: Entry, to: Path, folder: Path) -> list[Path]:
    """Copy an entry's files from a local folder (or its sub-folder of the entry's name), verified before they get
    their names."""
    folder = folder / name if (folder / name).is_dir() else folder
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    paths = []
    for file in entry.files:
        if not (folder / file).is_file():
            raise UserError(f"{folder}: {file} is not there; {name} needs it")
        part = to / (file + ".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / file, part)
        paths.append(_install(entry, to, file, part))
    return paths


def _generate(entry: Entry, to: Path) -> list[Path]:
    """GenEval's prompts, written by this project and verified like a download."""
    from progrpo.benchmarks.geneval.prompts import write_prompts

    (file,) = entry.files
    write_prompts(to / file)
    verify(entry, to, file, to / file)
    return [to / file]
