"""Exact resume: states that a kill at any moment cannot spoil, and a stop that waits for a good moment."""

import contextlib
import hashlib
import os
import pickle
import re
import signal
import sys
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.utils._pytree import KeyPath, tree_map_with_path

from progrpo.errors import UserError
from progrpo.files import sha256, write_atomic
from progrpo.grpo.sharding import whole

STATE_NAME = re.compile(r"(\d{6,})-([0-9a-f]{16})\.pt")
INCOMING = "incoming"
PLAIN = (bool, int, float, str, bytes, type(None))


class _HashingWriter:
    """A file for `torch.save` that hashes what passes: a state of many GB needs no second copy in memory."""

    def __init__(self, file: BinaryIO):
        self.file, self.hash = file, hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, data) -> int:
        self.hash.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.failure = error  # torch.save goes on to its trailer and reports only that its positions differ
            raise

    def flush(self) -> None:
        self.file.flush()


class StateStore:
    """Resume states in `folder`, files `<step>-<first 16 digits of SHA-256>.pt`; the newest `keep` stay.

    One process writes. A state appears under its name only when it is whole and on the disk, and its name
    tells whether its bytes are still those that were written. ValueError when keep < 1.
    """

    def __init__(self, folder: Path | str, keep: int = 2):
        if keep < 1:
            raise ValueError(f"a state store must keep at least one state, not {keep}")
        self.folder, self.keep = Path(folder), keep
        self._spoilt: set[Path] = set()
        self._writer = ThreadPoolExecutor(max_workers=1)
        self._behind: Future | None = None
        self._room: dict[KeyPath, Tensor] = {}

    def save(self, step: int, state: dict) -> Path:
        """Write the state reached after `step` iterations and return its file; older ones beyond `keep` go.

        `state` holds tensors, numbers, strings, bytes and None in dicts, lists and tuples: TypeError names
        anything else, because it could not be read back. States of this or a later step belong to a history
        that was given up, and go too, as do corrupt ones that were met. UserError when the folder cannot be
        written; the states before are then untouched.
        """
        _check_plain(state, "state")
        for leftover in self.folder.glob(f"*{INCOMING}*"):
            leftover.unlink()
        target = self._write(step, state)
        states = self._states()
        past = [path for path in states if _step(path) < step and path not in self._spoilt]
        for path in set(states) - {target, *past[: self.keep - 1]}:
            path.unlink(missing_ok=True)
        return target

    def save_behind(self, step: int, state: dict) -> None:
        """`save` while the caller goes on and leaves `state` alone; the next one and `finish` wait for it and raise its error."""
        self.finish()
        self._behind = self._writer.submit(self.save, step, state)

    def copied(self, state: dict) -> dict:
        """The state with its own containers and, on the CPU, its own tensors: in the memory of the copy before, which it replaces.

        It waits for `save_behind`, as that may be writing the copy before; fresh memory would cost several times the copying. Sharded
        tensors are gathered one after the other; the other ranks help with `sharding.gathered`.
        """
        self.finish()

        def copy(path: KeyPath, leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            room = self._room.get(path)
            if room is None or (room.shape, room.dtype) != (leaf.shape, leaf.dtype):
                room = self._room[path] = torch.empty(leaf.shape, dtype=leaf.dtype, pin_memory=leaf.is_cuda)
            return room.copy_(whole(leaf.detach()))

        return tree_map_with_path(copy, state)

    def finish(self) -> None:
        """Wait until what `save_behind` began is on the disk."""
        if self._behind:
            behind, self._behind = self._behind, None
            behind.result()

    def _write(self, step: int, state: dict) -> Path:
        digest = ""

        def write(file: BinaryIO) -> None:
            nonlocal digest
            writer = _HashingWriter(file)
            try:
                torch.save(state, writer)  # type: ignore[arg-type]  # it asks for write and flush alone
            except RuntimeError as error:
                raise writer.failure or error from None
            digest = writer.hash.hexdigest()

        incoming = self.folder / INCOMING
        write_atomic(incoming, write)
        target = self.folder / f"{step:06d}-{digest[:16]}.pt"
        os.replace(incoming, target)
        directory = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(directory)  # else a power cut can undo the renaming after the states before were removed
        finally:
            os.close(directory)
        return target

    def load_latest(self) -> tuple[int, dict] | None:
        """(step, state) of the newest intact state, in the host's memory, or None when there is none.

        A state whose bytes are not those that were written (truncated, corrupt) is passed over with one line
        on standard error, in favour of the one before. UserError when an intact state cannot be read, which
        another version of torch can cause: to go on without it would silently train from the start.
        """
        states = self._states()
        for path in states:
            if not sha256(path).startswith(_parts(path)[2]):
                self._spoilt.add(path)
                print(f"{path}: the resume state is truncated or corrupt; trying the one before", file=sys.stderr)
                continue
            try:
                return _step(path), torch.load(path, map_location="cpu", weights_only=True)
            except (RuntimeError, pickle.UnpicklingError) as error:
                reason = f"{error}".partition("\n")[0]
                raise UserError(
                    f"{path}: intact, but torch {torch.__version__} cannot read it ({reason}); "
                    "use the version that wrote it, or delete the file to go on from the state before"
                ) from error
        if states:
            print(f"{self.folder}: none of {len(states)} resume states is intact; starting anew", file=sys.stderr)
        return None

    def _states(self) -> list[Path]:
        """Files named as states, newest step first, later written first among equals."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if STATE_NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: (_step(path), path.stat().st_mtime_ns), reverse=True)


def _parts(path: Path) -> re.Match[str]:
    """What the name of a state says: its step and the beginning of its hash."""
    if match := STATE_NAME.fullmatch(path.name):
        return match
    raise ValueError(f"{path} is not named as a state")


def _step(path: Path) -> int:
    return int(_parts(path)[1])


def _check_plain(value: Any, where: str) -> None:
    """TypeError for what `torch.load(weights_only=True)` would refuse, numpy.float64, a float, included."""
    if isinstance(value, torch.Tensor) or type(value) in PLAIN:
        return
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            _check_plain(key, f"a key of {where}")
            _check_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    else:
        raise TypeError(f"{where} is a {type(value).__name__}, which a resume state cannot hold; convert it first")


class GracefulStop(contextlib.AbstractContextManager):
    """While entered, SIGTERM and SIGINT only set `requested`.

    The training loop looks at it and saves at the next good moment. In another thread than the main one, which alone may ask for
    signals, nothing changes. Leaving restores the handlers before.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "GracefulStop":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._request)
        return self

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def __exit__(self, *error: object) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)
