"""The prompts of the miniature world: GenEval-format records, a quarter of each tag held out."""

import itertools
import random

CLASSES = ("circle", "square", "triangle")
COLORS = ("red", "green", "blue", "yellow")
TEXTURES = ("solid", "striped")
RELATIONS = ("left of", "right of", "above", "below")
TAGS = ("single_object", "colors", "two_object", "counting", "color_attr", "position", "texture")
NUMBERS = {2: "two", 3: "three", 4: "four"}
HELD_OUT_SHARE = 0.25
SPLIT_SEED = 2512


def _clause(name: str, count: int = 1, **attributes) -> dict:
    return {"class": name, "count": count, **attributes}


def _record(tag: str, include: list[dict], prompt: str) -> dict:
    return {"tag": tag, "include": include, "prompt": prompt}


def all_records(tag: str) -> list[dict]:
    """Every record of one tag, in a fixed order; the reference object of a position record is `include[0]`, as in GenEval."""
    pairs = list(itertools.product(COLORS, CLASSES))
    if tag == "single_object":
        return [_record(tag, [_clause(c)], f"a {c}") for c in CLASSES]
    if tag == "colors":
        return [_record(tag, [_clause(c, color=k)], f"a {k} {c}") for k, c in pairs]
    if tag == "texture":
        return [_record(tag, [_clause(c, color=k, texture="striped")], f"a striped {k} {c}") for k, c in pairs]
    if tag == "two_object":
        return [
            _record(tag, [_clause(a), _clause(b)], f"a {a} and a {b}") for a, b in itertools.permutations(CLASSES, 2)
        ]
    if tag == "counting":
        return [
            _record(tag, [_clause(c, n, color=k)], f"{word} {k} {c}s") for n, word in NUMBERS.items() for k, c in pairs
        ]
    ordered = itertools.permutations(pairs, 2)
    if tag == "color_attr":
        return [
            _record(tag, [_clause(c, color=k), _clause(d, color=m)], f"a {k} {c} and a {m} {d}")
            for (k, c), (m, d) in ordered
        ]
    if tag == "position":
        return [
            _record(
                tag,
                [_clause(d, color=m), _clause(c, color=k, position=[relation, 0])],
                f"a {k} {c} {relation} a {m} {d}",
            )
            for (k, c), (m, d) in ordered
            for relation in RELATIONS
        ]
    raise ValueError(f"unknown tag {tag!r}; known: {', '.join(TAGS)}")


def split_records(tag: str) -> tuple[list[dict], list[dict]]:
    """(training, held-out) records of a tag; the held-out quarter occurs in no training of any model."""
    records = all_records(tag)
    random.Random(f"{SPLIT_SEED}-{tag}").shuffle(records)
    held_out = max(1, round(HELD_OUT_SHARE * len(records)))
    return records[held_out:], records[:held_out]


def training_records() -> list[dict]:
    """All training records, tag by tag."""
    return [record for tag in TAGS for record in split_records(tag)[0]]


def held_out_records() -> list[dict]:
    """All held-out records, tag by tag."""
    return [record for tag in TAGS for record in split_records(tag)[1]]


def balanced(records: list[dict], count: int, seed: int) -> list[dict]:
    """`count` records with every tag equally often (up to one) and, inside a tag, every record equally often, in random order."""
    rng = random.Random(seed)
    by_tag: dict[str, list[dict]] = {}
    for record in records:
        by_tag.setdefault(record["tag"], []).append(record)
    chosen = []
    for rank, group in enumerate(by_tag.values()):
        quota = count // len(by_tag) + (rank < count % len(by_tag))
        while quota > 0:
            part = rng.sample(group, min(quota, len(group)))
            chosen += part
            quota -= len(part)
    rng.shuffle(chosen)
    return chosen
