"""Which code the result of a job depends on, from the imports: a job is run again when that code decides something else.

A module counts as its syntax tree without docstrings, so comments and layout decide nothing, with the data files beside it that it
names. What it imports counts too, on top or inside a function, and what that imports, as far as it belongs to the package.
"""

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = "progrpo"


class Module(NamedTuple):
    """A module of the package: what of it decides a result, and the modules that it imports."""

    digest: str
    imports: frozenset[str]


class Code:
    """The package's source in `folder`, which holds `progrpo/`. Each file is read once: make a new object after an edit."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._paths: dict[str, Path | None] = {}
        self._trees: dict[str, ast.Module] = {}
        self._modules: dict[str, Module] = {}
        self._fingerprints: dict[frozenset[str], str] = {}

    def fingerprint(self, *entries: str) -> str:
        """16 hexadecimal digits of the code that a job depends on which begins in `entries`.

        An entry is a module, or `module:function` for a job that is one of several in a module: then only the imports count that this
        function, or one that it calls by its name, can reach; with `module:` those on top. What a table or a registry names by a
        string is an entry of its own.
        ValueError: no such module or function.
        """
        key = frozenset(entries)
        if key not in self._fingerprints:
            lines = [f"{name} {self._module(name).digest}" for name in self.modules(*entries)]
            self._fingerprints[key] = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
        return self._fingerprints[key]

    def modules(self, *entries: str) -> list[str]:
        """Names of the modules behind a fingerprint, sorted."""
        found: set[str] = set()
        partly: set[str] = set()
        waiting: list[str] = []
        for module, only, function in (entry.partition(":") for entry in entries):
            waiting += _with_packages([module]) - {module}
            if only:
                partly.add(module)
                waiting += self._imports_of(module, function)
            else:
                waiting.append(module)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self._module(name).imports
        return sorted(found | partly)

    def _module(self, name: str) -> Module:
        if name not in self._modules:
            tree = self._tree(name)
            nodes = list(ast.walk(tree))
            self._modules[name] = Module(self._digest(name, tree, nodes), frozenset(self._imports(name, nodes)))
        return self._modules[name]

    def _imports_of(self, module: str, function: str) -> set[str]:
        """What a module imports on top, in one of its functions ("": none), and in the functions and classes that this one names."""
        tree = self._tree(module)
        named = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        if function and function not in named:
            raise ValueError(f"module {module} has no function {function}")
        chosen, waiting = set(), [function] if function else []
        while waiting:
            name = waiting.pop()
            if name not in chosen:
                chosen.add(name)
                names = {node.id for node in ast.walk(named[name]) if isinstance(node, ast.Name)}
                waiting += names & set(named)
        nodes = [node for node in tree.body if node not in named.values()] + [named[name] for name in chosen]
        return self._imports(module, (part for node in nodes for part in ast.walk(node)))

    def _tree(self, name: str) -> ast.Module:
        """The syntax tree without strings that stand alone: docstrings."""
        if name in self._trees:
            return self._trees[name]
        path = self._path(name)
        if path is None:
            raise ValueError(f"no module {name} in {self.folder}")
        tree = ast.parse(path.read_text(), str(path))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                node.body = [statement for statement in node.body if not _is_docstring(statement)]
        self._trees[name] = tree
        return tree

    def _path(self, name: str) -> Path | None:
        if name not in self._paths:
            stem = self.folder.joinpath(*name.split("."))
            files = (stem.with_suffix(".py"), stem / "__init__.py")
            self._paths[name] = next((path for path in files if path.is_file()), None)
        return self._paths[name]

    def _digest(self, name: str, tree: ast.Module, nodes: Iterable[ast.AST]) -> str:
        digest = hashlib.sha256(ast.dump(tree).encode())
        folder = (self._path(name) or self.folder).parent
        words = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        for file in sorted(file for file in folder.iterdir() if file.is_file() and file.name in words):
            digest.update(file.name.encode() + file.read_bytes())
        return digest.hexdigest()

    def _imports(self, module: str, nodes: Iterable[ast.AST]) -> set[str]:
        """Modules of the package among the imports of some nodes, with the packages above them."""
        package = self._package_of(module)
        names = {name for node in nodes for name in _imported(node, package)}
        inside = _with_packages(name for name in names if name.split(".")[0] == PACKAGE)
        return {name for name in inside if self._path(name)} - {module}  # `from module import function` names no module

    def _package_of(self, module: str) -> str:
        path = self._path(module)
        return module if path is not None and path.name == "__init__.py" else module.rpartition(".")[0]


def _with_packages(names: Iterable[str]) -> set[str]:
    """Dotted names and all that they begin with: the `__init__` of a package runs before its modules."""
    split = [name.split(".") for name in names]
    return {".".join(parts[:length]) for parts in split for length in range(1, len(parts) + 1)}


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    """Dotted names that an import statement of a module of `package` may load."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
        yield from (f"{source}.{alias.name}" for alias in node.names)
