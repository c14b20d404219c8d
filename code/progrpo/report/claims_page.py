"""Verdicts as words: a table for the screen, JSON, the page of a tier's published results, and the outcomes in README."""

import re
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from progrpo.errors import UserError
from progrpo.report.claims_file import Claim, Claims, Contrast, Margin, Superiority, Threshold
from progrpo.report.summary import paired_difference, rounded
from progrpo.report.verdicts import NOT_RUN, SPREAD, VOID, Verdict

BEGIN, END = "<!-- claims:begin -->", "<!-- claims:end -->"
VERDICTS = ("<!-- verdicts of {tier}:begin -->", "<!-- verdicts of {tier}:end -->")
ARMS = ("<!-- arms of {tier}:begin -->", "<!-- arms of {tier}:end -->")
# Of a summary: {run: {"<prompt set>.<metric>": {"seeds": {seed: value}, ...}}}
Evaluations = dict[str, dict[str, dict]]
ARMS_EXPLAINED = (
    "Final gains in the trained reward over the base model, on held-out prompts, as shares of the baseline's mean gain: mean over the",
    "arm's seeds, and the least and the greatest. *Baseline, same seeds*: its own gain on those that the arm has. *By the law*: what",
    "`gradient_signal` predicts, progress as the square root of kept number times kept variance.",
)
HEAD = f"{'claim':28} {'verdict':14} {'effect':>7} {'interval':>16} {'p':>7} {'n':>4} {'seconds':>8}"


def number(value: float | None, signed: bool = False) -> str:
    """Two decimals, three below .095; -- for none."""
    if value is None:
        return "--"
    return f"{value:{'+' if signed else ''}.{2 if abs(value) >= 0.095 else 3}f}"


def interval(verdict: Verdict) -> str:
    """[low, high], or -- without."""
    found = verdict.estimate
    if found is None or found.low is None or found.high is None or verdict.verdict == VOID:
        return "--"
    return f"[{number(found.low)}, {number(found.high)}]"


def effect(verdict: Verdict) -> str:
    """The estimate; -- for none, and where the claim is void, as it is a share of a gain that is none."""
    found = verdict.estimate if verdict.verdict != VOID else None
    return number(found.effect if found else None, bool(verdict.runs))


def p_value(verdict: Verdict) -> str:
    """Holm's where the claim is primary; -- for none, and where the claim is void."""
    p = verdict.p if verdict.p_holm is None else verdict.p_holm
    return "--" if p is None or verdict.verdict == VOID else f"{p:.4f}"


def lines(verdicts: Iterable[Verdict]) -> list[str]:
    """The table for the screen, and below it why something was not judged."""
    rows = [HEAD]
    notes = []
    for verdict in verdicts:
        found = verdict.estimate
        seeds = max((len(run["seeds"]) for run in verdict.runs.values()), default=0)
        n = found.n if found else seeds
        rows.append(
            f"{verdict.id:28} {verdict.verdict:14} {effect(verdict):>7}"
            f" {interval(verdict):>16} {p_value(verdict):>7} {n:>4} {verdict.seconds:>8.0f}"
        )
        if verdict.why:
            notes.append(f"{verdict.id}: {verdict.why}")
    return rows + ([""] + notes if notes else [])


def rule_text(claim: Claim) -> str:
    """A claim's rule in words."""
    rule = claim.rule
    if isinstance(rule, Superiority):
        return f"above 0; not supported below {rule.relevant:g}"
    if isinstance(rule, Margin):
        return f"above -{rule.margin:g}" if rule.kind == "non_inferiority" else f"within ±{rule.margin:g}"
    if isinstance(rule, Threshold):
        return f"{rule.kind.replace('_', ' ')} {rule.threshold:g}"
    return f"within {rule.low:g} to {rule.high:g}"


def as_json(claims: Claims, verdicts: Iterable[Verdict], tier: str) -> dict[str, Any]:
    """Everything about the verdicts of a tier: with each claim's statement and rule, runs, seeds and hashes of configurations."""
    stated = {claim.id: claim for claim in claims.claims}
    judged = []
    for verdict in verdicts:
        record = asdict(verdict)
        found = record.pop("estimate")
        record |= found or {}
        if claim := stated.get(verdict.id):
            record["excludes_paper"] = excludes_paper(verdict, claim)
            record["claim"] = claim.model_dump(mode="json", exclude={"id", "tiers"})
        judged.append(record)
    return rounded({"tier": tier, "alpha": claims.alpha, "unit": claims.unit, "verdicts": judged})


def excludes_paper(verdict: Verdict, claim: Claim) -> bool | None:
    """Whether the interval leaves out what the paper reports; None where one of the two is missing."""
    found = verdict.estimate
    if claim.paper is None or found is None or found.low is None or found.high is None:
        return None
    return not found.low <= claim.paper <= found.high


def outcome(verdict: Verdict) -> str:
    """A verdict with its numbers in a few words."""
    found = verdict.estimate
    if found is None or verdict.verdict == NOT_RUN:
        return verdict.verdict
    numbers = f"{measured(verdict)}, " if verdict.verdict != VOID else ""
    return f"{verdict.verdict} ({numbers}n = {found.n})"


def measured(verdict: Verdict) -> str:
    """Effect and interval, marked SD where they are in standard deviations; -- for none."""
    if effect(verdict) == "--":
        return "--"
    unit = " SD" if verdict.unit == SPREAD else ""
    return f"{effect(verdict)}{unit} {interval(verdict)}"


def page(claims: Claims, verdicts: list[Verdict], arms: list[str], tier: str) -> str:
    """The page of a tier's verdicts, Markdown: guards, families, the table of `arm_tables`, and what each verdict was made from."""
    stated = {claim.id: claim for claim in claims.claims}
    text = [
        f"# Tier {tier}: what the paper's claims come to",
        "",
        "Made by `progrpo claims --pages`; do not edit. Effects are shares of the baseline's mean gain or, marked SD,",
        f"{SPREAD}. Intervals are 95 %, of equivalence 90 %; p is one-sided,",
        f"its limit {claims.alpha:g}. *n of planned*: seeds, or prompts of an analysis, and how many were thought to give power .8 at",
        "the effect *predicted* beforehand; *needed*: how many do, by the spread that was found, which from",
        f"{claims.exact_from} seeds on is wider than that of the seeds. *Excluded*: the paper's value lies outside the interval.",
        "The baseline's mean gain is taken as known; over its seeds it is not (`config/claims.yaml` says both).",
        "",
        "## Do the baselines learn?",
        "",
        *(f"- `{v.id}`: **{v.verdict}**: {v.why}" for v in verdicts if v.id not in stated),
    ]
    titles = {"primary": "Primary contrasts (Holm)", "descriptive": "Described", "control": "Controls"}
    for family, title in titles.items():
        rows = [v for v in verdicts if v.id in stated and stated[v.id].family == family]
        if rows:
            head = "| claim | place | rule | verdict | effect | p | n of planned; needed | predicted | paper |"
            text += ["", f"## {title}", "", head, "|---|---|---|---|---|---|---|---|---|"]
            text += [_row(v, stated[v.id]) for v in rows]
    if arms:
        text += ["", "## What every arm gained", "", *ARMS_EXPLAINED, "", *arms]
    text += [
        "",
        "## From which runs",
        "",
        "| verdict | run | seeds | hashes of the configuration |",
        "|---|---|---|---|",
    ]
    for verdict in verdicts:
        for run, source in verdict.runs.items():
            seeds, configs = ", ".join(map(str, source["seeds"])), ", ".join(f"`{c}`" for c in source["configs"])
            text.append(f"| `{verdict.id}` | `{run}` | {seeds} | {configs} |")
    return "\n".join(text) + "\n"


def _row(verdict: Verdict, claim: Claim) -> str:
    found = verdict.estimate
    said = f"{claim.statement} (`{claim.id}`)".replace("|", "\\|")
    if isinstance(claim.comparison, Contrast):
        said += f", at equal {claim.comparison.at}"
    if verdict.share:
        value, low, high, seeds = verdict.share
        said += f"; share {number(value)} [{number(low)}, {number(high)}], n = {seeds}"
    word = f"**{verdict.verdict}**" + (f": {verdict.why}" if verdict.verdict in (NOT_RUN, VOID) else "")
    n = f"{found.n if found else 0} of {claim.n}" + (f"; {verdict.needed}" if verdict.needed else "")
    cells = [said, claim.place, rule_text(claim), word, measured(verdict), p_value(verdict), n]
    paper = number(claim.paper) + (" (excluded)" if excludes_paper(verdict, claim) else "")
    return "| " + " | ".join([*cells, number(claim.predicted), paper]) + " |"


def with_outcomes(text: str, verdicts: Iterable[Verdict], tier: str, evaluations: Evaluations) -> str:
    """A text whose table between the markers has its last column set anew: the outcomes of the claims that a row names as `id`.

    A row that names `run - run: set.metric` instead, as no rule was fixed for it, has their paired difference over seeds, from the
    evaluations of the tier's summary. A table whose head does not say that its outcomes are those of the tier is left as it is.
    UserError when the markers are not there, once each and in order, or a row names a claim that was not judged.
    """
    before, table, after = _parted(text, BEGIN, END)
    if f"outcome in tier `{tier}`" not in table:
        return text
    judged = {verdict.id: verdict for verdict in verdicts}
    lines = (_with_outcome(line, judged, evaluations) for line in table.split("\n"))
    return before + BEGIN + "\n".join(lines) + END + after


def with_tables(text: str, claims: Claims, verdicts: Iterable[Verdict], arms: list[str], tier: str) -> str:
    """A text with two tables between the tier's markers: its guards and primary claims, as they are judged, and its arms.

    A text without the markers of one is left as it is. UserError when one of a pair is missing, stands twice or in the wrong order.
    """
    return _between(_between(text, VERDICTS, tier, _judged(claims, verdicts)), ARMS, tier, arms)


def _between(text: str, markers: tuple[str, str], tier: str, rows: list[str]) -> str:
    """A text with these rows between a tier's markers, where it has them."""
    begin, end = (marker.format(tier=tier) for marker in markers)
    if begin not in text and end not in text:
        return text
    before, _, after = _parted(text, begin, end)
    return "\n".join([before + begin, *rows, end + after])


def _judged(claims: Claims, verdicts: Iterable[Verdict]) -> list[str]:
    """The rows of guards and primary claims."""
    stated = {claim.id: claim for claim in claims.claims}
    rows = ["| claim | judged at | effect | p (Holm) | seeds | verdict |", "|---|---|---|---|---|---|"]
    for verdict in verdicts:
        claim = stated.get(verdict.id)
        if claim is None:
            baseline = claims.guards[verdict.id.removeprefix("validity_")].baseline
            seeds = len(verdict.runs.get(baseline, {}).get("seeds", ()))
            rows.append(
                f"| Judged first: does `{baseline}` learn? (`{verdict.id}`) | | | | {seeds} | **{verdict.verdict}** |"
            )
        elif claim.family == "primary":
            at = f"equal {claim.comparison.at}" if isinstance(claim.comparison, Contrast) else ""
            found = verdict.estimate
            numbers = [measured(verdict), p_value(verdict), f"{found.n if found else 0}"]
            cells = [claim.statement, at, *numbers]
            rows.append("| " + " | ".join([*cells, f"**{verdict.verdict}**"]) + " |")
    return rows


def _parted(text: str, begin: str, end: str) -> tuple[str, str, str]:
    """A text before, between and after two markers; UserError unless each stands once, in order."""
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise UserError(f"README.md: {begin} and {end} must stand once each, in this order, around what is made")
    before, _, rest = text.partition(begin)
    between, _, after = rest.partition(end)
    return before, between, after


def _difference(run: str, other: str, metric: str, evaluations: Evaluations) -> str:
    """What was measured where no rule was fixed: mean and 95 % interval of a metric's difference over the seeds of both runs."""
    found = paired_difference(evaluations, run, other, metric)
    if found is None:
        return f"{metric} not run"
    between = "--" if found["low"] is None else f"[{number(found['low'])}, {number(found['high'])}]"
    return f"{metric} {number(found['mean'], signed=True)} {between}, n = {found['n']}"


def _with_outcome(line: str, judged: dict[str, Verdict], evaluations: Evaluations) -> str:
    cells = line.split("|")
    if len(cells) < 4 or set(line) <= set("|-: ") or cells[-2].strip().startswith("outcome"):
        return line
    if unjudged := re.findall(r"`(\w+) - (\w+): ([\w.]+)`", cells[-3]):
        said = "; ".join(_difference(run, other, metric, evaluations) for run, other, metric in unjudged)
        return "|".join([*cells[:-2], f" measured, not judged: {said} ", cells[-1]])
    names = re.findall(r"`(\w+)`", cells[-3])
    if unknown := [name for name in names if name not in judged]:
        raise UserError(f"README.md: the claim {unknown[0]} is not judged; correct the table or config/claims.yaml")
    words = [outcome(judged[name]) for name in names]
    alike = len(set(words)) == 1
    named = words[:1] if alike else [f"{name}: {word}" for name, word in zip(names, words, strict=True)]
    return "|".join([*cells[:-2], f" {'; '.join(named) or '--'} ", cells[-1]])
