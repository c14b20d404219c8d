"""Write docs/one_group.md and its pictures: one pruned group, sampled here and now: python docs/walkthrough.py

Needs results/miniature (`dvc pull results/miniature.dvc`); takes seconds on one CPU core.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from matplotlib.figure import Figure

from progrpo import Group, Pruning, Sampling, sample_pruned
from progrpo.cost.flops import Phases, sampling_calls
from progrpo.report.figures import BLUE, VERMILION
from progrpo.rewards.registry import load_scorer

ROOT = Path(__file__).parents[1]
MINIATURE = ROOT / "results" / "miniature"
PROMPT = "a red triangle and a checkered ring"
GROUP = Group(size=12, pruning=(Pruning(step=5, keep=8), Pruning(step=7, keep=4)))
SAMPLING = Sampling(steps=10, guidance_scale=1.0, noise=0.7)

PAGE = """# One pruned group, step by step

<!-- Written by docs/walkthrough.py; run it again instead of editing. -->

Everything on this page was computed by `python docs/walkthrough.py` with the miniature SD3.5-M and the miniature PickScore. The
images have 24 x 24 pixels. Prompt: *{prompt}*.

```python
{code}
```

## 1. Start {size} trajectories

A *trajectory* is the way of one image from pure noise, in {steps} denoising steps. The {size} trajectories of a prompt are its
*group*. They differ in their noise only.

## 2. Look early, after {first} steps

The images are not finished. The model's output at this step still says what it takes the clean image to be: the *one-step preview*.
Each preview is decoded and scored.

![previews after {first} steps]({folder}/group_1.png)

Kept (blue): the {kept_first} whose rewards have the largest variance. That is *Optimal Variance Filtering*: some of the best and some
of the worst, because what is learned comes from the difference between them. {ovf_first}

## 3. Look again, after {second} steps

![previews after {second} steps]({folder}/group_2.png)

{kept_second} of {kept_first} go on. {ovf_second}

## 4. Finish the survivors

![finished images]({folder}/group_3.png)

Only these {kept_second} are sampled to the end and trained on. Their *advantage* is the distance from the mean of these
{kept_second} rewards, in their standard deviations:

{advantages}

## What it cost

| | model calls for sampling | trained trajectories |
|---|---|---|
| this group | {calls} | {kept_second} |
| all {size} to the end | {all_calls} | {size} |

The equations behind each step, with the function that computes them: [The algorithm](algorithm.md).
"""
CODE = """group = Group(size=12, pruning=(Pruning(step=5, keep=8), Pruning(step=7, keep=4)))
sampling = Sampling(steps=10, guidance_scale=1.0, noise=0.7)
found = sample_pruned(pipeline, [prompt], reward, group, sampling)"""


def strip(images: torch.Tensor, rewards: np.ndarray, kept: list[int], path: Path, words: str = "goes on") -> None:
    """A row of images with their rewards; `words` stand below those that are kept."""
    figure = Figure(figsize=(8, 1.25), layout="constrained")
    for index, axis in enumerate(figure.subplots(1, GROUP.size)):
        axis.set(xticks=[], yticks=[])
        if index >= len(images):
            axis.set_axis_off()
            continue
        colour = BLUE if index in kept else VERMILION
        axis.imshow(images[index].permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
        axis.set_title(f"{rewards[index]:.2f}", fontsize=8, color=colour)
        axis.set_xlabel(words if index in kept else "ends", fontsize=7, color=colour)
        for spine in axis.spines.values():
            spine.set(color=colour, linewidth=2)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def spread(rewards: np.ndarray, kept: list[int]) -> str:
    """The sentence that compares the spread of rewards before and after a selection."""
    return f"Standard deviation of the rewards: {rewards.std():.3f} before, {rewards[kept].std():.3f} after."


def write(folder: Path = ROOT / "docs") -> None:
    """Sample the group and write the page and its pictures."""
    scorer = load_scorer("pickscore", MINIATURE / "scorers" / "pickscore")
    seen = []

    def reward(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        seen.append(images.clone())
        return scorer.score(images, prompts)

    pipeline = DiffusionPipeline.from_pretrained(MINIATURE / "sd35m", torch_dtype=torch.float32)
    found = sample_pruned(pipeline, [PROMPT], reward, GROUP, SAMPLING, seed=3, batch=GROUP.size)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    told = []
    for number, (stage, images) in enumerate(zip(found.stages, seen, strict=False), start=1):
        rewards, kept = stage.rewards[0].numpy(), stage.kept[0].tolist()
        strip(images[: len(rewards)], rewards, kept, folder / "pictures" / f"group_{number}.png")
        told.append(spread(rewards, kept))
    final = found.rewards[0].numpy()
    strip(found.images[0], final, list(range(len(final))), folder / "pictures" / "group_3.png", "trained on")
    advantages = (final - final.mean()) / final.std()  # Flow-GRPO's; DanceGRPO's is unbiased
    rows = zip(found.trajectories[0].tolist(), final, advantages, strict=True)
    table = ["| trajectory | reward | advantage |", "|---|---|---|"]
    table += [f"| {number} | {value:.3f} | {advantage:+.2f} |" for number, value, advantage in rows]
    (first, second), steps = GROUP.pruning, SAMPLING.steps
    phases = Phases((GROUP.size, first.keep, second.keep), (first.step, second.step), steps)
    text = PAGE.format(
        prompt=PROMPT,
        code=CODE,
        size=GROUP.size,
        steps=steps,
        first=first.step,
        second=second.step,
        kept_first=first.keep,
        kept_second=second.keep,
        folder="pictures",
        ovf_first=told[0],
        ovf_second=told[1],
        advantages="\n".join(table),
        calls=sampling_calls(phases),
        all_calls=GROUP.size * steps,
    )
    (folder / "one_group.md").write_text(text)


if __name__ == "__main__":
    write()
