"""Prompt files: one reader for text, JSON and JSON-lines prompt sets, and the check of GenEval-format
records.

A GenEval record is `{"tag", "include"?: [clause, ...], "exclude"?: [clause, ...], "prompt"}`, at least one of both; a clause is
`{"class", "count", "color"?, "position"?: [relation, index of an earlier clause]}` (djghosh13/geneval,
prompts/create_prompts.py). Other keys of a clause (the miniature world's "texture") pass through: the GenEval
verdict does not look at them.
"""

import csv
import difflib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from progrpo.errors import UserError
from progrpo.files import read_json, read_jsonl, read_text

RELATIONS = ("left of", "right of", "above", "below")
STYLES = ("anime", "concept-art", "paintings", "photo")  # of HPSv2's benchmark
TABLES = {".tsv": "\t", ".csv": ","}  # endings of tables, and what separates their columns
UNSEEN = "\ufeff\u200b\x1a"  # a mark of the byte order, a space without width, the end of a file of DOS
LFS_POINTER = "version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class PromptRecord:
    """One prompt; `metadata` is its GenEval record, {"style": name} in HPSv2's benchmark, other keys that a file gave it, or
    None for a plain prompt."""

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
    distinct: bool = False,
    limit_per_style: int | None = None,
) -> list[PromptRecord]:
    """Prompts of a file in its order, of each style the first `limit_per_style`, of these the first `limit`.

    path: .txt (a prompt per line), .jsonl (GenEval records, or objects with "prompt" and maybe "metadata" or "style"), .json (a
    list of strings or of such objects), .tsv or .csv (a table with the column "prompt", as PartiPrompts has it), or a folder of
    .json files, one per style, as HPSv2's benchmark has them: where its four styles are there, whatever lies beside them (the
    hub's folder holds DrawBench too) is not read. A file under another of these endings is known by its content.
    distinct: repeated entries count once (DrawBench's file has each five times). UserError names file and line (or item) of
    the first entry that is no prompt or no valid record, an empty file, and a style with fewer prompts than
    `limit_per_style`, or a prompt without a style.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; a prompt set of a tier is fetched by `progrpo fetch`")
    if path.is_dir():
        prompts = _read_styles(path)
    elif path.suffix.lower() in (".txt", ".json", ".jsonl", ".tsv", ".csv"):
        prompts = _read_file(path)
    else:
        raise UserError(f"{path}: unknown kind of prompt file {path.suffix!r}; use .txt, .jsonl, .json, .tsv or .csv")
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


def _read_file(path: Path) -> list[PromptRecord]:
    text, suffix = read_text(path), path.suffix.lower()
    head = text.strip()
    first = head.split("\n", 1)[0]
    if head.startswith(LFS_POINTER):
        raise UserError(f"{path}: a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`")
    if head[:15].lower().startswith(("<!doctype html", "<html")):
        raise UserError(f"{path}: a web page, as a server sends one in the place of a file; fetch it again")
    if suffix == ".json" or head.startswith("["):
        as_list = head.startswith("[") or not _is_json(first)
        if suffix in (".json", ".jsonl") or _is_json(head):
            return _read_json(path) if as_list else _read_jsonl(path)
    if suffix == ".jsonl" or (first.startswith("{") and _is_json(first)):
        return _read_jsonl(path)
    if delimiter := _delimiter(first, text) or TABLES.get(suffix):
        return _read_table(path, text, delimiter)
    lines = [line for line in (line.strip().strip(UNSEEN).strip() for line in text.split("\n")) if line]
    if lines and all("\t" in line for line in lines):
        raise UserError(f'{path}: a table (every line holds a tab) without a column "prompt" in its first line')
    return [PromptRecord(line) for line in lines]


def _delimiter(first: str, text: str) -> str | None:
    """What separates the columns, where a first line is the head of a table with the column "prompt"; None where it is not.

    A comma separates when every row has as many cells: prompts hold commas too.
    """
    heads = {delimiter: [cell.strip(' "').lower() for cell in first.split(delimiter)] for delimiter in TABLES.values()}
    delimiter = next((delimiter for delimiter, head in heads.items() if len(head) > 1 and "prompt" in head), None)
    if delimiter == ",":
        lines = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
        try:
            counts = {len(row) for row in lines if any(cell.strip() for cell in row)}
        except csv.Error:
            return delimiter  # who reads the table says what is wrong with it
        return delimiter if len(counts) == 1 and counts != {1} else None
    return delimiter


def _is_json(text: str) -> bool:
    """Whether a text is JSON: a prompt, too, may begin with a bracket."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_quoted(text: str) -> bool:
    """Whether a tab-separated table quotes as CSV does: every cell that begins with a quote ends with one, those inside doubled."""
    begun = [cell for line in text.split("\n") for cell in line.rstrip("\r").split("\t") if cell.startswith('"')]
    return all(re.fullmatch('"(?:[^"]|"")*"', cell) for cell in begun)


def _read_table(path: Path, text: str, delimiter: str) -> list[PromptRecord]:
    lines = io.StringIO(text, newline="")
    if delimiter == ",":
        rows = csv.reader(lines, strict=True, skipinitialspace=True)
    else:  # PartiPrompts' cells hold quotes that quote nothing
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_MINIMAL if _is_quoted(text) else csv.QUOTE_NONE)
    prompts = []
    try:
        filled = (row for row in rows if any(cell.strip() for cell in row))
        head = [cell.strip().lower() for cell in next(filled, [])]
        if head.count("prompt") != 1:
            where, found = f"{path}:{max(1, rows.line_num)}", ", ".join(head)[:80] or "none"
            raise UserError(f'{where}: the table needs one column "prompt"; it has {found}')
        for row in filled:
            if any(cell.strip() for cell in row[len(head) :]):
                hint = "a prompt that holds a comma needs quotes" if delimiter == "," else "a prompt holds no tab"
                raise UserError(
                    f"{path}:{rows.line_num}: {len(row)} cells, where the first line names {len(head)}; {hint}"
                )
            if len(row) <= head.index("prompt") or not row[head.index("prompt")].strip():
                raise UserError(f"{path}:{rows.line_num}: the row has no prompt")
            prompts.append(PromptRecord(row[head.index("prompt")].strip()))
    except csv.Error as error:
        raise UserError(f"{path}:{rows.line_num}: not a table ({error})") from None
    return prompts


def _read_json(path: Path) -> list[PromptRecord]:
    prompts = read_json(path)
    if not isinstance(prompts, list):
        raise UserError(f"{path}: expected a JSON list of prompts, found {type(prompts).__name__}")
    return [_record(prompt, f"{path}: item {number}") for number, prompt in enumerate(prompts, 1)]


def _read_styles(folder: Path) -> list[PromptRecord]:
    files = sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))
    found = {path.stem for path in files} & set(STYLES)
    if found and (missing := [style for style in STYLES if style not in found]):
        raise UserError(f"{folder}: of HPSv2's styles, without {', '.join(missing)} ({missing[0]}.json)")
    if found:
        files = [path for path in files if path.stem in STYLES]
    return [PromptRecord(record.prompt, {"style": path.stem}) for path in files for record in _read_json(path)]


def _read_jsonl(path: Path) -> list[PromptRecord]:
    return [_record(line, f"{path}:{number}") for number, line in read_jsonl(path)]


def _record(entry: Any, where: str) -> PromptRecord:
    """The prompt of a string or of an object; UserError begins with `where`."""
    prompt = entry.get("prompt") if isinstance(entry, dict) else entry
    if isinstance(entry, dict) and (not isinstance(prompt, str) or not prompt.strip()):
        raise UserError(f'{where}: the record has no "prompt"')
    if not isinstance(prompt, str) or not prompt.strip():
        raise UserError(f"{where} is not a prompt: {json.dumps(prompt)[:60]}")
    if "\0" in prompt:
        raise UserError(f"{where}: the prompt holds a NUL character")
    if isinstance(entry, str):
        return PromptRecord(prompt)
    metadata = entry if {"include", "exclude"} & set(entry) else entry.get("metadata")
    if metadata is None and entry.get("style") is not None:
        metadata = {"style": entry["style"]}
    if metadata is None:
        return PromptRecord(prompt)
    if not isinstance(metadata, dict) or not isinstance(metadata.get("style", ""), str):
        raise UserError(f'{where}: "metadata" must be an object, and its "style" a string: {json.dumps(metadata)[:60]}')
    if {"tag", "include", "exclude"} & set(metadata):
        validate_record(metadata, where)
    return PromptRecord(prompt, metadata)


def validate_record(record: Any, where: str, vocabulary: Vocabulary | None = None) -> None:
    """Check a GenEval record's structure and, with a vocabulary, its classes and colours.

    where: "file:line", the beginning of the message. UserError: the first thing that is wrong.
    """
    if (
        not isinstance(record, dict)
        or not isinstance(record.get("tag"), str)
        or not isinstance(record.get("prompt"), str)
    ):
        raise UserError(f'{where}: not a GenEval record: it needs the strings "tag" and "prompt"')
    if not record["tag"].isprintable():
        raise UserError(f"{where}: the tag {record['tag'][:60]!r} holds control characters")
    include, exclude = record.get("include", []), record.get("exclude", [])
    if not isinstance(include, list) or not isinstance(exclude, list) or not include + exclude:
        raise UserError(
            f'{where}: not a GenEval record: "include" and "exclude" must be lists with at least one clause'
        )
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
    if not isinstance(position[1], int) or isinstance(position[1], bool) or not 0 <= position[1] < index:
        raise UserError(f'{where}: "position" refers to clause {position[1]!r}, which is not an earlier clause')
