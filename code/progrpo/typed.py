"""Data from outside gets a type at the edge: YAML read once, shapes checked by pydantic, mistakes told in one line."""

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from progrpo.errors import UserError
from progrpo.files import read_json, read_text

LARGEST = 1e18  # beyond any measured quantity here; sums and squares of such numbers stay finite
MOST_NODES = 10**6  # of a YAML file with its aliases written out

Number = Annotated[float, Field(strict=True, ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0, le=10**12)]
NAME, PATH = r"^[A-Za-z0-9_][A-Za-z0-9_-]*$", r"^[^\x00-\x1f\x7f{}<>-][^\x00-\x1f\x7f{}<>]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=100)]  # a file name, a word of a shell
SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]  # in the manifest
PathText = Annotated[str, Field(pattern=PATH, max_length=1000)]  # no wildcard


@cache
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind)


def check(kind: Any, value: Any, where: Path | str) -> Any:
    """`value` as pydantic reads it for a type; UserError begins with `where` and names the first key that is wrong."""
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error)}") from None


def read_checked(kind: Any, path: Path | str) -> Any:
    """The JSON of a file as it stands, when it has the shape of a type; UserError names file and key."""
    value = read_json(path)
    check(kind, value, path)
    return value


def explain(error: ValidationError) -> str:
    """The first complaint of pydantic in one line: the key, and what is wrong with it."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part)[:60] for part in first["loc"] if not str(part).startswith("function-"))  # pydantic's own
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in ("model_type", "dict_type"):
        message = f"expected a mapping of keys, found {type(first['input']).__name__}"
    if first["type"] == "extra_forbidden":
        message = "unknown key; remove it or correct its spelling"
    if first["type"] == "string_pattern_mismatch":
        given = str(first["input"])[:60]
        allowed = {
            NAME: "names are letters, digits, - and _",
            PATH: "paths hold no control characters or braces, and begin with no -",
        }
        pattern = first.get("ctx", {}).get("pattern")
        message = f"{given!r} is not allowed here; {allowed.get(str(pattern), f'it must match {pattern}')}"
    return f"{key + ': ' if key else ''}{message}"


def require_numbers(given: Any, read: Any, key: str, path: Path | str) -> None:
    """UserError where a number was read from a truth value, or a whole number from text, as pydantic does without a word.

    A fraction may be text: YAML takes 1e-3 for that.
    """
    if isinstance(given, dict):
        for name in given:  # of a section that is only written where it departs from its defaults, nothing was read
            require_numbers(given[name], read.get(name) if read else None, f"{key}.{name}", path)
    elif isinstance(given, list):
        for one, other in zip(given, read, strict=True):
            require_numbers(one, other, key, path)
    elif type(read) in ((int, float) if isinstance(given, bool) else (int,)) and isinstance(given, bool | str):
        raise UserError(f"{path}: {key.removeprefix('.')}: {str(given)[:60]!r} is no number")


class _Loader(yaml.SafeLoader):
    """Plain data only; a key that stands twice is an error, since one of the two would be dropped without a word.

    12:30 and 010 are text; YAML 1.1 reads the one in base 60, as 750, and the other in base 8, as 8.
    """

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        if ":" in node.value or re.fullmatch(r"[-+]?0[0-9_]+", node.value):
            return node.value
        kind = node.tag.rpartition(":")[2]
        return self.construct_yaml_int(node) if kind == "int" else self.construct_yaml_float(node)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return node


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)


def read_yaml(path: Path | str) -> Any:
    """The data of a YAML file; UserError, with the line where it can be told, for anything that is not plain YAML."""
    text = read_text(path)
    try:
        data = yaml.load(text, _Loader)  # noqa: S506  (a SafeLoader)
        _require_small(data, {}, set())
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {error.problem or error.context}") from None
    except Exception as error:  # PyYAML's constructors raise half a dozen kinds for odd scalars
        raise UserError(
            f"{path}: not valid YAML: {' '.join(str(error).split())[:200] or type(error).__name__}"
        ) from None
    return data


def _require_small(value: Any, sizes: dict[int, int], above: set[int]) -> int:
    """Number of nodes with aliases written out; ValueError for data that contains itself or is too large to write out."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) in above:
        raise ValueError("an alias refers to what contains it")
    if id(value) not in sizes:
        items = value.values() if isinstance(value, dict) else value
        sizes[id(value)] = 1 + sum(_require_small(item, sizes, above | {id(value)}) for item in items)
        if sizes[id(value)] > MOST_NODES:
            raise ValueError(f"more than {MOST_NODES} values with its aliases written out")
    return sizes[id(value)]
