"""TensorBoard and Weights & Biases beside metrics.jsonl: the same numbers of each iteration, to be watched while it trains."""

import importlib.util
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker

from progrpo.config import Run
from progrpo.errors import UserError
from progrpo.execution import TrackerName
from progrpo.files import CANNOT_WRITE
from progrpo.names import seed_folder

PROJECT = "progrpo"


class Tracking:
    """accelerate's trackers of one training, begun with the first iteration that it logs.

    A training that was interrupted goes on in the same curves: TensorBoard drops the iterations that come again, and Weights & Biases
    knows the run by its name. UserError for a tracker that is not installed or refuses to begin.
    """

    def __init__(self, names: Sequence[TrackerName], run_name: str, run: Run, seed: int, out: Path):
        if missing := [name for name in names if importlib.util.find_spec(name) is None]:
            raise UserError(f"tracking: pip install {' '.join(missing)}, or leave out what is not installed")
        self.names, self.label, self.run, self.out = names, seed_folder(run_name, seed), run, out
        self.trackers: dict[TrackerName, GeneralTracker] | None = None

    def log(self, line: dict[str, Any], seconds: dict[str, float]) -> None:
        """Log an iteration: its line of metrics.jsonl, and its seconds by part, which are in timings.jsonl; on the first rank.

        A tracker that cannot write is told of and left: what it would show is in those files.
        """
        step = line["iteration"]
        if self.trackers is None:
            self.trackers = {}
            for name in self.names:
                self._written(name, self._begin, name, step)
        values = {name: value for name, value in line.items() if value is not None and name != "iteration"}
        values |= {f"seconds/{part}": value for part, value in seconds.items()}
        for name, tracker in [*self.trackers.items()]:
            if not self._written(name, tracker.log, values, step=step):
                del self.trackers[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        """Let the trackers write what is still on its way."""
        for name, tracker in (self.trackers or {}).items():
            self._written(name, tracker.finish)

    def _written(self, name: TrackerName, write: Callable, *arguments: Any, **options: Any) -> bool:
        """Whether a tracker could write; says so where not."""
        try:
            write(*arguments, **options)
        except OSError as error:
            print(f"{name}: {CANNOT_WRITE.format(error)}; not logged from here on", flush=True)
            return False
        return True

    def _begin(self, name: TrackerName, step: int) -> None:
        assert self.trackers is not None
        self.trackers[name] = BEGIN[name](self, step)

    def _tensorboard(self, step: int) -> GeneralTracker:
        threading.excepthook = _but_of_writers(threading.excepthook)
        tracker = TensorBoardTracker("tensorboard", self.out, purge_step=step)
        tracker.start()
        return tracker

    def _wandb(self, step: int) -> GeneralTracker:
        import wandb

        tracker = WandBTracker(PROJECT, name=self.label, id=self.label, resume="allow", dir=str(self.out))
        try:
            tracker.start()
            tracker.store_init_configuration(self.run.model_dump(mode="json"))
        except wandb.Error as error:
            raise UserError(
                f"tracking: wandb: {' '.join(str(error).split())}; log in first, or set WANDB_MODE=offline"
            ) from error
        return tracker


BEGIN: dict[TrackerName, Callable[[Tracking, int], GeneralTracker]] = {
    "tensorboard": Tracking._tensorboard,
    "wandb": Tracking._wandb,
}


def _but_of_writers(hook: Callable) -> Callable:
    """`hook` for all threads but TensorBoard's, which raises again in the next `log` what stops it."""

    def told(arguments: threading.ExceptHookArgs) -> None:
        if type(arguments.thread).__module__.split(".")[0] != "tensorboard":
            hook(arguments)

    return told
