"""Atomic files, JSON lines with line numbers, hashes: everything that touches the disk in a way that must not fail halfway."""

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from progrpo.errors import UserError

if TYPE_CHECKING:
    import numpy as np

TEMPORARY = ".tmp-"  # beginning of a temporary file's name, short whatever the file's own name is
JUST_MADE = 2  # seconds within which another process may have made a temporary file and not locked it yet
UNFIT_NAME = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EILSEQ)
CANNOT_WRITE = "cannot be written ({}); make room or choose another folder, then the same command goes on"


def write_atomic(path: Path | str, write: Callable[[BinaryIO], object]) -> None:
    """Create or replace `path` by what `write` puts into a binary file: a temporary file, fsync, rename.

    A process killed at any moment leaves either the old file or the whole new one. UserError when the disk is full or the folder
    cannot be written; the old file is then untouched.
    """
    try:
        _write_atomic(Path(path), write)
    except OSError as error:
        if error.errno in UNFIT_NAME:
            raise UserError(f"{path}: cannot be written ({error.strerror}); name another file") from error
        raise UserError(f"{path}: {CANNOT_WRITE.format(error.strerror or error)}") from error
    except ValueError as error:
        if "\0" in str(path):
            raise UserError(f"{path}: cannot be written ({error}); name another file") from error
        raise


def _write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_litter(path.parent.resolve())
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            with contextlib.suppress(OSError):  # a file system without locks keeps the litter of killed writes
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@cache
def _remove_litter(folder: Path) -> None:
    """Remove, once per process, the temporary files of killed writes; those of living ones are locked."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError), open(leftover, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - os.fstat(file.fileno()).st_mtime > JUST_MADE:
                leftover.unlink()


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomic(path, lambda file: file.write(text.encode()))


def to_json(value: Any, what: str, **style: Any) -> str:
    """JSON text in the style of `json.dumps`' keywords; UserError names `what` when a number in it is NaN or infinite."""
    try:
        return json.dumps(value, allow_nan=False, **style)
    except ValueError:
        raise UserError(f"{what}: a number in it is NaN or infinite; nothing is written") from None


def write_json(path: Path | str, value: Any) -> None:
    """Write indented JSON with sorted keys atomically; UserError for NaN and infinity."""
    write_text(path, to_json(value, str(path), indent=1, sort_keys=True) + "\n")


def write_jsonl(path: Path | str, records: list[dict]) -> None:
    """Write one JSON object per line atomically; UserError for NaN and infinity."""
    write_text(path, "".join(to_json(record, f"{path}:{k}") + "\n" for k, record in enumerate(records, 1)))


SETTINGS, SUMMARY = (
    ".settings.json",
    ".summary.json",
)  # beside detections: how they were made; beside verdicts: their scores


def beside(path: Path, ending: str) -> Path:
    """The file with another ending beside a .jsonl or .json: `d.jsonl` -> `d.settings.json`, but `d_0.1` -> `d_0.1.settings.json`."""
    return path.with_name(path.name.removesuffix(".jsonl").removesuffix(".json") + ending)


def require_folder(path: Path | str) -> None:
    """UserError where a file stands in the place of a folder that is to be written; libraries say nothing and write nothing."""
    if Path(path).is_file():
        raise UserError(f"{path}: is a file, where a folder is to be written; name another place")


def read_text(path: Path | str) -> str:
    """A text file's content: UTF-8 with or without a byte-order mark, every line ending as one newline.

    UserError: not readable, another encoding (named where it can be told), or a NUL, with its line.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    for name, marks in (("UTF-32", (b"\xff\xfe\0\0", b"\0\0\xfe\xff")), ("UTF-16", (b"\xff\xfe", b"\xfe\xff"))):
        if data.startswith(marks):
            raise UserError(f"{path}: not UTF-8 text but {name}; convert it (iconv -f {name.lower()} -t utf-8)")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}:{line}: not UTF-8 text (byte 0x{data[error.start]:02x}); latin-1 or windows-1252 text must be converted"
            " (iconv -f latin1 -t utf-8)"
        ) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        raise UserError(f"{path}:{text[: text.index(chr(0))].count(chr(10)) + 1}: holds a NUL byte; not a text file?")
    return text


def parse_json(text: str) -> Any:
    """JSON as the standard has it; ValueError, in one line, for anything else.

    NaN and infinity (also a number beyond a double), lone surrogates (they cannot be written again), a key that stands
    twice (one of the two would be dropped) and nesting beyond Python's recursion are refused.
    """
    try:
        value = json.loads(text, parse_constant=_not_finite, parse_float=_finite, object_pairs_hook=_unique)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a string holds a lone surrogate, half of a character") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)[:60]!r} stands twice")
    return value


def _not_finite(number: str) -> float:
    raise ValueError(f"{number} is not a finite number")


def _finite(number: str) -> float:
    value = float(number)
    return value if math.isfinite(value) else _not_finite(number[:40])


def read_json(path: Path | str) -> Any:
    """Parsed JSON; UserError names the file, and where it can the line, when it is missing, half-written or not JSON."""
    text = read_text(path)
    if not text.strip():
        raise UserError(f"{path}: empty, expected JSON")
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON ({error.msg}, column {error.colno})") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None


def read_jsonl(path: Path | str) -> Iterator[tuple[int, dict]]:
    """(line number from 1, object) for each line that is not blank; UserError names the first that is not a JSON object.

    Lines end at a newline only: U+2028, U+0085 and their like may stand in a JSON string.
    """
    for number, line in enumerate(read_text(path).split("\n"), 1):
        line = line.removeprefix("\ufeff")  # of a file that another was appended to
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except ValueError as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise UserError(f"{path}:{number}: not a JSON object ({reason})") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}:{number}: expected a JSON object, found {type(record).__name__}")
        yield number, record


def read_object(path: Path | str) -> dict:
    """The JSON object of a file; UserError names a file that is no JSON or holds something else."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_arrays(path: Path | str, names: tuple[str, ...]) -> dict[str, "np.ndarray"]:
    """Those of some arrays that an .npz file holds; UserError for a file that is none, is damaged or would run code."""
    import numpy as np  # here: most commands that read files need no arrays

    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in names if name in stored}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # zip, zlib and numpy's own headers each raise their own kinds
        raise UserError(f"{path}: not an .npz file of plain arrays ({' '.join(str(error).split())[:120]})") from None


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
