"""Scorers by name, and weighted sums of them."""

import functools
import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from progrpo import plugins
from progrpo.errors import UserError
from progrpo.model_files import reading_model, require_sane
from progrpo.rewards.base import BatchedScorer, Scorer


def declared_files(kind: str) -> tuple[str, ...]:
    """The files in a scorer's folder that its score depends on; none for a scorer without weights."""
    return tuple(getattr(plugins.load(kind, plugins.SCORERS), "files", ()))


def _defaults(scorer: type) -> dict[str, Any]:
    """The options of a scorer with their defaults: the keyword-only arguments of its `load`."""
    return {p.name: p.default for p in inspect.signature(scorer.load).parameters.values() if p.kind is p.KEYWORD_ONLY}  # type: ignore[attr-defined]


def all_options(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a scorer as it is loaded with `options`: its defaults where they leave one out."""
    return {**_defaults(plugins.load(kind, plugins.SCORERS)), **options}


def load_scorer(
    kind: str,
    path: Path | str | None,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    batch_size: int = 16,
    **options,
) -> Scorer:
    """A scorer of a kind of `plugins.SCORERS`, or of one's own, with the weights in the folder `path`, laid out as its release.

    `options` are the keyword-only arguments of the scorer's `load`. UserError: unknown kind or option, missing or
    unfit file.
    """
    scorer = plugins.load(kind, plugins.SCORERS)
    is_class = isinstance(scorer, type)
    if not is_class or not all(hasattr(scorer, name) for name in ("load", "score")):
        # torch.hub, for one, has a `load` too, and it runs what it finds in a folder
        raise UserError(
            f"{kind}: no class, or has no `load` and `score`; make it a sub-class of progrpo.rewards.base:BatchedScorer"
        )
    known = _defaults(scorer)
    for option in options:
        if option not in known:
            raise UserError(f"{kind}: option {option!r} is unknown; known: {', '.join(known) or 'none'}")
    if path is not None and not Path(path).is_dir():
        raise UserError(f"{kind}: {path}: no such folder; fetch the weights (progrpo fetch) or set the scorer's `path`")
    if path is None and declared_files(kind):
        raise UserError(f"{kind}: needs a folder of weights; set the scorer's `path` in the config")
    folder = None if path is None else Path(path)
    common = {"precision": precision, "batch_size": batch_size, **options}
    if kind not in plugins.SCORERS or folder is None:  # a mistake in code of one's own shows where it is
        own = scorer.load(folder, device, **common)
        return own if isinstance(own, BatchedScorer) else Checked(own, kind, device, batch_size)
    require_sane(folder)
    with reading_model(f"{kind}: {folder}"):
        loaded = scorer.load(folder, device, **common)
        loaded.score(torch.zeros(1, 3, 8, 8), ["a"])  # its parts fit together
    return loaded


class Checked(BatchedScorer):
    """A scorer of one's own that is no `BatchedScorer`, held to what those promise: one finite number for each image."""

    def __init__(self, scorer: Scorer, kind: str, device: torch.device | str, batch_size: int):
        super().__init__(getattr(scorer, "name", kind), device, batch_size=batch_size)
        self.scorer = scorer

    def score_batch(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores (b,) of images (b, 3, H, W) in [0, 1], b prompts."""
        return self.scorer.score(images, prompts)


class WeightedSum:
    """A weighted sum of scorers, itself a scorer."""

    def __init__(self, scorers: dict[str, Scorer], weights: dict[str, float]):
        """`weights` names a non-empty subset of `scorers`; UserError for a name that is not there."""
        for name in weights:
            if name not in scorers:
                raise UserError(f"reward: scorer {name!r} is unknown; known: {', '.join(scorers)}")
        if not weights:
            raise UserError("reward: no scorer is named; give at least one with its weight")
        self.name = " + ".join(f"{weight:g} {name}" for name, weight in weights.items())
        self.weights = dict(weights)
        self.scorers = {name: scorers[name] for name in weights}

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """The weighted sum (B,) float32 of the scores of images (B, 3, H, W) in [0, 1]."""
        parts = [self.weights[name] * scorer.score(images, prompts) for name, scorer in self.scorers.items()]
        return functools.reduce(torch.add, parts)
