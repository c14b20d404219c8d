"""This trainer against the loop that public trainers run, iteration by iteration in turn, so that both meet the same machine.

The plain loop is the same algorithm with every way of being fast switched off, as yifan123/flow_grpo and XueZeyue/DanceGRPO have it:
batches of one group's trained size, one denoising step per pass of the update, two calls for guidance, images decoded and scored one
at a time, prompts encoded in each iteration, states written while the training waits. (The public scripts themselves took 1.03 and
1.04 times its predecessor here with equal batches: what is not a model call hardly counts.)
"""

import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from progrpo.config import Run, Speed
from progrpo.cost.wall_clock import Repeats, TimedTrainer
from progrpo.grpo.backbone import Backbone
from progrpo.grpo.rollout import Clock
from progrpo.rewards.base import Scorer

PLAIN = Speed(batched_guidance=False, text_cache=None, background_save=False, compile=False)
PARTS = {"encode": "encode", "denoise": "denoiser", "decode": "decoder", "reward": "reward", "update": "update"}


class OneAtATime:
    """A scorer that is given one image at a time."""

    def __init__(self, scorer: Scorer):
        self.scorer, self.name = scorer, scorer.name

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Rewards (B,) of images (B, 3, H, W), a call each."""
        return torch.cat([self.scorer.score(images[k : k + 1], prompts[k : k + 1]) for k in range(len(images))])


def plain_run(run: Run) -> Run:
    """The run without any way of being fast: a group's trained size per pass, at one step."""
    return run.model_copy(update={"micro_batch": run.group.survivors, "sampling_batch": None, "speed": PLAIN})


def plain_trainer(
    run: Run, backbone: Backbone, reward: Scorer, prompts: list[str], out: Path, seed: int = 0
) -> TimedTrainer:
    """The plain loop of a run; it changes the backbone's `decode`."""
    decode = backbone.decode

    def one_by_one(latents: Tensor) -> Tensor:
        return torch.cat([decode(latents[k : k + 1]) for k in range(len(latents))])

    backbone.decode = one_by_one  # type: ignore[method-assign]
    return TimedTrainer(plain_run(run), seed, backbone, OneAtATime(reward), prompts, out)


def compare(
    run: Run, parts: Callable[[], tuple[Backbone, Scorer, list[str]]], repeats: Repeats, on_gpu: bool
) -> dict[str, Any]:
    """{"plain", "fast": medians and spread of an iteration's seconds by part, "ratio"}, the two taking turns.

    `parts` loads a model, a reward and prompts anew for each. On a CPU seconds are those of the process.
    """
    run = run.model_copy(update={"iterations": repeats.warmup + repeats.measured})
    before = Clock.now
    Clock.now = staticmethod(time.perf_counter if on_gpu else time.process_time)
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):  # the trainers' own lines
            plain = plain_trainer(run, *parts(), Path(folder, "plain"))
            fast = TimedTrainer(run, 0, *parts(), Path(folder, "fast"))
            trainers = {"plain": plain, "fast": fast}
            for _ in range(run.iterations):
                for trainer in trainers.values():
                    trainer._train_iteration()
    finally:
        Clock.now = staticmethod(before)
    timings = {name: [json.loads(line) for line in trainer.timings] for name, trainer in trainers.items()}
    result = {name: _summary(lines[repeats.warmup :]) for name, lines in timings.items()}
    ratios = [_total(a) / _total(b) for a, b in zip(timings["fast"], timings["plain"], strict=True)][repeats.warmup :]
    return {
        **result,
        "ratio": _median_and_spread(ratios),
        "batch": {name: trainer.micro_batch for name, trainer in trainers.items()},
        "reward": {name: json.loads(trainer.metrics[0])["reward_mean"] for name, trainer in trainers.items()},
        "clock": "wall" if on_gpu else "CPU time of the process",
    }


def _total(line: dict[str, float]) -> float:
    return line["rollout"] + line["update"]


def _summary(lines: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    parts = {name: [line[key] for line in lines] for name, key in PARTS.items()}
    return {name: _median_and_spread(values) for name, values in {**parts, "total": [*map(_total, lines)]}.items()}


def _median_and_spread(values: list[float]) -> dict[str, float]:
    """The median, and the least and the greatest value."""
    return {"median": statistics.median(values), "least": min(values), "greatest": max(values)}
