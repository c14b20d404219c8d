"""How well the trained miniature scorers rank held-out pairs, and how much they differ from one another."""

from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from progrpo.miniature.prompts import balanced, held_out_records
from progrpo.miniature.scene_checker import SceneChecker
from progrpo.miniature.scorer_degradations import DEGRADATIONS, degrade
from progrpo.miniature.scorer_pairs import CELLS, RUNGS, Ladders, draw_batch, make_ladders
from progrpo.rewards import Scorer, load_scorer

SINGLE_EDITS = (1, 2)  # rungs with one edit


def held_out_images(count: int, seed: int) -> tuple[Ladders, Tensor]:
    """(`count` held-out ladders, images (count, 9, 3, 24, 24)): four rungs, then the first degraded in five ways."""
    ladders = make_ladders(balanced(held_out_records(), count, seed), seed)
    generator = torch.Generator().manual_seed(seed)
    clean = draw_batch(ladders.scenes.view(-1, CELLS)).view(count, RUNGS, 3, 24, 24)
    degraded = [
        degrade(clean[:, 0], torch.full((count,), kind), 0.2 + 0.6 * torch.rand(count, generator=generator), generator)
        for kind in range(len(DEGRADATIONS))
    ]
    return ladders, torch.cat([clean, torch.stack(degraded, 1)], 1)


def score_all(scorer: Scorer, ladders: Ladders, images: Tensor) -> Tensor:
    """(N, 9) scores of the held-out images."""
    prompts = [record["prompt"] for record in ladders.records for _ in range(images.shape[1])]
    return scorer.score(images.flatten(0, 1), prompts).view(images.shape[:2])


def _wins(better: Tensor, worse: Tensor) -> Tensor:
    return (better > worse).float() + 0.5 * (better == worse).float()


def _means(groups: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(float(np.mean(values)), 4) for name, values in sorted(groups.items())}


def accuracies(scores: Tensor, ladders: Ladders) -> dict:
    """Shares of held-out pairs in which the better image scores higher, from scores (N, 9); a tie is one half.

    `hard` is over pairs with one edit, `by_tag` and `by_edit` split it; `two_edits_below_one` and `by_degradation`
    are pairs of their own.
    """
    single = torch.stack([_wins(scores[:, 0], scores[:, rung]) for rung in SINGLE_EDITS], 1)
    by_tag: dict[str, list[float]] = {}
    by_edit: dict[str, list[float]] = {}
    for record, names, row in zip(ladders.records, ladders.edits, single.tolist(), strict=True):
        by_tag.setdefault(record["tag"], []).extend(row)
        for name, win in zip(names, row, strict=True):
            by_edit.setdefault(name, []).append(win)
    degraded = {name: _wins(scores[:, 0], scores[:, RUNGS + kind]).tolist() for kind, name in enumerate(DEGRADATIONS)}
    return {
        "hard": round(single.mean().item(), 4),
        "pairs": single.numel(),
        "by_tag": _means(by_tag),
        "by_edit": _means(by_edit),
        "two_edits_below_one": round(_wins(scores[:, 1], scores[:, 3]).mean().item(), 4),
        "by_degradation": _means(degraded),
    }


def within_prompt_correlation(first: Tensor, second: Tensor) -> float:
    """Mean over prompts of Spearman's correlation between rows of two (N, 9); constant rows are left out."""
    values = []
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        if len(set(a)) > 1 and len(set(b)) > 1:
            values.append(spearmanr(a, b).statistic)
    return round(float(np.mean(values)), 4)


def report(folders: dict[str, Path], count: int = 700, seed: int = 1) -> dict:
    """Held-out accuracy of each scorer (kind -> folder), and rank correlations of all with the exact checker."""
    ladders, images = held_out_images(count, seed)
    scorers = {kind: load_scorer(kind, folder, batch_size=256) for kind, folder in folders.items()}
    scorers["scene_checker"] = SceneChecker(batch_size=256)
    scores = {kind: score_all(scorer, ladders, images) for kind, scorer in scorers.items()}
    names = list(scores)
    return {
        "prompts": count,
        "seed": seed,
        "images_per_prompt": images.shape[1],
        "scorers": {kind: accuracies(scores[kind], ladders) for kind in names},
        "rank_correlation_within_prompt": {
            a: {b: within_prompt_correlation(scores[a], scores[b]) for b in names} for a in names
        },
        "rank_correlation_over_all_images": {
            a: {b: round(float(spearmanr(scores[a].flatten(), scores[b].flatten()).statistic), 4) for b in names}
            for a in names
        },
    }
