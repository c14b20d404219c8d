"""Seeded damage to data and to files, of the kinds that people and other tools do."""

import copy
import random
from typing import Any

STRINGS = (
    "",
    " ",
    "../x",
    "/tmp/x",
    "a/../../x",
    "..",
    "x" * 300,
    "é" * 200,
    "a\nb",
    "a\tb",
    "a\u2028b",
    "a\x85b",
    "a\0b",
    "\ud800",
    "\ufeffa",
    "\x1b[31m",
    "a;touch X",
    "$(touch X)",
    "a b",
    "{x}",
    "<script>",
    "\\input{x}",
    "$x_{",
    "%s",
    "-x",
    "NaN",
    "1",
    "null",
)
NUMBERS = (-1, 0, 1, 2, 0.5, -0.0, 1e-320, 1e18, 1e308, -1e308, 10**12, 10**30, 10**400, float("nan"), float("inf"))
OTHERS = (None, True, False, [], {}, [[]], [None], {"": None}, {"a": {"b": []}}, [1, "a"])


def odd_value(rng: random.Random) -> Any:
    """A value that is seldom expected where it stands."""
    return copy.deepcopy(rng.choice(rng.choice((STRINGS, NUMBERS, OTHERS))))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside a value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [(value, key) for key in keys] + [place for key in keys for place in _places(value[key])]


def mutate_data(value: Any, rng: random.Random) -> Any:
    """A copy of JSON-like data with one to three changes: replaced, removed, doubled, retyped, renamed or added values."""
    value = {"": copy.deepcopy(value)}
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = _places(value)
        if not places:
            break
        container, key = rng.choice(places)
        kind = rng.randrange(6)
        if kind == 1 and len(places) > 1:
            del container[key]
        elif kind == 2 and isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        elif kind == 3:
            container[key] = str(container[key]) if not isinstance(container[key], str) else [container[key]]
        elif kind == 4 and isinstance(container, dict) and "" not in container:
            container[rng.choice(STRINGS)] = container.pop(key)
        elif kind == 5 and isinstance(container[key], dict):
            container[key][rng.choice(STRINGS)] = odd_value(rng)
        else:
            container[key] = odd_value(rng)
    return value.get("", odd_value(rng))


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """A file's bytes as editors, other systems and interrupted copies leave them."""
    at = rng.randrange(len(data) + 1)
    text = data.decode(errors="replace")
    return rng.choice(
        (
            lambda: data[:at],
            lambda: data[at:],
            lambda: b"",
            lambda: data[:at] + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 5))) + data[at + 1 :],
            lambda: data[:at] + rng.choice((b"\0", b"\n", b'"', b"{", b"]", b"\xff", b"\x1a", b"\t", b",")) + data[at:],
            lambda: b"\xef\xbb\xbf" + data,
            lambda: text.replace("\n", "\r\n").encode(),
            lambda: text.replace("\n", "\n\n").encode(),
            lambda: text.encode(rng.choice(("utf-16", "utf-16-le", "utf-32"))),
            lambda: text.replace("\n", "\r").encode(),
            lambda: text.replace(" ", "\u2028").encode(),
            lambda: data[:at] + data[:at] + data[at:],
            lambda: b"[" * 3000 + data,
            lambda: bytes(rng.randrange(256) for _ in range(200)),
        )
    )()
