"""The processes of one training: the first looks at the folder, all follow what it found, and what ends one of them is told once."""

import atexit
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from progrpo.errors import UserError
from progrpo.identity import Folder

PEER_ENDED = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
)  # how gloo says that another rank ended
LOST_RANK = "{}: another rank ended without a word, as one that is killed does; what is saved is whole, and the same command goes on"


class Ranks:
    """The processes of one training: the first alone locks and looks at the folder, and all follow what it found.

    `told` is a file that a rank makes before it says why the training ends, so that the others need not.
    """

    def __init__(self, device: torch.device, told: Path):
        self.told = told
        self.several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        self.state = PartialState(cpu=device.type == "cpu") if self.several else None

    @contextmanager
    def failing_once(self) -> Iterator[None]:
        """While entered, what fails on one of several ranks, or on all, is told by one of them, and none waits for another."""
        try:
            yield
        except UserError:
            if self.several:
                if not self._is_first_to_tell():
                    os._exit(2)
                atexit.register(os._exit, 2)  # once its line is told: see `leave`
            raise
        except RuntimeError as error:
            if not (self.several and any(sign in str(error) for sign in PEER_ENDED)):
                raise
            if self._is_first_to_tell():
                print(LOST_RANK.format(self.told.parent), file=sys.stderr, flush=True)
            os._exit(2)

    def _is_first_to_tell(self) -> bool:
        """Whether no rank has said yet why the training ends; the folder is common to all, on several nodes too."""
        try:
            self.told.touch(exist_ok=False)
        except FileExistsError:
            return False
        except OSError:  # a full disk; a line too many is better than none
            return True
        return True

    def first(self, decide: Callable[[], Any]) -> Any:
        """What `decide` returns on the first rank, on every rank; its UserError ends all, with one line."""
        if self.state is None:
            return decide()
        answer, error = None, None
        if self.state.is_main_process:
            try:
                answer = decide()
            except UserError as raised:
                error = raised
        told = [answer, error is not None]
        broadcast_object_list(told, from_process=0)
        if error:
            raise error
        if told[1]:
            os._exit(2)  # the first rank says why
        return told[0]

    def enter(self, folder: Folder, wait: bool) -> None:
        """Lock the folder on the first rank, for all; UserError names its holder, unless `wait`: then when that has ended.

        Ranks that wait speak to each other every minute, so that none runs into the process group's time limit.
        """
        holder = self.first(lambda: folder.lock(0))
        if holder and not wait:
            self.first(lambda: _refuse(holder))
        if holder and (self.state is None or self.state.is_main_process):
            print(f"{holder}; waiting for it", flush=True)
        while holder:
            holder = self.first(lambda: folder.lock(60))
        self.first(lambda: self.told.unlink(missing_ok=True))  # of an earlier start


def _refuse(holder: str) -> NoReturn:
    raise UserError(holder)


def leave(several: bool, status: int) -> int:
    """The status of a training alone; one of several ranks ends here, without freeing its process group.

    Freeing it can wait for ever: gloo's thread frees gathered tensors under the group's lock and needs the interpreter for it, which
    the main thread holds while it waits for that lock (torch 2.13).
    """
    if several:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status
