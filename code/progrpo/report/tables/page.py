"""All tables of a tier as one HTML page, for the workflow's report: the lines that the LaTeX fragments have, for a browser."""

import html
import re
from collections.abc import Sequence
from itertools import groupby

from progrpo.config import Config
from progrpo.report.tables.bodies import body
from progrpo.report.tables.latex import ABSENT, LEGEND, NOT_RUN, Body, Cell, Estimate, Line, best_lines, with_math
from progrpo.report.tables.layout import Column, load_layout, table_names

SYMBOLS = {"\\uparrow": "↑", "\\downarrow": "↓", "\\sigma": "σ", "\\max": "max"}

STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em; color: #222; }
table { border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; margin: .5em 0 2em; }
thead tr:last-child { border-bottom: 1px solid; }
th, td { padding: .1em .7em; text-align: right; white-space: nowrap; font-weight: normal; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
th.group { text-align: center; border-bottom: 1px solid #999; }
.text { text-align: left; } tr.block td { text-align: left; font-style: italic; padding-top: .6em; } tr.paper { color: #777; }
"""


def plain(text: str) -> str:
    """HTML of a label, whose math between dollars has symbols and roman subscripts and nothing else."""
    escaped = ((html.escape(part), is_math) for part, is_math in with_math(text))
    return "".join(
        _math(part) if is_math else part.replace(ABSENT, "·").replace("--", "–") for part, is_math in escaped
    )


def _math(text: str) -> str:
    text = re.sub(r"\\mathrm\{(\w+)\}", r"\1", text)
    for symbol, character in SYMBOLS.items():
        text = text.replace(symbol, character)
    return re.sub(r"_(?:\{(\w+)\}|(\w))", lambda match: f"<sub>{match[1] or match[2]}</sub>", text)


def _cell(cell: Cell, column: Column, bold: bool) -> str:
    if isinstance(cell, Estimate):
        text = f"{cell.mean:.{column.digits}f}".replace("-", "−") + ("*" if cell.inferred else "")
        interval = "" if cell.half_width is None else f" <small>± {cell.half_width:.{column.digits}f}</small>"
    else:
        text, interval = plain(cell), ""
    return f"<td>{f'<b>{text}</b>' if bold else text}{interval}</td>"


def _head(body: Body) -> list[str]:
    rows = []
    if any(column.group for column in body.columns):
        cells = [f'<th colspan="{len(body.leading)}"></th>']
        for group, members in groupby(body.columns, key=lambda column: column.group):
            cells.append(f'<th colspan="{len(list(members))}"{" class=group" if group else ""}>{plain(group)}</th>')
        rows.append(cells)
    leading = [f'<th class="text">{plain(text)}</th>' for text in body.leading]
    rows.append([*leading, *(f"<th>{plain(column.head)}</th>" for column in body.columns)])
    return [f"<tr>{''.join(cells)}</tr>" for cells in rows]


def _line(line: Line, body: Body, repeated: bool, bold: Sequence[str]) -> str:
    """One row; `bold` are the keys of its bold columns, `repeated` leaves out a label that stands in the row above."""
    leading = ["" if repeated else plain(line.label), html.escape(line.source), plain(line.seeds)][: len(body.leading)]
    cells = [f'<td class="text">{text}</td>' for text in leading]
    for column in body.columns:
        cells.append(_cell(line.cells.get(column.key, NOT_RUN), column, column.key in bold))
    return f"<tr{' class=paper' if line.source == 'paper' else ''}>{''.join(cells)}</tr>"


def table(body: Body) -> str:
    """One HTML table."""
    best = {column.key: best_lines(body.lines, column) for column in body.columns}
    rows, previous = [], None
    for index, line in enumerate(body.lines):
        if line.block and (previous is None or previous.block != line.block):
            rows.append(
                f'<tr class="block"><td colspan="{len(body.leading) + len(body.columns)}">{plain(line.block)}</td></tr>'
            )
        repeated = previous is not None and (previous.label, previous.block) == (line.label, line.block)
        rows.append(_line(line, body, repeated, [key for key in best if line.bold or index in best[key]]))
        previous = line
    return "\n".join(
        ['<div class="wide"><table><thead>', *_head(body), "</thead><tbody>", *rows, "</tbody></table></div>"]
    )


def page(summary: dict, config: Config) -> str:
    """A self-contained HTML page of every table in the paper's order; no date, no host."""
    layouts = {name: load_layout(name) for name in table_names()}
    title = f"Pro-GRPO: the paper's tables, tier {html.escape(config.tier)}"
    parts = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>'
    ]
    parts.append(f"<body>\n<h1>{title}</h1>\n<p>{plain(LEGEND)}</p>")
    for layout in sorted(
        (layout for layout in layouts.values() if layout.number), key=lambda layout: int(layout.number)
    ):
        parts.append(
            f"<h2>Table {layout.number}</h2>\n<p>{plain(layout.caption)}</p>\n{table(body(layout, summary, config))}"
        )
    return "\n".join([*parts, "</body></html>\n"])
