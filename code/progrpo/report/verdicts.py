"""The claims judged from stored results: guards first, then contrasts and statistics, then Holm over the primary family."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from progrpo.analysis.contrasts import Estimate, estimate, p_above, pooled_error, seeds_needed, share
from progrpo.analysis.statistics import holm
from progrpo.config import Config, tier_files
from progrpo.names import base_of, seed_folder, seeds_of
from progrpo.report.claims_file import (
    Claim,
    Claims,
    Contrast,
    Guard,
    Margin,
    OfAnalysis,
    Superiority,
    Threshold,
    Within,
)
from progrpo.report.claims_statistics import STATISTICS
from progrpo.report.evidence import Evidence

SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = "supported", "not supported", "inconclusive"
NOT_RUN, VOID = "not run", "void"
GAIN, SPREAD = "baseline's mean gain", "standard deviations of the base model's prompts"
ARMS_POOLED = 3  # arms that share the seeds, from which the pooled error is used


@dataclass(frozen=True)
class Verdict:
    """A judged claim; numbers of a contrast are in its `unit`, those of a statistic in its own."""

    id: str
    verdict: str
    why: str = ""
    estimate: Estimate | None = None
    p: float | None = None
    p_holm: float | None = None
    unit: str = ""  # of a contrast
    share: tuple[float, float | None, float | None, int] | None = None  # value, low, high, seeds
    needed: int | None = (
        None  # seeds for power .8 at the predicted effect, by the spread that was found; with Holm's least alpha
    )
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)  # {run: seeds, configs}
    seconds: float = 0.0  # of the trainings behind it


def judge(claims: Claims, evidence: Evidence) -> list[Verdict]:
    """A verdict for each guard, named validity_<guard>, and for each claim of the tier, in the order of the file.

    UserError for curves that do not fit each other, or a claim of what the tier does not have.
    """
    claims.check(evidence.config, [path.stem for path in tier_files()])
    tier = evidence.config.tier
    listed = claims.of_tier(tier)
    guards = {name: judge_guard(name, guard, evidence) for name, guard in claims.guards_of(tier).items()}
    primary = [claim.id for claim in listed if claim.family == "primary"]
    first = {claim.id: _judge(claim, claims, evidence) for claim in listed}
    void = {claim.id for claim in listed if claim.guard and guards[claim.guard].verdict != SUPPORTED}
    known = {name: None if name in void else verdict.p for name, verdict in first.items()}  # neither eases the others
    adjusted = dict(zip(primary, holm([1.0 if known[name] is None else known[name] for name in primary]), strict=True))
    return [*guards.values(), *(_decided(first[c.id], c, claims, guards, adjusted.get(c.id)) for c in listed)]


def targets(claims: Claims, config: Config, seeds: int) -> list[str]:
    """The curves and costs of the first so many seeds of each run that a claim of the tier is about, and of its base models."""
    arms = {claims.guards[c.guard].baseline for c in claims.of_tier(config.tier) if c.guard}
    for claim in claims.of_tier(config.tier):
        if isinstance(claim.comparison, Contrast):
            arms |= {*claim.comparison.contrast, *(claim.comparison.share_of or {})}
    files = set()
    for run in arms & set(config.runs):
        for seed in seeds_of(config, run)[:seeds]:
            stem = f"{config.results}/curves/{seed_folder(run, seed)}"
            base = seed_folder(base_of(config.runs[run].model), seed)
            files |= {f"{stem}.npz", f"{stem}.costs.json", f"{config.results}/curves/{base}.npz"}
    return sorted(files)


def judge_guard(name: str, guard: Guard, evidence: Evidence) -> Verdict:
    """Whether the baseline gains, in every seed, by all metrics of the guard and by one of the unused scorers."""
    seeds = evidence.seeds(guard.baseline)
    verdict = Verdict(f"validity_{name}", NOT_RUN, f"no curves of {guard.baseline}")
    if not seeds:
        return verdict
    means = {m: evidence.final_gains(guard.baseline, m, seeds).mean(1) for m in (*guard.every_seed, *guard.one_of)}
    fallen = [metric for metric in guard.every_seed if not (means[metric] > 0).all()]
    risen = [metric for metric in guard.one_of if (means[metric] > 0).all()]
    losses = (f"{metric} (least {means[metric].min():+.3f})" for metric in fallen)
    least = ", ".join(f"{metric} {means[metric].min():+.3f}" for metric in guard.every_seed)
    why = f"gains by all, in the least seed {least}; and by {', '.join(risen)}"
    if fallen:
        why = f"no gain in every seed by {', '.join(losses)}"
    if not fallen and not risen:
        why = f"no unused scorer gains in every seed: {', '.join(guard.one_of)}"
    found = SUPPORTED if risen and not fallen else NOT_SUPPORTED
    runs = _runs([guard.baseline], seeds, evidence)
    return replace(verdict, verdict=found, why=why, runs=runs, seconds=evidence.seconds([guard.baseline], seeds))


def _runs(names: Iterable[str], seeds: list[int], evidence: Evidence) -> dict[str, dict[str, Any]]:
    return {name: {"seeds": seeds, "configs": evidence.configs(name, seeds)} for name in names}


# ---------------------------------------------------------------- estimates


def _judge(claim: Claim, claims: Claims, evidence: Evidence) -> Verdict:
    """The estimate and its p, without a decision."""
    if isinstance(claim.comparison, OfAnalysis):
        found = STATISTICS[claim.comparison.statistic](evidence)
        if isinstance(found, str):
            return Verdict(claim.id, NOT_RUN, found)
        value, low, high, n = found
        return Verdict(claim.id, "", estimate=Estimate(value, low, high, value, n, claim.comparison.statistic))
    assert claim.guard is not None  # what the file's types promise
    return _contrast(claim, claim.comparison, claims, claims.guards[claim.guard], evidence)


def missing(contrast: Contrast, guard: Guard, evidence: Evidence) -> str:
    """Why a contrast cannot be estimated; empty when it can."""
    arms = [*contrast.contrast]
    if absent := [arm for arm in (*arms, guard.baseline) if not evidence.seeds(arm)]:
        return f"no curves of {', '.join(dict.fromkeys(absent))}"
    if not evidence.seeds(*arms):
        return "the arms have no seed in common"
    if contrast.at != "iterations" and evidence.budget(arms, contrast.at) is None:
        return f"{contrast.at} are not stored of all arms"
    if contrast.at == "seconds" and len(devices := evidence.devices(*arms)) > 1:
        return f"the arms ran on {len(devices)} kinds of devices"
    return ""


def contrast_gains(
    weights: dict[str, float], at: str, seeds: list[int], metrics: Iterable[str], guard: Guard, evidence: Evidence
) -> np.ndarray:
    """A contrast's gains (seeds, prompts) at the smallest budget of its arms, in the unit of `contrast_gains_at`."""
    return contrast_gains_at(weights, at, evidence.budget(weights, at), seeds, metrics, guard, evidence)


def contrast_gains_at(
    weights: dict[str, float],
    at: str,
    budget: float | None,
    seeds: list[int],
    metrics: Iterable[str],
    guard: Guard,
    evidence: Evidence,
) -> np.ndarray:
    """Weighted gains (seeds, prompts) at a budget: in units of the baseline's gain; of several metrics, the mean of each in
    standard deviations of the base model's prompts."""
    metrics, parts = tuple(metrics), []
    for metric in metrics:
        gains = [w * evidence.gains_at(run, metric, seeds, at, budget or 0.0) for run, w in weights.items()]
        parts.append(np.sum(gains, axis=0) / scale(guard, metric, len(metrics) == 1, evidence))
    return np.mean(parts, axis=0)


def scale(guard: Guard, metric: str, by_gain: bool, evidence: Evidence) -> float:
    """The baseline's mean final gain over all its seeds, or the standard deviation of its base model's prompts."""
    seeds = evidence.seeds(guard.baseline)
    if by_gain:
        return abs(float(evidence.final_gains(guard.baseline, metric, seeds).mean()))
    return float(evidence.base(guard.baseline, metric, seeds).mean(0).std())


def arms_of_guard(claims: Claims, guard: str, evidence: Evidence) -> list[str]:
    """Arms of a guard's contrasts that there are curves of; baseline first, then as the file has them."""
    arms = [claims.guards[guard].baseline]
    for claim in claims.claims:
        if claim.guard == guard and isinstance(claim.comparison, Contrast):
            arms += [*claim.comparison.contrast, *(claim.comparison.share_of or {})]
    return [arm for arm in dict.fromkeys(arms) if evidence.seeds(arm)]


def gains_in_units(
    run: str,
    metric: str,
    seeds: list[int],
    guard: Guard,
    evidence: Evidence,
    at: str = "iterations",
    budget: float | None = None,
) -> np.ndarray:
    """Gains (seeds, prompts) of a run at a budget, or of its final weights, in units of the baseline's mean gain."""
    final = budget is None
    gains = (
        evidence.final_gains(run, metric, seeds) if final else evidence.gains_at(run, metric, seeds, at, budget or 0.0)
    )
    return gains / scale(guard, metric, True, evidence)


def _contrast(claim: Claim, contrast: Contrast, claims: Claims, guard: Guard, evidence: Evidence) -> Verdict:
    if why := missing(contrast, guard, evidence):
        return Verdict(claim.id, NOT_RUN, why)
    if not all(scale(guard, metric, len(claim.metrics) == 1, evidence) for metric in claim.metrics):
        return Verdict(
            claim.id, NOT_RUN, f"the gain of {guard.baseline}, or the spread of its base model, is 0: no unit"
        )
    seeds = evidence.seeds(*contrast.contrast)
    units = contrast_gains(contrast.contrast, contrast.at, seeds, claim.metrics, guard, evidence)
    error = _pooled(claim, contrast, claims, guard, seeds, evidence)
    equivalent = claim.rule.kind == "equivalence"
    found = estimate(units, claims.exact_from, 1 - (4 if equivalent else 2) * claims.alpha, error)
    threshold = -claim.rule.margin if isinstance(claim.rule, Margin) else 0.0
    distance = None if equivalent or claim.predicted is None else claim.predicted - threshold
    return Verdict(
        claim.id,
        "",
        estimate=found,
        p=None if equivalent else p_above(units, threshold, claims.exact_from, error),
        unit=GAIN if len(claim.metrics) == 1 else SPREAD,
        share=_share(contrast, claim, claims, guard, evidence),
        needed=_needed(claim, claims, evidence.config.tier, found.sd, distance),
        runs=_runs(contrast.contrast, seeds, evidence),
        seconds=evidence.seconds(contrast.contrast, seeds),
    )


def _needed(claim: Claim, claims: Claims, tier: str, sd: float | None, distance: float | None) -> int | None:
    """Of a primary claim at the alpha of Holm's first step, and no fewer than an exact test can show it with."""
    family = sum(other.family == "primary" for other in claims.of_tier(tier)) if claim.family == "primary" else 1
    found = seeds_needed(sd, distance, claims.alpha / family)
    return found and max(found, claims.exact_from if family > 1 else 2)


def _pooled(claim, contrast: Contrast, claims: Claims, guard: Guard, seeds: list[int], evidence: Evidence):
    """Error of the contrast, from gains at its own budget of all arms of the guard's contrasts that have its seeds and reach it.

    None where they are too few: gains at another budget have another spread. Arms that do the same up to the budget count once:
    two rows of one training would make the error look smaller.
    """
    at, budget = contrast.at, evidence.budget(contrast.contrast, contrast.at)
    others = (c.comparison for c in claims.claims if c.guard == claim.guard)
    arms = {arm for other in others if isinstance(other, Contrast) for arm in other.contrast}
    reach = (arm for arm in arms if set(seeds) <= set(evidence.seeds(arm)) and evidence.reaches(arm, at, budget))
    unlike = {
        evidence.apart_from_length(arm): arm for arm in sorted(reach, key=lambda arm: (arm in contrast.contrast, arm))
    }
    shared = sorted(unlike.values())
    if len(seeds) < 2 or len(shared) < ARMS_POOLED:
        return None
    columns = [
        contrast_gains_at({arm: 1.0}, at, budget, seeds, claim.metrics, guard, evidence).mean(1) for arm in shared
    ]
    sd, freedom = pooled_error(np.stack(columns, axis=1))
    return sd * float(np.linalg.norm(list(contrast.contrast.values()))), freedom


def _share(contrast: Contrast, claim: Claim, claims: Claims, guard: Guard, evidence: Evidence):
    if contrast.share_of is None:
        return None
    both = [*contrast.contrast, *contrast.share_of]
    if any(not evidence.seeds(arm) for arm in both) or not (seeds := evidence.seeds(*both)):
        return None
    part, whole = (
        contrast_gains(weights, contrast.at, seeds, claim.metrics, guard, evidence)
        for weights in (contrast.contrast, contrast.share_of)
    )
    return share(part, whole, claims.exact_from) if whole.mean() else None


# ---------------------------------------------------------------- decisions


def _decided(
    verdict: Verdict, claim: Claim, claims: Claims, guards: dict[str, Verdict], p_holm: float | None
) -> Verdict:
    found = verdict.estimate
    if found is None:
        return verdict
    guard = guards.get(claim.guard or "")
    if guard is not None and guard.verdict != SUPPORTED:
        return replace(verdict, verdict=VOID, why=f"{guard.id}: {guard.why}")
    verdict = replace(verdict, p_holm=p_holm)
    p = verdict.p if p_holm is None else p_holm
    return replace(verdict, verdict=decide(claim, found, p, claims.alpha))


def decide(claim: Claim, found: Estimate, p: float | None, alpha: float) -> str:
    """supported, not supported or inconclusive, by the claim's rule; p is Holm's where the claim is primary.

    The exact p holds for the prompts that were evaluated, the interval for others like them: where both exist, both must agree.
    """
    rule, low, high = claim.rule, found.low, found.high
    if low is None or high is None:
        return INCONCLUSIVE
    if isinstance(rule, Superiority):
        yes, no = p is not None and p < alpha and low > 0, high < rule.relevant
    elif isinstance(rule, Margin) and rule.kind == "non_inferiority":
        yes, no = p is not None and p < alpha and low > -rule.margin, high < -rule.margin
    elif isinstance(rule, Margin):
        yes, no = -rule.margin < low and high < rule.margin, high < -rule.margin or low > rule.margin
    elif isinstance(rule, Within):
        yes, no = rule.low <= low and high <= rule.high, high < rule.low or low > rule.high
    else:
        assert isinstance(rule, Threshold)
        below, above = high < rule.threshold, low > rule.threshold
        yes, no = (above, below) if rule.kind == "at_least" else (below, above)
    return SUPPORTED if yes else NOT_SUPPORTED if no else INCONCLUSIVE
