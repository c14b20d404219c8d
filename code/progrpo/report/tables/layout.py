"""The layout of a table and the paper's numbers in it: `paper_tables/expected/*.yaml`, read and checked."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from progrpo.errors import UserError
from progrpo.typed import check, read_yaml

EXPECTED = Path("paper_tables/expected")
Certainty = Literal["stated", "notes2", "notes1", "inferred"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(_Part):
    """One column of numbers; `better` says which end is set in bold."""

    key: str
    head: str
    group: str = ""
    digits: int
    better: Literal["high", "low", "none"]


class Sourced(_Part):
    """A paper number whose certainty or source differs from its table's."""

    value: float
    certainty: Certainty
    source: str


class Row(_Part):
    """A model, schedule or component. `paper`: column -> entry, or a list; `absent`: columns the paper leaves empty."""

    key: str
    label: str
    block: str = ""
    paper: dict[str, Sourced | bool | float | str] | list[bool | float | str]
    absent: tuple[str, ...] = ()

    def paper_value(self, column: str) -> float | str | None:
        """The paper's entry of a column, or None when it is not known."""
        value = self.paper.get(column) if isinstance(self.paper, dict) else None
        return value.value if isinstance(value, Sourced) else value

    def is_inferred(self, column: str) -> bool:
        """Whether the entry's place in the table is a guess (`paper_tables/expected/README.md`)."""
        value = self.paper.get(column) if isinstance(self.paper, dict) else None
        return isinstance(value, Sourced) and value.certainty == "inferred"


class RunColumn(_Part):
    """A run whose settings are one column of a hyper-parameter table."""

    key: str
    label: str


class Macro(_Part):
    """A number for prose: a cell of a table, or its difference to the same cell of row `over`."""

    name: str
    table: str
    row: str
    column: str
    over: str | None = None


class Layout(_Part):
    """One table of the paper, or (kind `numbers`) the list of macros."""

    kind: Literal["evaluations", "settings", "pilot", "flops", "wall_clock", "numbers"]
    number: str = ""
    caption: str = ""
    source: str
    certainty: Certainty = "stated"
    family: Literal["flow", "diffusion"] | None = None
    columns: tuple[Column, ...] = ()
    runs: tuple[RunColumn, ...] = ()
    rows: tuple[Row, ...] = ()
    macros: tuple[Macro, ...] = ()


def table_names(folder: Path = EXPECTED) -> list[str]:
    """Names of all tables: the files of the folder, `numbers` last."""
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    return sorted(names, key=lambda name: (name == "numbers", name))


def load_layout(name: str, folder: Path = EXPECTED) -> Layout:
    """The layout called `name`; UserError lists the known ones, or names the first key that is wrong."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise UserError(
            f"--table {name}: no such table; known: {', '.join(table_names(folder)) or f'none in {folder}'}"
        )
    return check(Layout, read_yaml(path), path)


ANALYSED = {"pilot": "pruning_pilot", "flops": "flops"}  # kind of table -> the analysis that it shows


def reads(layout: Layout) -> set[tuple[str, str]]:
    """What the cells of a table are measured in: (row, prompt set or analysis), the row empty where an analysis is the table.

    Nothing for tables that are made of settings or wall clocks.
    """
    if layout.kind in ANALYSED:
        return {("", ANALYSED[layout.kind])}
    cells = {(macro.row, macro.column) for macro in layout.macros}
    cells |= {(macro.over, macro.column) for macro in layout.macros if macro.over}
    if layout.kind == "evaluations":
        cells |= {(row.key, column.key) for row in layout.rows for column in layout.columns}
    return {(row, column.partition(".")[0]) for row, column in cells}
