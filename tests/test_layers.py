"""Which part of the package may import which: downwards only, and the mathematics knows neither networks nor files."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "code" / "progrpo"
BASE = "base"  # the modules that stand in progrpo/ itself
LAYERS = (  # a package imports from the layers below its own, and never from a neighbour
    {BASE},
    {"rewards"},
    {"benchmarks", "grpo"},
    {"cost", "jobs", "miniature", "weights"},
    {"analysis", "pieces", "rehearsal"},
    {"report", "workflow"},
    {"commands"},
    {"cli"},
)
HEIGHT = {name: height for height, layer in enumerate(LAYERS) for name in layer}
PURE = ("grpo/samplers.py", "grpo/ovf.py", "grpo/objective.py", "cost/flops.py", "analysis")  # of numbers and tensors
OF_PURE = {"progrpo.analysis", "progrpo.cost.flops", "progrpo.errors", "progrpo.grpo.ovf", "progrpo.grpo.samplers"}
OF_PURE |= {"progrpo.paper_runs", "progrpo.rank_correlation", "numpy", "scipy", "torch"}
FILES = {"io", "json", "os", "pathlib", "pickle", "shutil", "tempfile"}


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, module) of everything that a file imports, inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            inner = PACKAGE.parent.joinpath(*module.split(".")).is_dir()
            names = [f"{module}.{alias.name}" for alias in node.names] if inner else [module]
            found += [(node.lineno, name) for name in names]
    return found


def place(parts: tuple[str, ...]) -> str:
    """The package of a module of progrpo, BASE for one of none, cli for the command line."""
    name = parts[0].removesuffix(".py")
    return name if (PACKAGE / name).is_dir() or name == "cli" else BASE


def test_every_package_has_a_layer():
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages | {BASE, "cli"} == set(HEIGHT)


def test_no_import_goes_upwards():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        own = place(path.relative_to(PACKAGE).parts)
        for line, module in imports(path):
            parts = tuple(module.split("."))
            if parts[0] == "progrpo" and len(parts) > 1:
                other = place(parts[1:])
                if other != own and HEIGHT[other] >= HEIGHT[own]:
                    wrong.append(f"{path.relative_to(PACKAGE)}:{line} ({own}) imports {module} ({other})")
    assert not wrong, "\n".join(wrong)


def test_no_modules_form_a_circle():
    """Imports inside functions count too; those for types alone stand in a block of their own and do not."""
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    graph = {}
    for name, path in names.items():
        typed = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.If) and is_typing(node)]
        lines = {line for node in typed for line in range(node.lineno, node.end_lineno + 1)}
        graph[name] = {module for line, module in imports(path) if module in names and line not in lines}
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph) > 100


def is_typing(node: ast.If) -> bool:
    return ast.unparse(node.test) == "TYPE_CHECKING"


@pytest.mark.parametrize("name", PURE)
def test_the_mathematics_knows_no_network_no_file_and_no_configuration(name):
    files = sorted((PACKAGE / name).rglob("*.py")) if (PACKAGE / name).is_dir() else [PACKAGE / name]
    for path in files:
        for line, module in imports(path):
            allowed = any(module == known or module.startswith(f"{known}.") for known in OF_PURE)
            allowed |= module.partition(".")[0] in sys.stdlib_module_names - FILES
            assert allowed, f"{path.relative_to(PACKAGE)}:{line} imports {module}"
