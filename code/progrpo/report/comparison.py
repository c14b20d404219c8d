"""Yours against the published: does each number lie where running the published tier once more would put it?"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

from scipy import stats

CONFIDENCE = 0.95
AGREEMENT = 0.9  # share of cells inside from which the verdict is "agrees"; 0.95 is what repetitions have on average
NOTHING_PUBLISHED = "Nothing is published of tier {tier}: there is nothing to compare with."
ROUNDING = 1e-6  # relative; what another order of summation leaves


@dataclass(frozen=True)
class Cell:
    """One evaluated number, mean over seeds, beside the published one; low and high are None without an interval."""

    model: str
    metric: str
    yours: float
    published: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """inside or outside the interval; equal or unequal up to rounding where one seed leaves no interval."""
        equal = abs(self.yours - self.published) <= ROUNDING * abs(self.published)
        if self.low is None or self.high is None:
            return "equal" if equal else "unequal"
        return "inside" if equal or self.low <= self.yours <= self.high else "outside"


def repetition_interval(estimate: dict[str, Any], seeds: int) -> tuple[float, float] | tuple[None, None]:
    """Where the mean of that many new seeds falls in 95 % of repetitions, given a published estimate; None for one seed.

    Student's prediction interval: mean +- t(n - 1) std sqrt(1/n + 1/seeds). It is wider than the published interval, in which
    the true mean is sought, because the new mean has an error of its own.
    """
    n = estimate["n"]
    if estimate["std"] is None or n < 2:
        return None, None
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * estimate["std"] * sqrt(1 / n + 1 / seeds)
    return estimate["mean"] - half, estimate["mean"] + half


def compare(yours: dict, published: dict) -> list[Cell]:
    """The evaluations that two summaries (`progrpo summary`) of a tier have in common, in the published order."""
    return [
        Cell(model, metric, own["mean"], estimate["mean"], *repetition_interval(estimate, own["n"]))
        for model, metrics in published["evaluations"].items()
        for metric, estimate in metrics.items()
        if (own := yours["evaluations"].get(model, {}).get(metric))
    ]


def as_data(cells: list[Cell], tier: str) -> dict[str, Any]:
    """Every cell with its verdict, and that of all, for a machine."""
    told = [{**asdict(cell), "verdict": cell.verdict} for cell in cells]
    return {"tier": tier, "verdict": verdict(cells, tier), "cells": told}


def verdict(cells: list[Cell], tier: str) -> str:
    """One line: whether a tier's own results agree with the published, and what that is counted from.

    Cells without an interval do not count. Where no other cell is in common, the results agree if all are equal, and nothing
    can be said if not: another seed differs, however well it agrees.
    """
    if not cells:
        return NOTHING_PUBLISHED.format(tier=tier)
    judged = [cell for cell in cells if cell.low is not None]
    inside = sum(cell.verdict == "inside" for cell in judged)
    single = [cell for cell in cells if cell.low is None]
    equal = sum(cell.verdict == "equal" for cell in single)
    if judged:
        word = "agrees with" if inside >= AGREEMENT * len(judged) else "differs from"
    else:
        word = "agrees with" if equal == len(single) else "cannot be judged by"
    counts = []
    if judged:
        counts.append(f"{inside} of {len(judged)} cells inside the interval of a repetition (on average 95 % are)")
    if single:
        counts.append(f"{equal} of {len(single)} cells of one seed, without interval, equal")
    return f"Your tier {tier} {word} the published: {'; '.join(counts)}."


def lines(cells: list[Cell]) -> Iterator[str]:
    """A header and one line per cell: model, metric, yours, published, interval, verdict."""
    yield f"{'model':24} {'metric':36} {'yours':>10} {'published':>10} {'low':>10} {'high':>10}  verdict"
    for cell in cells:
        bounds = " ".join(f"{'--' if bound is None else f'{bound:.4g}':>10}" for bound in (cell.low, cell.high))
        values = f"{cell.yours:>10.4g} {cell.published:>10.4g}"
        yield f"{cell.model:24} {cell.metric:36} {values} {bounds}  {cell.verdict}"
