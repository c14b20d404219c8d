"""What a stored comparison says, as ratios beside the wanted ones and as a Markdown table."""

import statistics
from collections.abc import Iterator
from typing import Any

from progrpo.cost.comparison import FAST, GUIDED, PARTS, PLAIN
from progrpo.paper_runs import DANCEGRPO_SD14, FLOWGRPO, PROGRPO, PROGRPO_FLASH, PROGRPO_SD14

WANTED_OF_PLAIN = {FLOWGRPO: 0.67, DANCEGRPO_SD14: 0.60, FLOWGRPO + GUIDED: 0.65}
WANTED = {(PROGRPO, FLOWGRPO): 0.80, (PROGRPO_FLASH, FLOWGRPO): None, (PROGRPO_SD14, DANCEGRPO_SD14): 1.0}
WANTED_OVER_COUNTED = 1.05
WANTED_SAVING = 0.02
CALLS = {
    "denoise": "denoiser",
    "decode": "decoder",
    "reward": "reward",
    "update": "pairs",
}  # what a part's seconds go with

Arms = dict[tuple[str, str], dict[str, Any]]


def spread(values: list[float]) -> dict[str, float]:
    """The median, and the least and the greatest value."""
    return {"median": statistics.median(values), "least": min(values), "greatest": max(values)}


def ratios(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Every ratio that the arms of a comparison allow: label, median, least, greatest, and the wanted one, None where none is."""
    arms: Arms = {(arm["run"], arm["way"]): arm for arm in record["arms"]}
    return [
        {"label": label, **spread(values), "wanted": wanted}
        for label, values, wanted in (*_against_plain(arms), *_against_others(arms), *_turned(arms))
    ]


Row = tuple[str, list[float], float | None]


def _quotients(a: list[float], b: list[float]) -> list[float]:
    return [x / y for x, y in zip(a, b, strict=True)]


def _against_plain(arms: Arms) -> Iterator[Row]:
    for (name, way), plain in arms.items():
        if way == PLAIN:
            fast, slow = arms[name, FAST]["seconds"], plain["seconds"]
            yield f"{name} / plain loop", _quotients(fast["total"], slow["total"]), WANTED_OF_PLAIN.get(name)
            # The plain loop with this trainer's seconds for images.
            batched = [
                total - decode - reward + own_decode + own_reward
                for total, decode, reward, own_decode, own_reward in zip(
                    slow["total"], slow["decode"], slow["reward"], fast["decode"], fast["reward"], strict=True
                )
            ]
            yield f"{name} / plain loop, images in batches in both", _quotients(fast["total"], batched), None


def _against_others(arms: Arms) -> Iterator[Row]:
    for (name, other), wanted in WANTED.items():
        if (name, FAST) in arms and (other, FAST) in arms:
            own, others = arms[name, FAST], arms[other, FAST]
            measured = _quotients(own["seconds"]["total"], others["seconds"]["total"])
            counted = _quotients(predicted(own, others), others["seconds"]["total"])
            yield f"{name} / {other}", measured, wanted
            yield f"{name} / {other}, predicted by counted calls", counted, None
            yield (
                f"{name} / {other}, measured over predicted",
                _quotients(measured, counted),
                WANTED_OVER_COUNTED if wanted else None,
            )


def predicted(own: dict[str, Any], other: dict[str, Any]) -> list[float]:
    """Seconds of each round of `own` if each of its calls cost what a call of `other` does; encoding is taken as it is."""
    each = zip(*(other["seconds"][part] for part in CALLS), strict=True)
    scale = [own["calls"][calls] / other["calls"][calls] for calls in CALLS.values()]
    work = [sum(factor * seconds for factor, seconds in zip(scale, row, strict=True)) for row in each]
    return [seconds + encode for seconds, encode in zip(work, own["seconds"]["encode"], strict=True)]


def _turned(arms: Arms) -> Iterator[Row]:
    for (name, way), arm in arms.items():
        if way not in (PLAIN, FAST):
            values = _quotients(arm["seconds"]["total"], arms[name, FAST]["seconds"]["total"])
            yield f"{name} {way} / as configured", values, None


def utilisation(record: dict[str, Any], arm: dict[str, Any], part: str) -> float:
    """Share of the matmul peak in the median seconds of `denoise` or `update`."""
    rows = arm["calls"][CALLS[part]]
    return rows * arm["flop_per_row"][part] / statistics.median(arm["seconds"][part]) / record["matmul_peak"]


HEAD = ["| ratio of seconds per iteration | median | least to greatest | wanted |", "|---|---|---|---|"]


def wanted(record: dict[str, Any]) -> list[str]:
    """The lines of a table of those ratios that have a target, that of a save among them."""
    return [*HEAD, *(_line(row) for row in _rows(record) if row["wanted"] is not None)]


def markdown(record: dict[str, Any]) -> list[str]:
    """The lines of two tables: all ratios, and seconds by part with utilisation, batch and memory."""
    lines = [
        *HEAD,
        *map(_line, _rows(record)),
        "",
        f"| seconds per iteration | {' | '.join(PARTS)} | total | of peak: denoise, update | batch | memory |",
        f"|---|{'---|' * (len(PARTS) + 4)}",
    ]
    for arm in record["arms"]:
        # By name: a file keeps them in the order of the alphabet.
        seconds = [f"{statistics.median(arm['seconds'][part]):.3f}" for part in (*PARTS, "total")]
        shares = ", ".join(f"{utilisation(record, arm, part):.0%}" for part in ("denoise", "update"))
        memory = f"{arm['peak_memory_bytes'] / 1e9:.2f} GB"
        lines.append(
            f"| {arm['run']} {arm['way']} | {' | '.join(seconds)} | {shares} | {arm['micro_batch']} | {memory} |"
        )
    return lines


def _rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    saves = [
        {"label": f"{label}: a save of all weights / iteration", "wanted": WANTED_SAVING}
        | dict.fromkeys(("median", "least", "greatest"), values["share_behind"])
        for label, values in record["saving"].items()
    ]
    return [*record["ratios"], *saves]


def _line(row: dict[str, Any]) -> str:
    target = "" if row["wanted"] is None else f"<= {row['wanted']:.2f}"
    missed = ", **missed**" if target and row["median"] > row["wanted"] else ""
    return f"| {row['label']} | {row['median']:.3f} | {row['least']:.3f} to {row['greatest']:.3f} | {target}{missed} |"
