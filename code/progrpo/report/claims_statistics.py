"""Numbers of analyses and costs that claims are made of, each as (value, low, high, n), or why it is not there."""

from collections.abc import Callable

from progrpo.analysis.statistics import mean_interval
from progrpo.paper_runs import FLOWGRPO, PROGRPO
from progrpo.report.evidence import COSTS, Evidence

Found = tuple[float, float | None, float | None, int] | str
DELTA = 0.5  # of Fig. 6's share |A| <= delta
NO_CLUSTERING = "no analysis reward_clustering"
LACKS = "the stored {} has no {}; it is older than the claim"


def _analysis(evidence: Evidence, name: str) -> dict:
    return evidence.analyses.get(name) or {}


def _clustering(evidence: Evidence) -> Found:
    rows = [row for row in _analysis(evidence, "reward_clustering").get("shares", []) if row["delta"] == DELTA]
    if not rows:
        return NO_CLUSTERING
    return rows[0]["observed"], rows[0]["low"], rows[0]["high"], _analysis(evidence, "reward_clustering")["prompts"]


def _distance(evidence: Evidence) -> Found:
    result = _analysis(evidence, "reward_clustering")
    if not (found := result.get("distance_to_gaussian_groups")):
        return LACKS.format("reward_clustering", "distance from Gaussian groups") if result else NO_CLUSTERING
    return found["value"], found["low"], found["high"], result["prompts"]


def _subset(rule: str, quantity: str) -> Callable[[Evidence], Found]:
    def find(evidence: Evidence) -> Found:
        result = _analysis(evidence, "reward_clustering")
        rows = [row for row in result.get("subsampling", []) if row["rule"] == rule]
        if not rows or "intervals" not in rows[0]:
            return LACKS.format("reward_clustering", "intervals of subsets") if result else NO_CLUSTERING
        found = rows[0]["intervals"][quantity]
        return found["value"], found["low"], found["high"], result["prompts"]

    return find


def _gradient(quantity: str) -> Callable[[Evidence], Found]:
    def find(evidence: Evidence) -> Found:
        result = _analysis(evidence, "gradient_signal")
        if not result:
            return "no analysis gradient_signal"
        found = result[quantity]
        return found["value"], found["low"], found["high"], result["prompts"]

    return find


def _preview(evidence: Evidence) -> Found:
    result = _analysis(evidence, "pruning_pilot")
    rows = [row for row in result.get("reliability", []) if row["fraction"] == 0.5]
    if not rows:
        return "no analysis pruning_pilot with a preview at half of the steps"
    return rows[0]["spearman"], rows[0]["low"], rows[0]["high"], result["prompts"]


def _ratios(evidence: Evidence, kind: str) -> list[float] | str:
    """Pro-GRPO over Flow-GRPO of an iteration's calls or seconds, for each common seed; or why there are none."""
    first, second = (evidence.costs.get(run, {}) for run in (PROGRPO, FLOWGRPO))
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return f"no costs of {PROGRPO} and {FLOWGRPO} with a common seed"
    return [
        sum(first[seed][part] for part in COSTS[kind]) / sum(second[seed][part] for part in COSTS[kind])
        for seed in seeds
    ]


def _calls(evidence: Evidence) -> Found:
    ratios = _ratios(evidence, "calls")
    if isinstance(ratios, str):
        return ratios
    alike = len(set(ratios)) == 1  # counted, not measured: one seed knows them
    return (ratios[0], ratios[0], ratios[0], len(ratios)) if alike else _mean(ratios)


def _timed(evidence: Evidence) -> list[float] | str:
    if len(evidence.devices(PROGRPO, FLOWGRPO)) > 1:
        return "the arms ran on several kinds of devices"
    return _ratios(evidence, "seconds")


def _seconds(evidence: Evidence) -> Found:
    ratios = _timed(evidence)
    return ratios if isinstance(ratios, str) else _mean(ratios)


def _cost(evidence: Evidence) -> Found:
    calls, seconds = _ratios(evidence, "calls"), _timed(evidence)
    if isinstance(calls, str) or isinstance(seconds, str):
        return calls if isinstance(calls, str) else str(seconds)
    return _mean([a / b for a, b in zip(seconds, calls, strict=True)])


def _mean(values: list[float]) -> Found:
    found = mean_interval(values)
    return float(found["mean"] or 0.0), found["low"], found["high"], len(values)


STATISTICS: dict[str, Callable[[Evidence], Found]] = {
    "clustering_share": _clustering,
    "gaussian_distance": _distance,
    "uniform_variance": _subset("uniform", "variance_over_expected"),
    "ovf_share": _subset("ovf", "share"),
    "gradient_noise": _gradient("noise"),
    "gradient_signal": _gradient("signal"),
    "preview_at_half": _preview,
    "calls_ratio": _calls,
    "seconds_ratio": _seconds,
    "cost_model": _cost,
}
