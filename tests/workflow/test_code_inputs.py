"""Fingerprints of code: another one exactly when what a job runs decides something else."""

import ast
from pathlib import Path

import pytest

from checkout import ROOT
from progrpo.workflow.code_inputs import Code

SOURCES = {
    "__init__": "",
    "job": "from progrpo.parts import tool\n\ndef run():\n    return tool.work(1)\n",
    "parts/__init__": "",
    "parts/tool": "LIMIT = 2\n\ndef work(x):\n    from progrpo.late import half\n    return half(x) + LIMIT\n",
    "late": "import math\n\n\ndef half(x):\n    return x / 2\n",
    "unused": "def nothing():\n    return 0\n",
    "plugin": "from .parts import tool\nFILE = 'words.txt'\n",
    "actions": (
        "def first():\n    return _helper()\n\ndef _helper():\n    from progrpo import late\n    return late\n\n"
        "def second():\n    from progrpo import unused\n    return unused\n\nTABLE = {'first': first, 'second': second}\n"
    ),
}


@pytest.fixture
def source(tmp_path) -> Path:
    for name, text in SOURCES.items():
        path = tmp_path / "progrpo" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "progrpo" / "words.txt").write_text("a\nb\n")
    return tmp_path


def changed_by(source: Path, name: str, old: str, new: str, *entries: str) -> bool:
    """Whether a replacement in a module changes the fingerprint of entries."""
    before = Code(source).fingerprint(*entries)
    path = source / "progrpo" / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    return Code(source).fingerprint(*entries) != before


def test_imports_are_followed_through_packages_and_into_functions(source):
    found = Code(source).modules("progrpo.job")
    assert found == ["progrpo", "progrpo.job", "progrpo.late", "progrpo.parts", "progrpo.parts.tool"]
    assert Code(source).modules("progrpo.plugin") == [*found[:1], *found[2:], "progrpo.plugin"]  # a relative import


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("parts/tool.py", "LIMIT = 2", "LIMIT = 3"),
        ("late.py", "x / 2", "x // 2"),
        ("late.py", "import math", "import cmath"),
        ("parts/__init__.py", "", "import math"),
    ],
)
def test_a_change_of_what_is_reached_changes_the_fingerprint(source, name, old, new):
    assert changed_by(source, name, old, new, "progrpo.job")


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("late.py", "import math\n\n\n", "import math\n"),
        ("late.py", "return x / 2", '"""Half of x."""\n    return (\n        x / 2  # exact\n    )'),
        ("parts/tool.py", "LIMIT = 2", '"""A tool."""\nLIMIT = 2'),
        ("unused.py", "return 0", "return 1"),
        ("actions.py", "'first'", "'third'"),
    ],
)
def test_comments_docstrings_layout_and_other_modules_do_not(source, name, old, new):
    assert not changed_by(source, name, old, new, "progrpo.job")


def test_a_data_file_that_a_module_names_counts(source):
    assert changed_by(source, "words.txt", "b", "c", "progrpo.plugin")
    assert not changed_by(source, "words.txt", "c", "d", "progrpo.job")


def test_one_function_of_a_module_counts_what_it_reaches(source):
    code = Code(source)
    assert code.modules("progrpo.actions:first") == ["progrpo", "progrpo.actions", "progrpo.late"]
    assert code.modules("progrpo.actions:second") == ["progrpo", "progrpo.actions", "progrpo.unused"]
    assert code.modules("progrpo.actions:") == ["progrpo", "progrpo.actions"]
    both = code.modules("progrpo.actions:first", "progrpo.actions:second")
    assert both == code.modules("progrpo.actions") == ["progrpo", "progrpo.actions", "progrpo.late", "progrpo.unused"]
    assert changed_by(source, "actions.py", "return _helper()", "return 1", "progrpo.actions:second")


@pytest.mark.parametrize("entry", ["progrpo.jop", "progrpo.job:walk"])
def test_a_wrong_entry_is_an_error(source, entry):
    with pytest.raises(ValueError, match=entry.split(".")[-1].split(":")[-1]):
        Code(source).fingerprint(entry)


def test_a_training_reaches_what_trains_and_nothing_that_evaluates_or_draws():
    code = Code(ROOT / "code")
    found = set(code.modules("progrpo.jobs.train"))
    grpo = {f"progrpo.grpo.{path.stem}" for path in (ROOT / "code/progrpo/grpo").glob("[a-z]*.py")}
    assert grpo | {"progrpo.jobs.train", "progrpo.jobs.loading", "progrpo.config", "progrpo.files"} <= found
    far = ("cli", "commands", "report", "analysis", "cost", "miniature", "benchmarks.geneval", "rewards.hpsv2")
    assert not [name for name in found if name.startswith(tuple(f"progrpo.{part}" for part in far))]
    assert "progrpo.rewards.hf_clip_model" in code.modules("progrpo.jobs.train", "progrpo.rewards.pickscore")


def test_nothing_else_is_imported_by_a_string():
    """A string escapes the walk, so each place that imports by one must name its entries to the workflow."""
    places = set()
    for path in (ROOT / "code/progrpo").rglob("*.py"):
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        if names & {"import_module", "__import__", "run_module", "spec_from_file_location"}:
            places.add(str(path.relative_to(ROOT / "code/progrpo")))
    assert places == {"__init__.py", "cli.py", "plugins.py"}  # nothing inside uses the first: test_examples.py
