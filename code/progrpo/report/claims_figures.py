"""Verdicts as pictures: gains as a forest plot, held-out curves over three abscissae, prediction against observation, paired seeds."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from progrpo.analysis.statistics import mean_interval
from progrpo.report.claims_file import Claim, Claims, Contrast, Guard, Margin, Superiority
from progrpo.report.evidence import Evidence
from progrpo.report.figures import BLACK, BLUE, CYCLE, DASHES, GREEN, GREY, ORANGE, VERMILION, canvas, save, styled
from progrpo.report.verdicts import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, VOID, Verdict, arms_of_guard, gains_in_units

COLOURS = {SUPPORTED: GREEN, INCONCLUSIVE: ORANGE, NOT_SUPPORTED: VERMILION}
AXES = {"iterations": "iteration", "calls": "denoiser calls (thousands)", "seconds": "seconds"}
MARKERS = "os^D"
BANDS_FROM = 4  # seeds; the interval of fewer is wider than what it is about, and each seed is a thin line instead
SHOWN = 6  # arms of one figure of curves, those first that contrasts of the primary family are about


def draw_all(claims: Claims, verdicts: list[Verdict], evidence: Evidence, folder: Path) -> list[Path]:
    """Write claims_forest, claims_predicted, claims_pairs and claims_curves_<guard> of a tier as PDF and PNG; the paths.

    A tier whose claims compare no trainings has none of them.
    """
    if not claims.guards_of(evidence.config.tier):
        return []
    figures = {
        "claims_forest": draw_forest(claims, verdicts),
        "claims_predicted": draw_predicted(claims, evidence),
        "claims_pairs": draw_pairs(claims, verdicts, evidence),
    }
    for name in claims.guards_of(evidence.config.tier):
        learnt = next(verdict for verdict in verdicts if verdict.id == f"validity_{name}")
        figures[f"claims_curves_{name}"] = draw_held_out(claims, name, evidence, learnt)
    return [path for name, figure in figures.items() for path in save(figure, folder / name)]


def _empty(axis, text: str = "not run") -> None:
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color=GREY)


@styled
def draw_forest(claims: Claims, verdicts: list[Verdict]) -> Figure:
    """Each contrast of one metric with its interval, in units of the baseline's gain; the limits that decide beside 0, what was
    predicted, what the paper has. What is void has no effect to show."""
    stated = {claim.id: claim for claim in claims.claims}
    judged = [(v, stated[v.id]) for v in verdicts if v.id in stated and v.estimate and v.verdict != VOID]
    shown = [(verdict, claim) for verdict, claim in judged if len(claim.metrics) == 1]
    figure, (axis,) = canvas(1, 1.1 + 0.24 * max(len(shown), 2))
    for row, (verdict, claim) in enumerate(reversed(shown)):
        found, colour = verdict.estimate, COLOURS[verdict.verdict]
        assert found is not None
        for limit in _limits(claim):
            axis.plot([limit, limit], [row - 0.35, row + 0.35], color=GREY, linewidth=1)
        if found.low is not None and found.high is not None:
            axis.plot([found.low, found.high], [row, row], color=colour, solid_capstyle="butt")
        axis.plot(found.effect, row, "o", color=colour, markersize=4)
        for value, marker in ((claim.predicted, "D"), (claim.paper, "^")):
            if value is not None:
                axis.plot(value, row, marker, markersize=4, markerfacecolor="none", markeredgecolor=BLACK)
    if not shown:
        _empty(axis)
    names = [f"{v.id} (n = {v.estimate.n if v.estimate else 0})" for v, _ in reversed(shown)]
    axis.set_yticks(range(len(shown)), names)
    axis.axvline(0, color=BLACK, linewidth=0.6)
    axis.set(xlabel="difference of gains, in units of the baseline's gain")
    marks = [*COLOURS.items()]
    for word, colour in marks:
        axis.plot([], [], "o-", color=colour, markersize=4, label=word)
    for word, marker in (("predicted", "D"), ("paper", "^")):
        axis.plot([], [], marker, markerfacecolor="none", markeredgecolor=BLACK, linestyle="", markersize=4, label=word)
    axis.plot([], [], "|", color=GREY, label="limit of the rule")
    figure.legend(loc="outside lower center", ncols=7, columnspacing=1)
    return figure


def _limits(claim: Claim) -> list[float]:
    """Where the interval of a contrast must lie, or must not: what is relevant, or the margin on the sides that count."""
    if isinstance(claim.rule, Superiority):
        return [claim.rule.relevant]
    if isinstance(claim.rule, Margin):
        return [-claim.rule.margin] + ([claim.rule.margin] if claim.rule.kind == "equivalence" else [])
    return []


def _band(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Mean and 95 % interval over seeds of (seeds, points); no interval of one seed."""
    found = [mean_interval(column) for column in rows.T]
    mean = np.array([one["mean"] for one in found], dtype=float)
    if len(rows) == 1:
        return mean, None, None
    low, high = (np.array([one[key] for one in found], dtype=float) for key in ("low", "high"))
    return mean, low, high


@styled
def draw_held_out(claims: Claims, name: str, evidence: Evidence, learnt: Verdict | None = None) -> Figure:
    """Fig. 5 on held-out prompts: gain in the training reward against iterations, calls and seconds; means over seeds, and the seeds
    as 95 % bands or, where they are few, as thin lines. Its title says where the baseline's guard, `learnt`, voids what is shown."""
    guard = claims.guards[name]
    figure, axes = canvas(3, 2.6, sharey=True)
    arms = arms_of_guard(claims, name, evidence)[:SHOWN]
    for axis, (at, label) in zip(axes, AXES.items(), strict=True):
        for index, arm in enumerate(arms):
            rate = evidence.rate(arm, at)
            if rate is None:
                continue
            seeds = evidence.seeds(arm)
            curves = [evidence.gain(arm, guard.every_seed[0], seed) for seed in seeds]
            by_seed = np.stack([gains.mean(axis=1) for _, gains in curves])
            mean, low, high = _band(by_seed)
            at_points = curves[0][0] * rate / (1000 if at == "calls" else 1)
            style = {"color": CYCLE[index % len(CYCLE)], "linestyle": DASHES[index % len(DASHES)]}
            axis.plot(at_points, mean, label=f"{evidence.config.runs[arm].method}, {arm}, n = {len(seeds)}", **style)
            if len(seeds) < BANDS_FROM:
                axis.plot(at_points, by_seed.T, color=style["color"], linewidth=0.5, alpha=0.7)
            elif low is not None and high is not None:
                axis.fill_between(at_points, low, high, color=style["color"], alpha=0.15, linewidth=0)
        if not arms:
            _empty(axis)
        axis.set(xlabel=label)
    axes[0].set(ylabel=f"held-out gain, {guard.every_seed[0]}")
    if arms and learnt is not None and learnt.verdict == NOT_SUPPORTED:
        axes[1].set_title(f"void: {learnt.id} is not supported", fontsize=7)
    if arms:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@styled
def draw_predicted(claims: Claims, evidence: Evidence) -> Figure:
    """Observed final gains of the arms against iterations times sqrt(K Var_kept), both in units of the baseline's mean gain over the
    arm's seeds; with 95 % intervals of the difference to the prediction, seed by seed, as the baseline's gain has an error too."""
    figure, (axis,) = canvas(1, 3.2)
    predicted = (evidence.analyses.get("gradient_signal") or {}).get("arms", {})
    guard = next((g for g in claims.guards.values() if g.baseline in predicted), None)
    arms = [arm for arm in predicted if evidence.seeds(arm)] if guard and evidence.seeds(guard.baseline) else []
    for index, arm in enumerate(arms):
        assert guard is not None
        found = mean_interval(observed(arm, predicted[arm], guard, evidence))
        colour, marker = CYCLE[index % len(CYCLE)], MARKERS[index // len(CYCLE) % len(MARKERS)]
        label = f"{arm}, n = {len(evidence.seeds(arm))}"
        axis.plot(predicted[arm], found["mean"], marker, color=colour, markersize=4, label=label)
        if found["low"] is not None:
            axis.plot([predicted[arm]] * 2, [found["low"], found["high"]], color=colour)
    if arms:
        ends = [min(predicted[arm] for arm in arms) - 0.05, max(predicted[arm] for arm in arms) + 0.05]
        axis.plot(ends, ends, color=GREY, linewidth=0.8, linestyle="--", label="as predicted")
        figure.legend(*axis.get_legend_handles_labels(), loc="outside right center")
    else:
        _empty(axis)
    axis.set(xlabel="predicted gain, iterations · √(K Var); Flow-GRPO = 1", ylabel="observed gain; Flow-GRPO = 1")
    return figure


def observed(arm: str, predicted: float, guard: Guard, evidence: Evidence) -> np.ndarray:
    """Final gains (seeds,) of an arm in the training reward, in units of the baseline's mean gain over these seeds, each with what
    is predicted of the baseline's own gain in that seed put right to its mean; where the baseline has none of them, of all its own."""
    metric, shared = guard.every_seed[0], evidence.seeds(arm, guard.baseline)
    gains = gains_in_units(arm, metric, shared or evidence.seeds(arm), guard, evidence).mean(axis=1)
    if not shared:
        return gains
    baseline = gains_in_units(guard.baseline, metric, shared, guard, evidence).mean(axis=1)
    return predicted + (gains - predicted * baseline) / baseline.mean()


@styled
def draw_pairs(claims: Claims, verdicts: Iterable[Verdict], evidence: Evidence) -> Figure:
    """The two arms of each primary contrast at equal budget, a dot per seed, pairs joined."""
    judged = {verdict.id: verdict for verdict in verdicts}
    tier = evidence.config.tier
    family = [c for c in claims.of_tier(tier) if c.family == "primary" and isinstance(c.comparison, Contrast)]
    figure, axes = canvas(max(len(family), 1), 2.4, sharey=True)
    for axis, claim in zip(axes, family, strict=False):
        axis.set_title(claim.id.replace("_", "\n", 1), fontsize=7)
        contrast, verdict = claim.comparison, judged[claim.id]
        assert isinstance(contrast, Contrast)
        assert claim.guard is not None
        if verdict.estimate is None or verdict.verdict == VOID:
            _empty(axis, verdict.verdict if verdict.verdict == VOID else "not run")
            axis.set(xticks=[])
            continue
        second, first = contrast.contrast
        budget, guard = evidence.budget(contrast.contrast, contrast.at), claims.guards[claim.guard]
        seeds = evidence.seeds(first, second)
        pairs = np.stack(
            [
                gains_in_units(arm, claim.metrics[0], seeds, guard, evidence, contrast.at, budget).mean(axis=1)
                for arm in (first, second)
            ]
        )
        axis.plot([0, 1], pairs, color=GREY, linewidth=0.6)
        for place in (0, 1):
            axis.plot([place] * len(seeds), pairs[place], "o", color=(BLUE, VERMILION)[place], markersize=3)
            axis.plot(place, pairs[place].mean(), "_", color=BLACK, markersize=12)
        axis.set_xticks([0, 1], [arm.rsplit("_", 1)[0].replace("_", "\n") for arm in (first, second)], fontsize=6)
        axis.set_xlim(-0.4, 1.4)
    axes[0].set(ylabel="gain, in units of the baseline's")
    return figure
