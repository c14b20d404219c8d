"""What was measured or named by somebody is text in every output: LaTeX, HTML and figures set it and never run it."""

import html
import json
import shutil
import subprocess

import numpy as np
import pytest
from matplotlib.figure import Figure

from progrpo.cli import main
from progrpo.errors import UserError
from progrpo.report import figures
from progrpo.report.schema import Summary
from progrpo.report.tables.latex import ABSENT, Body, Estimate, Line, escape, fragment, literal
from progrpo.report.tables.layout import Column
from progrpo.report.tables.page import table
from progrpo.typed import check

HOSTILE = (
    "\\input{/etc/passwd}",
    "100% & #1_{x}^2~$x_{$\\",
    "<script>alert(1)</script>",
    "a\nb\x1b[31m",
    "\\end{tabular}\\immediate\\write18{touch X}",
)
COLUMN = Column(key="k", head="Seconds", digits=1, better="none")


def body(name: str) -> Body:
    return Body((COLUMN,), [Line("label", {"k": Estimate(1.0)}, source=name, seeds=name)])


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_in_a_table_is_text(name):
    tex = fragment(Body((COLUMN,), body(name).lines, leading=("Method", "")), [])
    assert literal(name) in tex
    assert "\\input" not in tex
    assert "\\write" not in tex
    page = table(body(name))
    assert "<script" not in page
    assert html.escape(name) in page


@pytest.mark.parametrize(
    "name", [*HOSTILE, "$\\input{/etc/passwd}$", "$}{$", "a $5", "~^{}", "$^^5cinput{/etc/passwd}$"]
)
def test_a_label_runs_no_command_but_those_of_the_tables_math(name):
    tex = fragment(Body((COLUMN,), [Line(name, {"k": Estimate(1.0)}, block=name)]), [])
    assert tex.count(literal(name)) == 2  # as label and as block
    assert escape(name) == literal(name)
    assert escape("$G_{\\max}=32$ & more") == "$G_{\\max}=32$ \\& more"
    assert escape(ABSENT) == ABSENT


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_sets_hostile_names(tmp_path):
    text = "\\par\n".join(literal(name) for name in HOSTILE)
    source = f"\\documentclass{{article}}\\usepackage[T1]{{fontenc}}\\begin{{document}}{text}\\end{{document}}"
    (tmp_path / "a.tex").write_text(source)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
    assert not (tmp_path / "X").exists()


@pytest.mark.parametrize("name", ["$x_{", "$\\frac$", "a $5 b $6", "\\input{x}"])
def test_a_name_in_a_figure_is_no_formula(name, tmp_path):
    grid = figures.draw_grid(np.zeros((1, 1, 4, 4, 3), "uint8"), [name], [name])
    curves = figures.draw_training_curves({name: [[{"reward": 1.0}] * 3]}, ("reward",))
    for figure in (grid, curves):
        assert isinstance(figure, Figure)
        assert len(figures.save(figure, tmp_path / "x")) == 2


def test_a_count_in_a_summary_is_a_number():
    estimate = {"mean": 1.0, "low": None, "high": None, "std": None, "n": 1, "seeds": {"0": 1.0}}
    summary = {"tier": "t", "evaluations": {"r": {"m": estimate}}, "training": {}, "analysis": {}, "hardware": {}}
    check(Summary, summary, "s")
    for key, value in (
        ("n", "<script>"),
        ("n", 0),
        ("mean", 1e308),
        ("mean", "1"),
        ("seeds", {"<b>": 1.0}),
        ("low", []),
    ):
        bad = {**summary, "evaluations": {"r": {"m": {**estimate, key: value}}}}
        with pytest.raises(UserError, match=rf"^s: evaluations\.r\.m\.{key}"):
            check(Summary, bad, "s")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x80\x04K\x01.", b"\x93NUMPY"])
def test_what_is_no_npz_is_one_line(data, tmp_path, capsys):
    (tmp_path / "a.npz").write_bytes(data)
    command = ["figures", "--figure", "qualitative", "--data", str(tmp_path / "a.npz"), "--out", str(tmp_path / "f")]
    assert main(command) == 2
    assert capsys.readouterr().err.count("\n") == 1
    np.savez(tmp_path / "a.npz", images=np.array([object()]), prompts=np.array(["a"]))
    assert main(command) == 2
    assert "not an .npz file of plain arrays" in capsys.readouterr().err
    np.savez(tmp_path / "a.npz", images=np.zeros((1, 1, 2, 2, 3)), prompts=np.array(["a"]))
    assert main(command) == 2
    assert "images: missing, empty or of another type" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_json_of_another_kind_is_named(tmp_path, capsys):
    path = tmp_path / "a.json"
    for value in ([], 1, {"curves": 1}, {"steps": 0}):
        path.write_text(json.dumps(value))
        for figure in ("fig2", "fig6", "pilot"):
            assert main(["figures", "--figure", figure, "--data", str(path), "--out", str(tmp_path / "f")]) == 2
            assert "a.json: " in capsys.readouterr().err
