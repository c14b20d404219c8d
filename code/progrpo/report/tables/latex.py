"""Booktabs fragments from lines of cells: nothing here knows what the numbers mean."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby

from progrpo.report.tables.layout import Column

MEASURED = "measured"  # the source of a line whose numbers are means over seeds
NOT_RUN = "--"  # no such measurement in this tier
UNKNOWN = "?"  # the paper has a number here that could not be recovered
ABSENT = "\\textperiodcentered"  # the paper leaves this cell empty

LEGEND = f"""Each row gives the paper's number and the measured one, or -- where nothing was run in this tier. In paper rows ? marks a
number that could not be recovered, {ABSENT}, a dot, a cell that the paper leaves empty, and * a number whose place in the table
is our inference. Intervals are 95 per cent over seeds.
The miniature tiers have miniature models and scorers, and prune at the paper's share of their T: compare their rows with each other,
not with the paper's. Table 4 of the main paper is Table 10."""  # in LaTeX


@dataclass(frozen=True)
class Estimate:
    """A mean over n seeds with the half-width of its 95 % interval, which one seed does not have.

    inferred: a number of the paper whose place in the table is a guess; it is marked, and never the best.
    """

    mean: float
    half_width: float | None = None
    n: int = 1
    inferred: bool = False


Cell = Estimate | str  # a number, or text, which may hold math as a label may


@dataclass(frozen=True)
class Line:
    """One printed line; cells by column key. Lines of one block and one source compete for bold."""

    label: str
    cells: dict[str, Cell]
    source: str = ""
    seeds: str = ""
    block: str = ""
    bold: bool = False
    ranked: bool = True


@dataclass(frozen=True)
class Body:
    """Columns and lines of a fragment; `leading` are the heads of its text columns: label, then source, then seeds."""

    columns: Sequence[Column]
    lines: list[Line] = field(default_factory=list)
    leading: tuple[str, ...] = ("Model", "", "Seeds")


SPECIAL = {character: "\\" + character for character in "&%$#_{}"} | {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
}


def literal(text: str) -> str:
    """Text that was measured or configured, such as the name of a device, so that LaTeX sets it and never runs it."""
    return "".join(SPECIAL.get(c, c) if c.isprintable() else "?" for c in text)


# Math of a label: few commands, braces, and what is no command.
MATH = re.compile(r"(?:\\(?:uparrow|downarrow|sigma|max|mathrm)(?![A-Za-z])|[A-Za-z0-9 (){}_=<>+\-.,/|])*")


def escape(text: str) -> str:
    """A label of `paper_tables/expected`: text, and between dollars math of the commands that the tables use; all else is text."""
    if text == ABSENT:
        return text
    return "".join(f"${part}$" if is_math else literal(part) for part, is_math in with_math(text))


def with_math(text: str) -> list[tuple[str, bool]]:
    """(part, whether it is math) of a label: what stands between dollars, if all of it is math that the tables use."""
    parts = text.split("$")
    formulas = parts[1::2]
    if len(parts) % 2 == 0 or not all(MATH.fullmatch(part) and _is_balanced(part) for part in formulas):
        return [(text, False)]
    return [(part, bool(number % 2)) for number, part in enumerate(parts)]


def _is_balanced(text: str) -> bool:
    depths = list(accumulate({"{": 1, "}": -1}.get(character, 0) for character in text))
    return min(depths, default=0) >= 0 and sum(depths[-1:]) == 0


def number(value: float, digits: int) -> str:
    """A decimal with a real minus sign; never a negative zero."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return f"$-${text[1:]}" if text.startswith("-") else text


def _cell(cell: Cell, column: Column, bold: bool) -> str:
    if isinstance(cell, str):
        return f"\\textbf{{{escape(cell)}}}" if bold else escape(cell)
    text = number(cell.mean, column.digits)
    text = (f"\\textbf{{{text}}}" if bold else text) + ("*" if cell.inferred else "")
    if cell.half_width is None:
        return text
    return f"{text} {{\\scriptsize$\\pm$ {number(cell.half_width, column.digits)}}}"


def best_lines(lines: Sequence[Line], column: Column) -> set[int]:
    """Indices of a column's bold lines: per block and source the best printed number, where two or more compete.

    Of measured lines only one whose interval lies clear of every other's: a mean within another's error is no best.
    """
    if column.better == "none":
        return set()
    sign = 1 if column.better == "high" else -1
    rivals: dict[tuple[str, str], dict[int, Estimate]] = {}
    for index, line in enumerate(lines):
        cell = line.cells.get(column.key)
        if line.ranked and isinstance(cell, Estimate) and not cell.inferred:
            rivals.setdefault((line.block, line.source), {})[index] = cell
    best = set()
    for (_, source), cells in rivals.items():
        values = {index: sign * round(cell.mean, column.digits) for index, cell in cells.items()}
        first = {index for index, value in values.items() if value == max(values.values())}
        if len(values) > 1 and (source != MEASURED or _clear(cells, first.copy().pop(), sign)):
            best |= first
    return best


def _clear(cells: dict[int, Estimate], first: int, sign: int) -> bool:
    """Whether the interval of the first of some lines lies beyond every other's; of one seed, without interval, never."""
    half = cells[first].half_width
    if half is None:
        return False
    others = [cell for index, cell in cells.items() if index != first]
    return all(sign * cells[first].mean - half > sign * cell.mean + (cell.half_width or 0.0) for cell in others)


def _group_heads(body: Body) -> list[str]:
    if not any(column.group for column in body.columns):
        return []
    cells, rules, position = [""] * len(body.leading), [], len(body.leading)
    for group, members in groupby(body.columns, key=lambda column: column.group):
        width = len(list(members))
        cells.append(f"\\multicolumn{{{width}}}{{c}}{{{escape(group)}}}" if group else " & ".join([""] * width))
        if group:
            rules.append(f"\\cmidrule(lr){{{position + 1}-{position + width}}}")
        position += width
    return [" & ".join(cells) + " \\\\", " ".join(rules)]


def _text_cells(line: Line, previous: Line | None, leading: int) -> list[str]:
    repeated = previous is not None and (previous.label, previous.block) == (line.label, line.block)
    cells = ["" if repeated else escape(line.label), literal(line.source), line.seeds]
    return cells[:leading]


def fragment(body: Body, comments: Sequence[str]) -> str:
    """A bare `tabular` with booktabs rules; `comments` are its first lines, each set behind a percent sign."""
    width = len(body.leading) + len(body.columns)
    text_columns = "l" * min(2, len(body.leading)) + "r" * max(0, len(body.leading) - 2)
    rows = [
        f"\\begin{{tabular}}{{@{{}}{text_columns}{'r' * len(body.columns)}@{{}}}}",
        "\\toprule",
        *_group_heads(body),
    ]
    rows.append(" & ".join([*body.leading, *(escape(column.head) for column in body.columns)]) + " \\\\")
    rows.append("\\midrule")
    best = {column.key: best_lines(body.lines, column) for column in body.columns}
    previous = None
    for index, line in enumerate(body.lines):
        if line.block and (previous is None or previous.block != line.block):
            rows += ["\\addlinespace"] if previous is not None else []
            rows.append(f"\\multicolumn{{{width}}}{{@{{}}l}}{{\\emph{{{escape(line.block)}}}}} \\\\")
        cells = _text_cells(line, previous, len(body.leading))
        for column in body.columns:
            cell = line.cells.get(column.key, NOT_RUN)
            cells.append(_cell(cell, column, line.bold or index in best[column.key]))
        rows.append(" & ".join(cells) + " \\\\")
        previous = line
    rows += ["\\bottomrule", "\\end{tabular}"]
    return "\n".join([*(f"% {comment}" for comment in comments), *rows]) + "\n"
