"""Atomic files, JSON lines with line numbers, hashes: everything that touches the disk in a way that must not fail halfway."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from progrpo.errors import UserError

CANNOT_WRITE = "cannot be written ({}); make room or choose another folder, then the same command goes on"


def write_atomic(path: Path | str, write: Callable[[BinaryIO], object]) -> None:
    """Create or replace `path` by what `write` puts into a binary file: a temporary file, fsync, rename.

    A process killed at any moment leaves either the old file or the whole new one. UserError when the disk is full or the folder
    cannot be written; the old file is then untouched.
    """
    try:
        _write_atomic(Path(path), write)
    except OSError as error:
        raise UserError(f"{path}: {CANNOT_WRITE.format(error.strerror or error)}") from error


def _write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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


def read_json(path: Path | str) -> Any:
    """Parsed JSON; UserError names the file when it is missing or half-written."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); delete it and run the step again") from None


def read_jsonl(path: Path | str) -> Iterator[tuple[int, dict]]:
    """(line number from 1, object) for each line; UserError names file and line of the first that is not a JSON object."""
    try:
        lines = Path(path).read_text().splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error})") from None
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}:{number}: not a JSON object ({error.msg}); the line is truncated or corrupt"
            ) from None
        if not isinstance(record, dict):
            raise UserError(f"{path}:{number}: expected a JSON object, found {type(record).__name__}")
        yield number, record


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
