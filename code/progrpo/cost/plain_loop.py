"""The loop that public trainers run, written here to compare with: the same algorithm with every way of being fast switched off.

Batches of one group's trained size, one denoising step per pass of the update, two calls for guidance, adapters beside the weights,
images decoded and scored one at a time, prompts encoded in each iteration, states written while the training waits, no compilation.

The public scripts are no faster: yifan123/flow_grpo trains batches of 9 and sends the branch of guidance that it detaches through the
backward pass too; XueZeyue/DanceGRPO trains batches of 4 and writes each image as JPEG. (With equal batches they took 1.03 and 1.04
times a predecessor of this trainer: what is not a model call hardly counts.) In one point they can be faster: both decode a batch of
images in one call, and Flow-GRPO scores one so. Ratios are therefore given with images in batches in both loops too.
"""

from pathlib import Path

import torch
from torch import Tensor

from progrpo.config import Run, Speed
from progrpo.cost.wall_clock import TimedTrainer
from progrpo.grpo.backbone import Backbone
from progrpo.rewards.base import Scorer

PLAIN = Speed(batched_guidance=False, text_cache=None, merged_adapters=False, background_save=False, compile=False)


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


def plain_trainer(run: Run, backbone: Backbone, reward: Scorer, prompts: list[str], out: Path) -> TimedTrainer:
    """The plain loop of a run; it changes the backbone's `decode`."""
    decode = backbone.decode

    def one_by_one(latents: Tensor) -> Tensor:
        return torch.cat([decode(latents[k : k + 1]) for k in range(len(latents))])

    backbone.decode = one_by_one  # type: ignore[method-assign]
    return TimedTrainer(plain_run(run), 0, backbone, OneAtATime(reward), prompts, out)
