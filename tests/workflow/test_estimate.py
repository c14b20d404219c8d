"""What `progrpo plan` adds up, beside tests/cost/test_budget.py: prompts of a tier before its first job."""

import json

import pytest

from progrpo.config import PromptSet
from progrpo.errors import UserError
from progrpo.weights.manifest import packaged_manifest
from progrpo.workflow.estimate import _count

FILES = {
    "p.txt": "a cat\n\na dog\na cat\n",
    "p.json": json.dumps(["a cat", "a dog", "a cat"], indent=1),
    "p.csv": 'id,prompt\n1,"a cat"\n2,"a dog"\n3,"a cat"\n',
    "p.tsv": "prompt\tid\na cat\t1\na dog\t2\na cat\t3\n",
    "p.jsonl": '{"prompt": "a cat"}\n{"prompt": "a dog"}\n{"prompt": "a cat"}\n',
}


def count(path, **settings) -> int | None:
    return _count(PromptSet(path=str(path), **settings), packaged_manifest())


@pytest.mark.parametrize("name", FILES)
def test_prompts_of_ones_own_file_are_counted_as_they_are_read(tmp_path, name):
    (tmp_path / name).write_text(FILES[name])
    assert count(tmp_path / name) == 3
    assert count(tmp_path / name, distinct=True) == 2
    assert count(tmp_path / name, limit=1) == 1


def test_prompts_of_a_folder_of_styles_are_counted_and_of_what_is_not_there_only_by_its_limits(tmp_path):
    for style in ("sketch", "night"):
        (tmp_path / f"{style}.json").write_text(json.dumps(["a cat", "a dog"]))
    assert count(tmp_path) == 4
    assert count(tmp_path, limit_per_style=1) == 2
    assert count(tmp_path / "absent.txt") is None
    assert count(tmp_path / "absent.txt", limit=7) == 7
    (tmp_path / "damaged.json").write_text("[")
    with pytest.raises(UserError, match="damaged.json"):
        count(tmp_path / "damaged.json")
