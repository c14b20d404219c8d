"""From a summary to the lines of a table: what was measured, beside what the paper says. One function per kind."""

from collections.abc import Callable

from progrpo.config import Config
from progrpo.errors import UserError
from progrpo.paper_runs import SD14, SD35M
from progrpo.report.tables.latex import ABSENT, MEASURED, NOT_RUN, UNKNOWN, Body, Cell, Estimate, Line
from progrpo.report.tables.layout import Column, Layout, Macro, Row
from progrpo.report.tables.settings import settings_body

PAPER_STEPS = 10  # T of Table 9
BACKBONES = {"flow": SD35M, "diffusion": SD14}
COMPONENTS = {"noise_prediction": "denoiser", "vae_decoding": "decoder", "reward": "reward"}


def paper_cells(row: Row, columns: tuple[Column, ...]) -> dict[str, Cell]:
    """The paper's cells of a row: a number, a word, `?` if it was not recovered, a dot if the paper has none."""
    cells: dict[str, Cell] = {}
    for column in columns:
        value = row.paper_value(column.key)
        if column.key in row.absent:
            cells[column.key] = ABSENT
        elif value is None:
            cells[column.key] = UNKNOWN
        else:
            inferred = row.is_inferred(column.key)
            cells[column.key] = value if isinstance(value, str) else Estimate(float(value), inferred=inferred)
    return cells


def paper_number(row: Row, column: str) -> Estimate:
    """The paper's number of a row; UserError where the table's file has none."""
    value = row.paper_value(column)
    if not isinstance(value, int | float):
        raise UserError(f"row {row.key}: the paper's {column} is no number; correct the table's file")
    return Estimate(value)


def _estimate(values: dict) -> Estimate:
    half_width = None if values["high"] is None else values["high"] - values["mean"]
    return Estimate(values["mean"], half_width, values["n"])


def _flops_run(summary: dict, accounting: str, run: str) -> dict:
    flops = summary["analysis"].get("flops")
    return flops["accountings"][accounting]["runs"].get(run, {}) if flops else {}


def evaluation_cell(summary: dict, run: str, column: str) -> Cell:
    """A measured cell; `column` is `<prompt set>.<metric>`, or `flops.label` for the counted speedup."""
    if column == "flops.label":
        value = _flops_run(summary, "measured", run).get("one_plus_reduction")
        return NOT_RUN if value is None or run not in summary["evaluations"] else Estimate(value)
    values = summary["evaluations"].get(run, {}).get(column)
    return NOT_RUN if values is None else _estimate(values)


def evaluations_body(layout: Layout, summary: dict) -> Body:
    """Two lines per model: the paper's and the measured one with its number of seeds."""
    lines = []
    for row in layout.rows:
        lines.append(Line(row.label, paper_cells(row, layout.columns), "paper", "", row.block))
        cells = {column.key: evaluation_cell(summary, row.key, column.key) for column in layout.columns}
        for key in row.absent:
            if key.startswith("flops."):
                cells[key] = ABSENT
        counts = {cell.n for key, cell in cells.items() if isinstance(cell, Estimate) and not key.startswith("flops.")}
        seeds = "--".join(str(count) for count in sorted({min(counts), max(counts)})) if counts else "0"
        lines.append(Line(row.label, cells, MEASURED, seeds, row.block))
    return Body(layout.columns, lines)


def pilot_body(layout: Layout, summary: dict) -> Body:
    """Table 9: paper and pilot for each pair of pruning steps at the same share of T; the selected pair is bold."""
    pilot = summary["analysis"].get("pruning_pilot", {"candidates": [], "steps": PAPER_STEPS})
    measured = {tuple(candidate["pruning_steps"]): candidate for candidate in pilot["candidates"]}
    lines = []
    for row in layout.rows:
        cells = paper_cells(row, layout.columns)
        lines.append(Line(row.label, cells, "paper", bold=cells["decision"] == "selected"))
        pair = tuple(round(int(step) / PAPER_STEPS * pilot["steps"]) for step in row.key.split(","))
        cells = _pilot_cells(measured.get(pair))
        lines.append(Line(f"$({pair[0]}, {pair[1]})$", cells, "measured", bold=cells.get("decision") == "selected"))
    return Body(layout.columns, lines, leading=("$(t_1, t_2)$", ""))


def _pilot_cells(candidate: dict | None) -> dict[str, Cell]:
    if candidate is None:
        return {}
    return {
        "variance": Estimate(candidate["variance"]),
        "spearman_first": Estimate(candidate["spearman"][0]),
        "spearman_second": Estimate(candidate["spearman"][1]),
        "cost_ratio": Estimate(candidate["cost_ratio"]),
        "decision": candidate["decision"],
    }


FLOPS_COLUMNS = tuple(
    Column(key=f"{quantity}/{source}", head=source, group=group, digits=2, better="none")
    for quantity, group, sources in (
        ("tflop", "TFLOP", ("paper", "reproduced", "measured")),
        ("label", "Speedup, 1 + reduction", ("paper", "reproduced", "measured")),
        ("ratio", "Speedup, ratio", ("reproduced", "measured")),
    )
    for source in sources
)


def flops_body(layout: Layout, summary: dict) -> Body:
    """Tables 10 and 11: the paper's numbers, those reproduced by its accounting, and what this repository executes
    but for recomputed activations.

    Atomic costs are `reproduced` without attention's matrix products, as the paper counts, and `measured` with them.
    """
    lines = []
    for row in layout.rows:
        cells = _component_cells(layout, row, summary) if row.key in COMPONENTS else _training_cells(row, summary)
        lines.append(Line(row.label, cells, block=row.block))
    return Body(FLOPS_COLUMNS, lines, leading=("Component / method",))


def _component_cells(layout: Layout, row: Row, summary: dict) -> dict[str, Cell]:
    backbone = BACKBONES[layout.family] if layout.family else ""
    atomic = summary["analysis"].get("flops", {}).get("atomic", {}).get("measured", {}).get(backbone, {})
    cells: dict[str, Cell] = {column.key: "" for column in FLOPS_COLUMNS}
    cells["tflop/paper"] = paper_number(row, "tflop")
    for source, suffix in (("reproduced", "_without_attention"), ("measured", "")):
        value = atomic.get(COMPONENTS[row.key] + suffix)
        cells[f"tflop/{source}"] = NOT_RUN if value is None else Estimate(value)
    return cells


def _training_cells(row: Row, summary: dict) -> dict[str, Cell]:
    cells: dict[str, Cell] = {"tflop/paper": paper_number(row, "tflop"), "label/paper": paper_number(row, "label")}
    for source, accounting in (("reproduced", "published"), ("measured", "measured")):
        counted = _flops_run(summary, accounting, row.key)
        if counted:
            cells[f"tflop/{source}"] = Estimate(counted["tflop"]["total"])
            cells[f"label/{source}"] = Estimate(counted["one_plus_reduction"])
            cells[f"ratio/{source}"] = Estimate(counted["speedup"])
    return cells


def wall_clock_body(layout: Layout, summary: dict) -> Body:
    """Table 13: the paper's line and one per device on which the wall clock was measured."""
    lines = []
    for row in layout.rows:
        lines.append(Line(row.label, paper_cells(row, layout.columns), "paper", block=row.block))
        measured = [(device, runs[row.key]) for device, runs in sorted(summary["hardware"].items()) if row.key in runs]
        for device, seconds in measured:
            cells: dict[str, Cell] = {column.key: Estimate(seconds[column.key]) for column in layout.columns}
            lines.append(Line(row.label, cells, device, block=row.block, ranked=False))  # medians without an interval
        if not measured:
            lines.append(Line(row.label, {}, "measured", block=row.block))
    return Body(layout.columns, lines, leading=("Method", ""))


def body(layout: Layout, summary: dict, config: Config) -> Body:
    """The lines of any table of the paper."""
    makers: dict[str, Callable[[], Body]] = {
        "evaluations": lambda: evaluations_body(layout, summary),
        "settings": lambda: settings_body(layout, config),
        "pilot": lambda: pilot_body(layout, summary),
        "flops": lambda: flops_body(layout, summary),
        "wall_clock": lambda: wall_clock_body(layout, summary),
    }
    return makers[layout.kind]()


def macro_values(macro: Macro, layout: Layout, summary: dict) -> tuple[Cell, Cell, int]:
    """(measured, paper, digits) of a macro; gains pair the seeds that both runs have.

    UserError when the macro names a row or column that its table does not have.
    """
    rows, columns = {row.key: row for row in layout.rows}, {column.key: column for column in layout.columns}
    for key, known in ((macro.row, rows), (macro.over, rows), (macro.column, columns)):
        if key is not None and key not in known:
            raise UserError(f"macro {macro.name}: table {macro.table} has no {key!r}; known: {', '.join(known)}")
    paper = rows[macro.row].paper_value(macro.column)
    if macro.over is None:
        measured = evaluation_cell(summary, macro.row, macro.column)
    else:
        other = rows[macro.over].paper_value(macro.column)
        paper = paper - other if isinstance(paper, int | float) and isinstance(other, int | float) else None
        measured = _gain(summary, macro)
    return measured, Estimate(paper) if isinstance(paper, int | float) else UNKNOWN, columns[macro.column].digits


def _gain(summary: dict, macro: Macro) -> Cell:
    from progrpo.report.summary import paired_difference  # here, because it brings scipy and most tables do without

    found = paired_difference(summary["evaluations"], macro.row, macro.over or "", macro.column)
    return _estimate(found) if found else NOT_RUN
