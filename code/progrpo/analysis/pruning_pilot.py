"""Pruning pilot (Table 9, appendix C): which pair of pruning steps, judged by reliability, separability and cost.

Input is an unpruned pool: the rewards of every trajectory's one-step preview after each number of completed denoising
steps, and its terminal reward. Nothing here samples.

The decision rule. Candidates are walked in order of CostRatio. The first whose Spearman correlations at t1 and at t2
and whose survivors' variance all reach (1 - tolerance) times the best value of any dearer candidate is *selected*;
dearer ones are *inefficient*. A cheaper one is *borderline* when it reaches (1 - 2 tolerance) everywhere, else
*inseparable* when only its variance falls short of (1 - tolerance), else *unreliable*. The tolerance is ours (the paper
names none); at 0.15 the rule reproduces all four decisions of Table 9 from its published numbers.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from progrpo.analysis import gaussian
from progrpo.analysis.statistics import bootstrap_interval, finite_array
from progrpo.cost.flops import Phases, cost_ratio
from progrpo.rank_correlation import rank_correlations

TOLERANCE = 0.15
CANDIDATE_FRACTIONS = ((0.2, 0.4), (0.4, 0.6), (0.5, 0.7), (0.7, 0.9))  # Table 9's four pairs, of T
PAPER_REGION = ((0.5, 0.6), (0.7, 0.8))


@dataclass(frozen=True)
class Candidate:
    """A pair of pruning steps: Spearman at t1 and t2, variance of the survivors' terminal rewards, CostRatio."""

    steps: tuple[int, int]
    spearman: tuple[float, float]
    variance: float
    cost: float


def reliability(previews: np.ndarray, terminal: np.ndarray) -> list[dict]:
    """Mean within-prompt Spearman per number of completed steps, with a 95 % bootstrap interval over prompts.

    `prompts` counts those that have a ranking; without any, the correlation is 0 and the interval is the point 0.
    """
    rows = []
    for step, column in enumerate(rank_correlations(previews, terminal).T):
        ranked = column[np.isfinite(column)]
        interval = bootstrap_interval(ranked) if len(ranked) else {"value": 0.0, "low": 0.0, "high": 0.0}
        rows.append(
            {
                "step": step,
                "fraction": step / previews.shape[2],
                "spearman": interval["value"],
                "low": interval["low"],
                "high": interval["high"],
                "prompts": len(ranked),
            }
        )
    return rows


def survivors_variance(
    previews: np.ndarray, terminal: np.ndarray, pair: tuple[int, int], counts: tuple[int, int, int]
) -> np.ndarray:
    """Population variance (P,) of the survivors' terminal rewards when OVF prunes on the previews at `pair`."""
    proxies = [previews[:, :, step] for step in pair]
    survivors = gaussian.survivors_of(proxies, counts[1:], lambda proxy, keep, _: gaussian.filter_rows(proxy, keep))
    return np.take_along_axis(terminal, survivors, 1).var(axis=1)


def reference_variances(terminal: np.ndarray, keep: int) -> dict[str, float]:
    """Variance of the terminal rewards: full pool, expectation of a random subset of `keep`, one-shot OVF on them."""
    full = terminal.var(axis=1)
    oracle = np.take_along_axis(terminal, gaussian.filter_rows(terminal, keep), 1).var(axis=1)
    n = terminal.shape[1]
    return {
        "pool": float(full.mean()),
        "random": float(full.mean() * (1 - 1 / keep) / (1 - 1 / n)),
        "oracle": float(oracle.mean()),
    }


def decide(candidates: list[Candidate], tolerance: float = TOLERANCE) -> dict[tuple[int, int], str]:
    """The decision for each pair of steps under the rule in this module's head; the dearest is always eligible."""
    ordered = sorted(candidates, key=lambda c: (c.cost, c.steps))
    decisions: dict[tuple[int, int], str] = {}
    for position, candidate in enumerate(ordered):
        if "selected" in decisions.values():
            decisions[candidate.steps] = "inefficient"
            continue
        decisions[candidate.steps] = _judge(candidate, ordered[position + 1 :], tolerance)
    return decisions


def _judge(candidate: Candidate, dearer: list[Candidate], tolerance: float) -> str:
    def reaches(value, best, slack):
        return value >= (1 - slack) * best

    def reliable(slack):
        return all(reaches(candidate.spearman[i], max(c.spearman[i] for c in dearer), slack) for i in (0, 1))

    def separable(slack):
        return reaches(candidate.variance, max(c.variance for c in dearer), slack)

    if not dearer or (reliable(tolerance) and separable(tolerance)):
        return "selected"
    if reliable(2 * tolerance) and separable(2 * tolerance):
        return "borderline"
    return "inseparable" if reliable(tolerance) else "unreliable"


def candidate_pairs(steps: int) -> tuple[tuple[int, int], ...]:
    """Table 9's pairs at the same fractions of T; pairs that coincide by rounding or leave 1..T-1 are dropped."""
    pairs = {(round(first * steps), round(second * steps)) for first, second in CANDIDATE_FRACTIONS}
    return tuple(sorted(pair for pair in pairs if 1 <= pair[0] < pair[1] < steps))


def in_paper_region(pair: tuple[int, int], steps: int) -> bool:
    """Whether t1/T and t2/T fall within [0.5, 0.6] and [0.7, 0.8]."""
    return all(low <= step / steps <= high for step, (low, high) in zip(pair, PAPER_REGION, strict=True))


def _checked(previews, terminal, counts, pairs):
    previews, terminal = finite_array(previews, 3, "previews"), finite_array(terminal, 2, "terminal")
    if previews.shape[:2] != terminal.shape:
        raise ValueError(f"previews {previews.shape} and terminal rewards {terminal.shape} disagree on prompts or pool")
    n, steps = previews.shape[1:]
    counts = counts or (n, n // 2, n // 4)
    if len(counts) != 3 or counts[0] != n or counts[2] < 2 or list(counts) != sorted(counts, reverse=True):
        raise ValueError(
            f"counts {counts} do not fit a pool of {n}: three numbers, {n} first, not growing, at least 2 last"
        )
    pairs = pairs or candidate_pairs(steps)
    if not pairs or any(not 1 <= first < second < steps for first, second in pairs):
        raise ValueError(f"pairs {pairs} do not fit {steps} steps: 1 <= t1 < t2 < {steps}")
    return previews, terminal, tuple(counts), tuple(tuple(pair) for pair in pairs)


def analyse(previews, terminal, counts=None, pairs=None, tolerance: float = TOLERANCE) -> dict:
    """The whole pilot from previews (P, N, T) and terminal rewards (P, N) of an unpruned pool; JSON-ready.

    previews[:, :, k] is the reward of the preview after k completed steps. `counts` (N, N1, K) defaults to halving
    twice, `pairs` to Table 9's fractions of T. Raises ValueError for shapes, counts or pairs that do not fit.
    """
    previews, terminal, counts, pairs = _checked(previews, terminal, counts, pairs)
    steps = previews.shape[2]
    correlations = reliability(previews, terminal)
    spearman = [row["spearman"] for row in correlations]

    def row(pair):
        per_prompt = survivors_variance(previews, terminal, pair, counts)
        interval = bootstrap_interval(per_prompt)
        return {
            "pruning_steps": list(pair),
            "fractions": [step / steps for step in pair],
            "spearman": [spearman[step] for step in pair],
            "variance": interval["value"],
            "variance_low": interval["low"],
            "variance_high": interval["high"],
            "cost_ratio": cost_ratio(Phases(counts, pair, steps)),
        }

    rows = [row(pair) for pair in pairs]
    decisions = decide(
        [Candidate(tuple(r["pruning_steps"]), tuple(r["spearman"]), r["variance"], r["cost_ratio"]) for r in rows],
        tolerance,
    )
    selected = next(pair for pair, decision in decisions.items() if decision == "selected")
    return {
        "prompts": len(terminal),
        "pool": terminal.shape[1],
        "steps": steps,
        "counts": list(counts),
        "tolerance": tolerance,
        "reliability": correlations,
        "reference_variances": reference_variances(terminal, counts[-1]),
        "candidates": [{**r, "decision": decisions[tuple(r["pruning_steps"])]} for r in rows],
        "selected": {
            "pruning_steps": list(selected),
            "fractions": [step / steps for step in selected],
            "in_paper_region": in_paper_region(selected, steps),
        },
        "all_pairs": [row(pair) for pair in combinations(range(1, steps), 2)] if steps <= 12 else [],
        "paper_spearman": [
            {"fraction": step / 10, "spearman": value} for step, value in gaussian.TABLE9_SPEARMAN.items()
        ],
    }
