"""What `progrpo plan` adds up, beside tests/cost/test_budget.py: prompts of a tier before its first job."""

import json

import pytest
import yaml

from checkout import ROOT
from progrpo.config import PromptSet, load_config
from progrpo.errors import UserError
from progrpo.weights.manifest import packaged_manifest
from progrpo.workflow.estimate import ATTEMPTS, _count, report, table
from progrpo.workflow.site import Site

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


def test_a_training_that_no_number_of_attempts_ends_is_named():
    """The site's longest job is what a training gets, and a job that has failed so often is not tried again."""
    assert yaml.safe_load((ROOT / "slurm/config.yaml").read_text())["retries"] == ATTEMPTS - 1
    config = load_config(ROOT / "config/paper.yaml")
    allowed, short = report(config, 495, 0.35), report(config, 495, 0.35, site=Site(hours=4))
    assert {entry["hours_asked"] for entry in allowed["runs"].values()} == {24}
    assert {entry["hours_asked"] for entry in short["runs"].values()} == {4}
    long = [name for name, entry in short["runs"].items() if entry["hours"] > 4 * ATTEMPTS]
    assert "flowgrpo_sd35m" in long
    assert "dancegrpo_sd14" not in long
    told = [line for line in table(short) if line.startswith("Longer than 3 jobs of the hours asked for: ")]
    assert told[0].split(": ")[1].split(". ")[0] == ", ".join(long)
    assert not any(line.startswith("Longer") for line in table(allowed))
