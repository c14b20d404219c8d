"""The prompts of the miniature world: GenEval-format records, no two with one meaning, a part of each tag held out.

A clause has GenEval's keys (class, count, color, position) and two of its own: `texture`, and `place`, a phrase that
names the grid cells in which its objects may lie. What a clause leaves open is free: its objects are drawn in random
colours, solid, and anywhere, and the checker accepts any colour, any texture and any cell.
"""

import functools
import itertools
import random

CLASSES = ("circle", "square", "triangle", "diamond", "cross", "ring")
COLORS = ("red", "green", "blue", "yellow", "purple", "black")
TEXTURES = ("solid", "striped", "barred", "checkered")  # prompts name all but the first
RELATIONS = ("left of", "right of", "above", "below")
TAGS = ("single_object", "colors", "two_object", "counting", "color_attr", "position", "texture")
NUMBERS = {2: "two", 3: "three", 4: "four"}
HELD_OUT_SHARE = 0.25
HELD_OUT_AIM, TRAINING_LEAST = 210, 300  # small tags hold out more than the share, but keep so many for training
SPLIT_SEED = 2512

Cell = tuple[int, int]
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "middle", "right")


def _places() -> dict[str, frozenset[Cell]]:
    cells = frozenset(itertools.product(range(3), range(3)))
    corners = frozenset(itertools.product((0, 2), (0, 2)))
    places = {f"in the {_ROWS[r]} {_COLUMNS[c]}": frozenset({(r, c)}) for r, c in sorted(cells - {(1, 1)})}
    places |= {f"in the {name} row": frozenset((r, c) for c in range(3)) for r, name in enumerate(_ROWS)}
    places |= {f"in the {name} column": frozenset((r, c) for r in range(3)) for c, name in enumerate(_COLUMNS)}
    places |= {"in the middle": frozenset({(1, 1)}), "outside the middle": cells - {(1, 1)}}
    return places | {"in a corner": corners, "outside the corners": cells - corners}


PLACES = _places()  # phrase -> the cells (row, column) that it names


def plural(name: str) -> str:
    """The plural of a class."""
    return name + ("es" if name.endswith("s") else "s")


def noun_phrase(clause: dict) -> str:
    """What a clause says of its objects, without place and relation: "a striped red circle", "three rings"."""
    name = plural(clause["class"]) if clause["count"] > 1 else clause["class"]
    words = (NUMBERS.get(clause["count"], "a"), clause.get("texture"), clause.get("color"), name)
    return " ".join(word for word in words if word)


def _clause(name: str, color: str | None = None, texture: str | None = None, count: int = 1, **others) -> dict:
    attributes = {"color": color, "texture": texture, **others}
    return {"class": name, "count": count, **{key: value for key, value in attributes.items() if value}}


def _record(tag: str, *include: dict) -> dict:
    """The record of one object with or without a place, of several, or of a reference and a subject, with its prompt."""
    phrases = [noun_phrase(clause) for clause in include]
    prompt = " and ".join(phrases)
    if "position" in include[-1]:
        prompt = f"{phrases[1]} {include[1]['position'][0]} {phrases[0]}"
    elif "place" in include[0]:
        prompt = f"{prompt} {include[0]['place']}"
    return {"tag": tag, "include": list(include), "prompt": prompt}


def _single_objects() -> list[dict]:
    """One object of any colour, its texture or its place given or not."""
    kinds = itertools.product(CLASSES, (None, *TEXTURES[1:]), (None, *PLACES))
    return [_record("single_object", _clause(c, texture=t, place=p)) for c, t, p in kinds]


def _colors() -> list[dict]:
    """One coloured object, its place given or not."""
    kinds = itertools.product(COLORS, CLASSES, (None, *PLACES))
    return [_record("colors", _clause(c, k, place=p)) for k, c, p in kinds]


def _two_objects(rng: random.Random) -> list[dict]:
    """Two objects of different classes; each has a colour, a texture or neither, and not both the same of these."""
    looks: list[dict] = [{}, *({"color": k} for k in COLORS), *({"texture": t} for t in TEXTURES[1:])]
    pairs = [(a, b) for a, b in itertools.product(looks, looks) if not (a and a.keys() == b.keys())]
    return [
        _record("two_object", *_shuffled([_clause(c, **a), _clause(d, **b)], rng))
        for c, d in itertools.combinations(CLASSES, 2)
        for a, b in pairs
    ]


def _countings() -> list[dict]:
    """Two to four objects of a class, their colour and texture given or not."""
    kinds = itertools.product(NUMBERS, CLASSES, (None, *COLORS), (None, *TEXTURES[1:]))
    return [_record("counting", _clause(c, k, t, count=n)) for n, c, k, t in kinds]


def _color_attributes(rng: random.Random) -> list[dict]:
    """Two coloured objects that differ in class or colour."""
    pairs = itertools.combinations(itertools.product(COLORS, CLASSES), 2)
    return [_record("color_attr", *_shuffled([_clause(c, k), _clause(d, m)], rng)) for (k, c), (m, d) in pairs]


def _positions(rng: random.Random) -> list[dict]:
    """Two coloured objects in a relation, said from either object's side: "left of" or its converse "right of"."""
    records = []
    for ((k, c), (m, d)), side in itertools.product(
        itertools.permutations(itertools.product(COLORS, CLASSES), 2), (0, 2)
    ):
        first, second, relation = _clause(c, k), _clause(d, m), RELATIONS[side]
        if rng.random() < 0.5:
            first, second, relation = second, first, RELATIONS[side + 1]
        records.append(_record("position", second, first | {"position": [relation, 0]}))
    return records


def _textures(rng: random.Random) -> list[dict]:
    """One textured and coloured object, or two textured ones of different classes, at most one of them coloured."""
    textured = list(itertools.product(CLASSES, TEXTURES[1:]))
    colors = [(None, None), *((k, None) for k in COLORS), *((None, k) for k in COLORS)]
    single = [_record("texture", _clause(c, k, t)) for (c, t), k in itertools.product(textured, COLORS)]
    return single + [
        _record("texture", *_shuffled([_clause(c, k, t), _clause(d, m, u)], rng))
        for (c, t), (d, u) in itertools.combinations(textured, 2)
        for k, m in colors
        if c != d
    ]


def _shuffled(clauses: list[dict], rng: random.Random) -> list[dict]:
    """The two clauses in random order: "a and b" means "b and a", so a world of distinct prompts has one of the two."""
    return clauses if rng.random() < 0.5 else clauses[::-1]


def all_records(tag: str) -> list[dict]:
    """Every record of one tag, no two with one meaning, in a fixed order; ValueError: no such tag.

    The reference object of a position record is `include[0]`, as in GenEval.
    """
    makers = {"single_object": _single_objects, "colors": _colors, "counting": _countings}
    ordered = {
        "two_object": _two_objects,
        "color_attr": _color_attributes,
        "position": _positions,
        "texture": _textures,
    }
    if tag in makers:
        return makers[tag]()
    if tag in ordered:
        return ordered[tag](random.Random(f"{SPLIT_SEED}-order-{tag}"))
    raise ValueError(f"unknown tag {tag!r}; known: {', '.join(TAGS)}")


@functools.cache
def records_by_prompt() -> dict[str, dict]:
    """The record of every prompt of the world."""
    return {record["prompt"]: record for tag in TAGS for record in all_records(tag)}


def split_records(tag: str) -> tuple[list[dict], list[dict]]:
    """(training, held-out) records of a tag; no model is trained on a held-out meaning.

    A quarter is held out, or 210 records where a quarter is less and 300 are left for training.
    """
    records = all_records(tag)
    random.Random(f"{SPLIT_SEED}-{tag}").shuffle(records)
    held_out = max(round(HELD_OUT_SHARE * len(records)), min(HELD_OUT_AIM, len(records) - TRAINING_LEAST))
    return records[held_out:], records[:held_out]


def training_records() -> list[dict]:
    """All training records, tag by tag."""
    return [record for tag in TAGS for record in split_records(tag)[0]]


def held_out_records() -> list[dict]:
    """All held-out records, tag by tag."""
    return [record for tag in TAGS for record in split_records(tag)[1]]


def balanced(records: list[dict], count: int, seed: int) -> list[dict]:
    """`count` records in random order with every tag equally often in every beginning of the list (up to one).

    Inside a tag every record is as often as any other (up to one): none is repeated before all are there.
    """
    rng = random.Random(seed)
    by_tag: dict[str, list[dict]] = {}
    for record in records:
        by_tag.setdefault(record["tag"], []).append(record)
    quota = -(-count // len(by_tag))
    drawn = []
    for group in by_tag.values():
        rounds = -(-quota // len(group))
        drawn.append([record for _ in range(rounds) for record in rng.sample(group, len(group))][:quota])
    chosen = []
    for row in zip(*drawn, strict=True):
        chosen += rng.sample(row, len(row))
    return chosen[:count]
