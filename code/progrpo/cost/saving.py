"""What saving takes of an iteration's time: measured with the run's own state, computed for a full fine-tuning of official size."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from progrpo.config import Run
from progrpo.cost.budget import FLOAT, NETWORKS, iteration_tflop
from progrpo.cost.comparison import Load
from progrpo.grpo.trainer import Trainer

COPIED_BYTES = 2**28


def measure_saving(run: Run, load: Load, saves: int = 5) -> dict[str, float]:
    """CPU seconds that a save takes of the training's thread: `behind` it, with `speed.background_save`, and `waiting` for it.

    `iteration`: those of the iteration before, which made the optimizer's state. What the disk takes is not counted: only a training
    that waits feels it.
    """
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(run.model_copy(update={"iterations": 1}), 0, *load(run), Path(folder))
        start = time.thread_time()
        trainer._train_iteration()
        seconds = {"iteration": time.thread_time() - start}
        for name, behind in (("behind", True), ("waiting", False)):
            speed = run.speed.model_copy(update={"background_save": behind})
            trainer.run = run.model_copy(update={"speed": speed})
            taken = []
            for _ in range(saves):
                start = time.thread_time()
                trainer._save()
                taken.append(time.thread_time() - start)
                trainer.store.finish()
            seconds[name] = statistics.median(taken)
    return {**seconds, "share_behind": seconds["behind"] / seconds["iteration"]}


def official_saving(run: Run, gpu_tflops: float, utilisation: float) -> dict[str, Any]:
    """The same at official size, computed: weights and two moments in float32, copied at the speed of this machine's memory.

    As `StateStore.copied` does, into memory that held the copy before.

    An iteration's seconds are the run's operations at a share `utilisation` of `gpu_tflops` TFLOP/s on its GPUs.
    """
    network = NETWORKS["diffusion"]
    state = 3 * FLOAT * network.denoiser
    source, room = torch.ones(COPIED_BYTES // FLOAT), torch.zeros(COPIED_BYTES // FLOAT)
    taken = []
    for _ in range(3):
        start = time.thread_time()
        room.copy_(source)
        taken.append(time.thread_time() - start)
    copying = state * min(taken) / COPIED_BYTES
    iteration = iteration_tflop(run, network)["total"] / run.hardware.ranks / (gpu_tflops * utilisation)
    return {"state_bytes": state, "behind": copying, "iteration": iteration, "share_behind": copying / iteration}
