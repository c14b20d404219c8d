"""Prompt files: one reader for text, JSON and JSON-lines prompt sets, and the check of GenEval-format
records.

A GenEval record is `{"tag", "include": [clause, ...], "exclude"?: [clause, ...], "prompt"}`; a clause is
`{"class", "count", "color"?, "position"?: [relation, index of an earlier clause]}` (djghosh13/geneval,
prompts/create_prompts.py). Other keys of a clause (the miniature world's "texture") pass through: the GenEval
verdict does not look at them.
"""

import difflib
import json
from dataclasses import dataclass
from pathlib import Path

from progrpo.errors import UserError
from progrpo.files import read_json, read_jsonl

RELATIONS = ("left of", "right of", "above", "below")


@dataclass(frozen=True)
class PromptRecord:
    """One prompt; `metadata` is its GenEval record, {"style": name} in HPSv2's benchmark, or None for a plain
    prompt."""

    prompt: str
    metadata: dict | None = None


@dataclass(frozen=True)
class Vocabulary:
    """The classes and colours that records may name."""

    classes: tuple[str, ...]
    colors: tuple[str, ...]


def load_prompts(
    path: Path | str,
    limit: int | None = None,
    vocabulary: Vocabulary | None = None,
    distinct: bool = False,
    limit_per_style: int | None = None,
) -> list[PromptRecord]:
    """Prompts of a file in its order, of each style the first `limit_per_style`, of these the first `limit`.

    path: .txt (a prompt per line), .jsonl (GenEval records, or objects with "prompt" and maybe "metadata") or .json
    (a list of strings), or a folder of .json files, one per style, as HPSv2's benchmark has them. distinct:
    repeated entries count once (DrawBench's file has each five times). vocabulary: when given, records may name
    only its classes and colours. UserError names file and line (or item) of the first entry that is no prompt or no
    valid record, an empty file, and a style with fewer prompts than `limit_per_style`, or a prompt without a style.
    """
    path = Path(path)
    readers = {".txt": _read_text, ".jsonl": _read_jsonl, ".json": _read_json}
    if path.is_dir():
        prompts = _read_styles(path, vocabulary)
    elif path.suffix in readers:
        prompts = readers[path.suffix](path, vocabulary)
    else:
        raise UserError(f"{path}: unknown kind of prompt file {path.suffix!r}; use .txt, .jsonl or .json")
    if not prompts:
        raise UserError(f"{path}: holds no prompt")
    if distinct:
        prompts = list({(p.prompt, json.dumps(p.metadata)): p for p in prompts}.values())
    if limit_per_style is not None:
        prompts = _first_of_each_style(prompts, limit_per_style, path)
    return prompts[:limit]


def _first_of_each_style(prompts: list[PromptRecord], count: int, path: Path) -> list[PromptRecord]:
    styles: dict[str, list[PromptRecord]] = {}
    for record in prompts:
        style = (record.metadata or {}).get("style")
        if style is None:
            raise UserError(f"{path}: limit_per_style needs prompts with a style, and {record.prompt[:40]!r} has none")
        styles.setdefault(style, []).append(record)
    for style, records in styles.items():
        if len(records) < count:
            raise UserError(f"{path}: style {style} has {len(records)} prompts, fewer than limit_per_style ({count})")
    return [record for records in styles.values() for record in records[:count]]


def _read_text(path: Path, vocabulary: Vocabulary | None) -> list[PromptRecord]:
    try:
        lines = path.read_text().split("\n")  # not splitlines: prompts of users hold U+2028 and form feeds
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error})") from None
    return [PromptRecord(line.strip()) for line in lines if line.strip()]


def _read_json(path: Path, vocabulary: Vocabulary | None) -> list[PromptRecord]:
    prompts = read_json(path)
    if not isinstance(prompts, list):
        raise UserError(f"{path}: expected a JSON list of prompts, found {type(prompts).__name__}")
    for number, prompt in enumerate(prompts, 1):
        if not isinstance(prompt, str) or not prompt.strip():
            raise UserError(f"{path}: item {number} is not a prompt: {json.dumps(prompt)[:60]}")
    return [PromptRecord(prompt) for prompt in prompts]


def _read_styles(folder: Path, vocabulary: Vocabulary | None) -> list[PromptRecord]:
    return [
        PromptRecord(record.prompt, {"style": path.stem})
        for path in sorted(folder.glob("*.json"))
        for record in _read_json(path, vocabulary)
    ]


def _read_jsonl(path: Path, vocabulary: Vocabulary | None) -> list[PromptRecord]:
    records = []
    for number, line in read_jsonl(path):
        where = f"{path}:{number}"
        prompt = line.get("prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            raise UserError(f'{where}: the record has no "prompt"')
        metadata = line if "include" in line else line.get("metadata")
        if metadata is not None:
            validate_record(metadata, where, vocabulary)
        records.append(PromptRecord(prompt, metadata))
    return records


def validate_record(record: dict, where: str, vocabulary: Vocabulary | None = None) -> None:
    """Check a GenEval record's structure and, with a vocabulary, its classes and colours.

    where: "file:line", the beginning of the message. UserError: the first thing that is wrong.
    """
    if (
        not isinstance(record, dict)
        or not isinstance(record.get("tag"), str)
        or not isinstance(record.get("prompt"), str)
    ):
        raise UserError(f'{where}: not a GenEval record: it needs the strings "tag" and "prompt"')
    include, exclude = record.get("include"), record.get("exclude", [])
    if not isinstance(include, list) or not include or not isinstance(exclude, list):
        raise UserError(f'{where}: not a GenEval record: "include" must be a list of at least one clause')
    for index, clause in enumerate(include):
        _validate_clause(clause, where, vocabulary)
        if "position" in clause:
            _validate_position(clause["position"], index, where)
    for clause in exclude:
        _validate_clause(clause, where, vocabulary)


def _validate_clause(clause: dict, where: str, vocabulary: Vocabulary | None) -> None:
    if not isinstance(clause, dict) or not isinstance(clause.get("class"), str):
        raise UserError(f'{where}: a clause has no "class": {json.dumps(clause)[:80]}')
    count = clause.get("count")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise UserError(
            f'{where}: the "count" of {clause["class"]!r} must be a whole number of at least 1, not {count!r}'
        )
    if vocabulary is not None:
        _check_word("class", clause["class"], vocabulary.classes, where)
        if "color" in clause:
            _check_word("color", clause["color"], vocabulary.colors, where)


def _check_word(kind: str, word: object, known: tuple[str, ...], where: str) -> None:
    if word in known:
        return
    near = difflib.get_close_matches(str(word), known, n=1)
    listed = ", ".join(known if len(known) <= 12 else known[:5]) + ("" if len(known) <= 12 else ", ...")
    hint = f"did you mean {near[0]!r}?" if near else f"known: {listed}"
    raise UserError(f"{where}: unknown {kind} {word!r}; {hint}")


def _validate_position(position: object, index: int, where: str) -> None:
    if not isinstance(position, list) or len(position) != 2 or position[0] not in RELATIONS:
        raise UserError(
            f'{where}: "position" must be [relation, clause index], relation one of {", ".join(RELATIONS)}; '
            f"it is {position!r}"
        )
    if not isinstance(position[1], int) or not 0 <= position[1] < index:
        raise UserError(f'{where}: "position" refers to clause {position[1]!r}, which is not an earlier clause')
