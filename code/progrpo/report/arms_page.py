"""What every arm of a guard has gained, beside its baseline: a table for the page of verdicts and for README."""

from collections.abc import Iterable

from progrpo.config import Group
from progrpo.report.claims_file import Claims, Guard
from progrpo.report.evidence import Evidence
from progrpo.report.verdicts import SUPPORTED, Verdict, arms_of_guard, gains_in_units

HEAD = "| arm | group | seeds | gain | least to greatest seed | baseline, same seeds | by the law |"


def group_text(group: Group) -> str:
    """A group's size and what is kept of it after which step."""
    return ", ".join([str(group.size), *(f"{stage.keep} after {stage.step}" for stage in group.pruning)])


def arm_tables(claims: Claims, verdicts: Iterable[Verdict], evidence: Evidence) -> list[str]:
    """Markdown: for each guard that holds, a row for each of its arms with curves, most gain first; none of a baseline alone.

    Gains are final ones in the training reward, as shares of the baseline's mean gain over all its seeds.
    """
    learnt = {verdict.id for verdict in verdicts if verdict.verdict == SUPPORTED}
    text: list[str] = []
    for name in claims.guards_of(evidence.config.tier):
        arms = arms_of_guard(claims, name, evidence)
        if f"validity_{name}" in learnt and len(arms) > 1:  # nothing to compare a baseline alone with
            text += ["", *_table(claims.guards[name], arms, evidence)]
    return text[1:]


def _table(guard: Guard, arms: Iterable[str], evidence: Evidence) -> list[str]:
    law = (evidence.analyses.get("gradient_signal") or {}).get("arms", {})
    rows = []
    for arm in arms:
        run, metric = evidence.config.runs[arm], guard.every_seed[0]
        seeds = evidence.seeds(arm)
        gains = gains_in_units(arm, metric, seeds, guard, evidence).mean(axis=1)
        shared = evidence.seeds(arm, guard.baseline)
        beside = gains_in_units(guard.baseline, metric, shared, guard, evidence).mean() if shared else None
        longer = (
            f"; {run.iterations} iterations"
            if run.iterations != evidence.config.runs[guard.baseline].iterations
            else ""
        )
        cells = [
            f"{run.method} (`{arm}`)",
            group_text(run.group) + longer,
            str(len(seeds)),
            f"{gains.mean():.2f}",
            f"{gains.min():.2f} to {gains.max():.2f}",
            "--" if beside is None else f"{beside:.2f}",
            f"{law[arm]:.2f}" if arm in law else "--",
        ]
        rows.append((gains.mean(), "| " + " | ".join(cells) + " |"))
    return [HEAD, "|---|---|---|---|---|---|---|", *(row for _, row in sorted(rows, reverse=True))]
