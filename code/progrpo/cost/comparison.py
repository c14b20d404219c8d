"""This trainer against the plain loop and against itself without each way of being fast, iteration by iteration in turn.

All trainings take turns in one process, so that all meet the same machine; on a CPU seconds are those of the process's own time.
Ratios are those of two iterations of one round, and what is told of them are the median over the rounds, the least and the greatest.
"""

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from progrpo.config import Run
from progrpo.cost.plain_loop import plain_trainer
from progrpo.cost.utilisation import PeakMemory, matmul_peak, model_flops
from progrpo.cost.wall_clock import Repeats, TimedTrainer
from progrpo.grpo.backbone import Backbone
from progrpo.grpo.rollout import Clock
from progrpo.rewards.base import Scorer

PARTS = {"encode": "encode", "denoise": "denoiser", "decode": "decoder", "reward": "reward", "update": "update"}
PLAIN, FAST = "plain", "fast"
GUIDANCE = 4.5
GUIDED = f" at guidance {GUIDANCE}"

Load = Callable[[Run], tuple[Backbone, Scorer, list[str]]]


@dataclass(frozen=True)
class Arm:
    """One training that takes its turn: a run's name, the way it goes (PLAIN, FAST, or FAST with one switch turned), its settings."""

    name: str
    way: str
    run: Run


def arms_of(runs: dict[str, Run], plain: bool, compiled: bool) -> list[Arm]:
    """Every run as configured; a baseline also as the plain loop, and with each switch turned; that with adapters also under guidance.

    plain: every run as the plain loop. compiled: baselines with `speed.compile` too.
    """
    arms = []
    for name, run in runs.items():
        cases = {name: run}
        if run.lora and not run.group.pruning and run.sampling.guidance_scale == 1:
            cases[name + GUIDED] = _with(run, "sampling", guidance_scale=GUIDANCE)
        for case, settings in cases.items():
            if plain or not run.group.pruning:
                arms.append(Arm(case, PLAIN, settings))
            arms.append(Arm(case, FAST, settings))
            if case == name and not run.group.pruning:
                arms += [Arm(name, way, changed) for way, changed in turned(run, compiled)]
    return arms


def turned(run: Run, compiled: bool) -> Iterator[tuple[str, Run]]:
    """(which, run) with each switch that bears on the run turned: off where it is on."""
    if run.micro_batch == "auto":
        yield "without micro_batch: auto", run.model_copy(update={"micro_batch": run.group.survivors})
    if run.speed.merged_adapters:
        yield "without merged_adapters", _with(run, "speed", merged_adapters=False)
    if run.speed.decode_batch:
        yield "without decode_batch", _with(run, "speed", decode_batch=None)
    if run.speed.batched_guidance:
        yield "without batched_guidance", _with(run, "speed", batched_guidance=False)
    if not run.speed.text_cache:
        yield "with text_cache", _with(run, "speed", text_cache="texts")
    if compiled and not run.speed.compile:
        yield "with compile", _with(run, "speed", compile=True)


def _with(run: Run, section: str, **changes: Any) -> Run:
    return run.model_copy(update={section: getattr(run, section).model_copy(update=changes)})


@contextlib.contextmanager
def timing(device: torch.device) -> Iterator[None]:
    """While entered, parts are timed by the process's own time on one core; on a GPU nothing changes."""
    before, threads = Clock.now, torch.get_num_threads()
    if device.type == "cpu":
        Clock.now = staticmethod(time.process_time)
        torch.set_num_threads(1)  # threads that wait for others would count
    try:
        yield
    finally:
        Clock.now = staticmethod(before)
        torch.set_num_threads(threads)


def compare(arms: list[Arm], load: Load, repeats: Repeats, device: torch.device) -> dict[str, Any]:
    """The seconds of every round and part of each arm, its calls, FLOP, batch and peak memory; and the machine's matmul peak.

    `load` gives a model, a reward and prompts anew for each. The trainers' own lines go to standard error.
    """
    with (
        timing(device),
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(sys.stderr),
    ):
        trainers = [
            _trainer(arm, load, repeats.warmup + repeats.measured, Path(folder, str(k))) for k, arm in enumerate(arms)
        ]
        memory, peaks = PeakMemory(device), [0] * len(arms)
        rates = []
        for _ in range(repeats.warmup + repeats.measured):
            rates.append(matmul_peak(device, trainers[0].backbone.dtype))
            for k, trainer in enumerate(trainers):
                memory.reset()
                trainer._train_iteration()
                peaks[k] = max(peaks[k], memory.read())
        return {
            "clock": "wall" if device.type == "cuda" else "CPU time of the process, one thread",
            "matmul_peak": max(rates),
            "arms": [
                _measured(arm, trainer, repeats.warmup) | {"peak_memory_bytes": peak}
                for arm, trainer, peak in zip(arms, trainers, peaks, strict=True)
            ],
        }


def _trainer(arm: Arm, load: Load, iterations: int, out: Path) -> TimedTrainer:
    run = arm.run.model_copy(update={"iterations": iterations})
    if run.speed.text_cache:
        run = _with(run, "speed", text_cache=str(out / run.speed.text_cache))
    backbone, reward, prompts = load(run)
    if arm.way == PLAIN:
        return plain_trainer(run, backbone, reward, prompts, out)
    trainer = TimedTrainer(run, 0, backbone, reward, prompts, out)
    trainer._encode_once()
    return trainer


def _measured(arm: Arm, trainer: TimedTrainer, warmup: int) -> dict[str, Any]:
    lines = [json.loads(line) for line in trainer.timings[warmup:]]
    metrics, run = [json.loads(line) for line in trainer.metrics], trainer.run
    seconds = {name: [line.get(key, 0.0) for line in lines] for name, key in PARTS.items()}
    calls = {part: metrics[-1][f"{part}_calls"] for part in ("denoiser", "decoder", "reward")}
    return {
        "run": arm.name,
        "way": arm.way,
        "seconds": {**seconds, "total": [line["rollout"] + line["update"] for line in lines]},
        "calls": {**calls, "pairs": run.trained_pairs},
        "flop_per_row": model_flops(trainer),
        "micro_batch": trainer.micro_batch,
        "first_reward": metrics[0]["reward_mean"],
        "first_ratio_error": max(line["first_ratio_error"] for line in metrics),
    }
