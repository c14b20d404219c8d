"""Pruned sampling with your pipeline and your reward: python examples/sample_pruned.py MODEL [PROMPT]"""

import sys

from diffusers import DiffusionPipeline

from progrpo import Group, Pruning, Sampling, sample_pruned


def redness(images, prompts):
    """Rewards (B,) of images (B, 3, H, W) in [0, 1]."""
    return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


pipeline = DiffusionPipeline.from_pretrained(sys.argv[1])  # SD 1.x or 3.x: hub name or folder (results/miniature/sd35m)
group = Group(size=8, pruning=(Pruning(step=3, keep=6), Pruning(step=5, keep=4)))
sampling = Sampling(steps=6, guidance_scale=2.0, noise=0.7)
found = sample_pruned(pipeline, sys.argv[2:] or ["a red circle"], redness, group, sampling)
print(*(f"step {s.step}: kept {s.kept.tolist()} of rewards {s.rewards.tolist()}" for s in found.stages), sep="\n")
print("images", tuple(found.images.shape), "with rewards", found.rewards.tolist())
