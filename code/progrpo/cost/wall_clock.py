"""Wall clock per training iteration (Table 13), measured on the trainer's own rollout and update.

The trainer's clock synchronises the device at both ends of every part. Iterations before `warmup` (compilation, caches,
allocator) are dropped; what is reported are medians over the rest.

Names: `sampling` is the denoiser's part of the rollout and `update` the whole update; `denoiser` is their sum, the
latent-space time. Table 13's U-Net column must be that sum: between its two methods sampling alone would grow 2.35
times (1880 against 800 calls), while the column falls by 14 %.
"""

import gc
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from progrpo.config import Run
from progrpo.cost.utilisation import PeakMemory, matmul_peak, model_flops
from progrpo.grpo.backbone import Backbone
from progrpo.grpo.trainer import Trainer
from progrpo.provenance import timing_hash
from progrpo.rewards.base import Scorer

PARTS = ("denoiser", "decoder", "reward", "rollout", "update")


@dataclass(frozen=True)
class Repeats:
    """How many iterations are dropped and how many are measured."""

    warmup: int = 1
    measured: int = 3


class TimedTrainer(Trainer):
    """A trainer that saves nothing: a resume state of a large model would take longer to write than an iteration."""

    def _save(self) -> None:
        self.saved_iteration = self.iteration

    def _keep_start(self) -> None:
        """Nothing: no signal is to be survived, and a copy of a large state would count as the update's time."""


def timed_run(run: Run, prompts: int, micro_batch: int, sampling_batch: int | None = None) -> Run:
    """A run of tier paper, whose configuration is Tables 7 and 8, as it is timed: so many prompts per iteration, one update.

    Activations are not recomputed, so that the update is the paper's four passes, three on SD-v1.4, which has no
    reference. The wide clip range only widens the trainer's tolerance for the first likelihood ratio: a policy of
    random weights has no training to protect. It changes no operation. ValidationError for batches that do not divide.
    """
    changes = {
        "prompts": "random",
        "reward": {"random_clip": 1.0},
        "objective": run.objective.model_dump() | {"clip_range": 0.2},
        "optimizer": run.optimizer.model_dump() | {"learning_rate": 1e-6},
        "prompts_per_iteration": prompts,
        "updates_per_iteration": 1,
        "micro_batch": micro_batch,
        "sampling_batch": sampling_batch,
        "speed": run.speed.model_dump() | {"text_cache": None},  # random texts of one model are no texts of another
        "iterations": 1,
        "gradient_checkpointing": False,
        "hardware": {},  # one process, however many share the prompts of the run
    }
    return Run.model_validate(run.model_dump() | changes)


def time_run(run: Run, backbone: Backbone, reward: Scorer, prompts: list[str], repeats: Repeats) -> dict:
    """Train `run` for warm-up and measured iterations in a temporary folder and summarise its seconds and calls.

    `utilisation` is the share of the machine's matmul peak that the denoiser's calls reach; `peak_memory_bytes` the allocator's peak
    on a GPU, the process's on a CPU.
    """
    run = run.model_copy(update={"iterations": repeats.warmup + repeats.measured})
    on_gpu = backbone.device.type == "cuda"
    gc.collect()  # what the run before left in reference cycles
    if on_gpu:
        torch.cuda.empty_cache()
    memory = PeakMemory(backbone.device)
    memory.reset()
    with tempfile.TemporaryDirectory() as folder:
        trainer = TimedTrainer(run, 0, backbone, reward, prompts, Path(folder))
        trainer.train()
    timings, metrics = ([json.loads(line) for line in lines] for lines in (trainer.timings, trainer.metrics))
    seconds = summarise(timings[repeats.warmup :], run.prompts_per_iteration)
    calls = {key: metrics[-1][f"{key}_calls"] for key in ("denoiser", "decoder", "reward")}
    peak_memory = memory.read()
    peak, flop = matmul_peak(backbone.device, backbone.dtype), model_flops(trainer)
    return {
        **seconds,
        "settings": timing_hash(run, backbone.model),
        "calls": calls,
        "trained_passes": run.trained_pairs,
        "matmul_peak": peak,
        "utilisation": {
            "sampling": calls["denoiser"] * flop["denoise"] / seconds["sampling"] / peak,
            "update": run.trained_pairs * flop["update"] / seconds["update"] / peak,
        },
        "first_ratio_error": max(line["first_ratio_error"] for line in metrics),
        "peak_memory_bytes": peak_memory,
        "prompts": run.prompts_per_iteration,
        "micro_batch": run.micro_batch,
    }


def summarise(timings: list[dict[str, float]], prompts: int) -> dict:
    """Median seconds per iteration of each part, its relative spread (max - min over median), and the total per prompt.

    `timings`: the lines of `timings.jsonl`, seconds of `denoiser` (sampling only), `decoder`, `reward`, `rollout`,
    `update`. ValueError without any.
    """
    if not timings:
        raise ValueError("no iteration was measured; use at least one repeat beyond the warm-up")
    seconds = {part: np.array([line[part] for line in timings]) for part in PARTS}
    parts = {
        "sampling": seconds["denoiser"],
        "update": seconds["update"],
        "denoiser": seconds["denoiser"] + seconds["update"],
        "decoder": seconds["decoder"],
        "reward": seconds["reward"],
        "rollout": seconds["rollout"],
        "total": seconds["rollout"] + seconds["update"],
    }
    medians = {name: float(np.median(values)) for name, values in parts.items()}
    spread = {name: float(np.ptp(values) / max(np.median(values), 1e-12)) for name, values in parts.items()}
    return {**medians, "total_per_prompt": medians["total"] / prompts, "spread": spread, "iterations": len(timings)}
