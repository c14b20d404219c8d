"""The sampling side of the analyses: rewards of unpruned groups under a base model, with previews at every step for the pilot."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from progrpo.config import Analysis, Config
from progrpo.devices import choose_device
from progrpo.errors import UserError
from progrpo.files import write_atomic, write_json
from progrpo.grpo.backbone import Backbone, load_backbone
from progrpo.grpo.groups import policy_of, scoring
from progrpo.grpo.rollout import PruningPlan, Rollout, TrajectoryNoise, expand_and_prune
from progrpo.jobs.loading import prompts_of, scorer_of
from progrpo.provenance import provenance
from progrpo.rewards.base import Scorer
from progrpo.rewards.preprocess import quantise

PROMPTS_AT_ONCE = 8  # bounds the memory of recorded states; does not change the result


@dataclass
class PreviewGrid:
    """Collects the images of the first trajectory of the first prompts, one column per scoring pass (each step, then the end)."""

    prompts: int
    columns: dict[int, dict[int, np.ndarray]] = field(default_factory=dict)

    def add(self, images: Tensor, prompt: Tensor, offset: int, column: int) -> None:
        """Keep what belongs to a column of one batch of images (B, 3, H, W); `offset` is the number of the batch's prompt 0."""
        kept = self.columns.setdefault(column, {})
        for k, local in enumerate(prompt.tolist()):
            number = offset + local
            if number < self.prompts and number not in kept:
                kept[number] = quantise(images[k]).permute(1, 2, 0).cpu().numpy()

    def array(self) -> np.ndarray:
        """(prompts, columns, H, W, 3) uint8."""
        rows = sorted(self.columns[0])
        return np.stack([np.stack([column[row] for _, column in sorted(self.columns.items())]) for row in rows])


def sample_analysis(config: Config, name: str, out: Path, device_name: str) -> None:
    """Write {"rewards"} (P x n) for a clustering analysis, {"previews", "terminal"} for one with candidate pruning steps.

    The pilot's preview grid goes to an .npz beside `out`. UserError: an analysis that the tier lacks, too few prompts.
    """
    analysis = config.get_analysis(name)
    prompts = first_prompts(config, analysis, analysis.prompt_count)
    device = choose_device(device_name)
    backbone = load_backbone(config.models[analysis.model], device)
    scorer = scorer_of(config.scorers[analysis.scorer], device)
    with_previews = bool(analysis.candidates)
    grid = PreviewGrid(analysis.grid if with_previews else 0)
    rollouts = []
    for start in range(0, len(prompts), PROMPTS_AT_ONCE):
        part = prompts[start : start + PROMPTS_AT_ONCE]
        rollouts.append(sample_pool(backbone, scorer, part, start, analysis, grid if start < grid.prompts else None))
        print(f"{name}: {start + len(part)}/{len(prompts)} prompts", flush=True)
    result = {"provenance": provenance(analysis, analysis.seed, device), "scorer": analysis.scorer, "prompts": prompts}
    terminal = torch.cat([rollout.rewards for rollout in rollouts])
    if with_previews:
        stages = [torch.stack([stage.rewards for stage in rollout.stages], dim=-1) for rollout in rollouts]
        result |= {"previews": torch.cat(stages).tolist(), "terminal": terminal.tolist()}
        result |= {"candidates": analysis.candidates, "keep": analysis.keep or ()}
        _write_grid(out.with_suffix(".npz"), grid, prompts)
    else:
        result["rewards"] = terminal.tolist()
    write_json(out, result)


def first_prompts(config: Config, analysis: Analysis, count: int) -> list[str]:
    """The first so many prompts of an analysis; UserError when its prompt set has fewer."""
    records = prompts_of(config.prompt_sets[analysis.prompts])
    if len(records) < count:
        raise UserError(f"prompt set {analysis.prompts}: {len(records)} prompts, but the analysis asks for {count}")
    return [record.prompt for record in records[:count]]


def sample_pool(
    backbone: Backbone, scorer: Scorer, prompts: list[str], offset: int, analysis: Analysis, grid: PreviewGrid | None
) -> Rollout:
    """Unpruned groups of some prompts, the first of which is number `offset`.

    For the pilot every step is a pruning step that keeps all, so that each is previewed and scored and none is stopped.
    """
    table = backbone.table(analysis.sampling)
    stages = tuple((step, analysis.group) for step in range(table.steps)) if analysis.candidates else ()
    numbers = list(range(offset, offset + len(prompts)))
    noise = TrajectoryNoise(analysis.seed, 0, numbers, backbone.latent_shape, analysis.sampling.shared_initial_noise)
    score, scored = scoring(scorer, prompts), 0

    def seen_and_scored(images: Tensor, prompt: Tensor) -> Tensor:
        nonlocal scored
        if grid is not None:
            grid.add(images, prompt, offset, column=scored // (len(prompts) * analysis.group))
        scored += len(images)
        return score(images, prompt)

    text, scale = backbone.encode(prompts), analysis.sampling.guidance_scale
    policy = policy_of(backbone, table, text, scale, seen_and_scored)
    return expand_and_prune(policy, table, PruningPlan(analysis.group, stages), noise, analysis.batch)


def _write_grid(path: Path, grid: PreviewGrid, prompts: list[str]) -> None:
    images = grid.array()
    labels = [f"step {k}" for k in range(images.shape[1] - 1)] + ["final"]
    write_atomic(
        path, lambda file: np.savez_compressed(file, images=images, prompts=prompts[: len(images)], labels=labels)
    )
