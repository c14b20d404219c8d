"""The small inputs of ../shared/cases, where they are: each gives what its README calls right."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from progrpo.benchmarks.images import list_images
from progrpo.benchmarks.prompt_sets import load_prompts
from progrpo.cli import main
from progrpo.config import PromptSet
from progrpo.errors import UserError
from progrpo.jobs.image_folder import image_tasks
from progrpo.safe_names import path_inside

RED, BLUE = "a red circle", "a blue square"
PROMPTS = {
    "blank_lines.jsonl": [RED, BLUE],
    "bom.txt": [RED, BLUE],
    "cr_only.txt": [RED, BLUE],
    "crlf.txt": [RED, BLUE],
    "csv.csv": ["a red circle, on the left"],
    "duplicates.txt": [RED, BLUE, RED],
    "hashes.txt": ["# my prompts", RED],
    "list_of_dicts.json": [RED],
    "newline.json": ["a red\ncircle", BLUE],
    "parti_as.txt": [RED, BLUE],
    "spaces.json": [" a red circle ", "a blue square\n"],
    "tabs_parti.tsv": [RED],
    "u2028.jsonl": ["a red\u2028circle", BLUE],
    "u2028.txt": ["a red\u2028circle", BLUE],
    "upper.TXT": [RED],
    "latin1.txt": "latin1.txt:1: not UTF-8 text",
    "nul.txt": "nul.txt:1: holds a NUL",
    "utf16.txt": "UTF-16",
}
FOLDERS = {
    "full": 4,
    "bom": 4,
    "flat": "4 of 4 prompts have no samples/NNNN.png, the first is 00000, 4 .png there",
    "jpg": "4 of 4 prompts have no samples/NNNN.png, the first is 00000, 4 .jpg there",
    "mixed": "2 of 4 prompts have no samples/NNNN.png, the first is 00001, 2 .jpg there",
    "missing_samples": "1 of 4 prompts have no samples/NNNN.png, the first is 00002",
    "named": "no images",
    "nometa": "00001/metadata.jsonl: no such file",
    "twolines": "00000/metadata.jsonl: expected the one GenEval record of the prompt, found 2",
}
DETECTIONS = {  # overall score, or the refusal
    "pos_ok": 1.0,
    "pos_reversed_x": 1.0,
    "pos_xywh_reversed_both": 1.0,
    "count_reversed_nms": 1.0,
    "count17": 0.0,
    "empty_list": 0.0,
    "unknown_tag": 0.0,
    "color_case": "jsonl:1: unknown color 'Red'; did you mean 'red'?",
    "color_unknown": "jsonl:1: a detection of the unknown color 'crimson'",
    "dup_image": "jsonl:2: image 00000/samples/0000.png was judged already",
    "five_numbers": "jsonl:1: a detection needs",
    "inf_box": "jsonl:1: not a JSON object (Infinity",
    "int_class": "jsonl:1: a detection of the unknown class 13",
    "nan_score": "jsonl:1: not a JSON object (NaN",
    "score_negative": "jsonl:1: the score -1 of a detection",
    "tag_missing": "jsonl:1: not a GenEval record",
}


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """`shared("cases")`: that folder beside the repository; skips the test without it."""

    def find(name: str) -> Path:
        path = Path(__file__).parents[1].parent / "shared" / name
        if not path.exists():
            pytest.skip(f"../shared/{name} is not beside this repository")
        return path

    return find


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts(shared, name):
    path, expected = shared("cases/prompts") / name, PROMPTS[name]
    if isinstance(expected, list):
        assert [record.prompt for record in load_prompts(path)] == expected
    else:
        with pytest.raises(UserError, match=expected):
            load_prompts(path)


@pytest.mark.parametrize(
    "name", ["dots.txt", "emoji.txt", "long.txt", "newline.json", "quote.txt", "slash.txt", "trailing_dot.txt"]
)
def test_names(shared, tmp_path, name):
    records = load_prompts(shared("cases/names") / name)
    for task in image_tasks(records, PromptSet(path=name, layout="compbench")):
        path = path_inside(tmp_path, task.name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
        assert path.parent == tmp_path / "samples"
        assert task.record in records


@pytest.mark.parametrize("name", FOLDERS)
def test_geneval_folders(shared, name):
    folder, expected = shared("cases/geneval") / name, FOLDERS[name]
    if isinstance(expected, int):
        assert len(list_images(folder)) == expected
    else:
        with pytest.raises(UserError) as error:
            list_images(folder)
        assert expected in str(error.value)


@pytest.mark.parametrize("name", DETECTIONS)
def test_detections(shared, tmp_path, capsys, name):
    path, expected, out = shared("cases/detections") / f"{name}.jsonl", DETECTIONS[name], tmp_path / "v.jsonl"
    status = main(["geneval", "verdict", "--detections", str(path), "--out", str(out)])
    if isinstance(expected, float):
        assert status == 0
        assert json.loads(out.with_suffix(".summary.json").read_text())["overall"] == expected
    else:
        assert status == 2
        error = capsys.readouterr().err
        assert expected in error
        assert error.count("\n") == 1
        assert not out.exists()
