"""Names from outside: every text becomes one file inside its folder, and different texts different files."""

import pytest

from progrpo.benchmarks.prompt_sets import PromptRecord
from progrpo.config import PromptSet
from progrpo.jobs.image_folder import image_tasks
from progrpo.safe_names import LONGEST, file_name, path_inside

STRANGE = (
    "../../../escape",
    "/etc/passwd",
    "and/or",
    "..",
    ".",
    "",
    ".hidden",
    "a\nb",
    "a\\b",
    "a\0b",
    "x" * 300,
    "é" * 200,
    "\U0001f600" * 80,
    "lone \ud800 half",
    "a\u2028b",
)


@pytest.mark.parametrize("text", STRANGE)
def test_any_text_is_one_file_inside_the_folder(text, tmp_path):
    name = file_name(text, "_000000.png")
    path = path_inside(tmp_path, name)
    path.write_bytes(b"")
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert name.endswith("_000000.png")
    assert len(name.encode()) <= LONGEST
    assert not name.startswith(".")


def test_different_texts_have_different_names_and_ordinary_ones_stay():
    texts = [*STRANGE, "and_or", "x" * 299, "x" * 301, "a_b", "_hidden", "_"]
    assert len({file_name(text) for text in texts}) == len(texts)
    for text in ("a red circle", "a red circle \U0001f600", "a \"red\" 'circle' $HOME `x` *", "a red circle_12", "a."):
        assert file_name(text, "_1.png") == text + "_1.png"


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "..", "", "a\\b", "a\nb", "x" * 256])
def test_a_name_that_leads_out_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match=r"name|folder|character|bytes"):
        path_inside(tmp_path, name)


def test_a_linked_folder_does_not_lead_out_but_a_linked_file_may(tmp_path):
    folder, outside = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    outside.mkdir()
    (outside / "0.png").write_bytes(b"")
    (folder / "link").symlink_to(outside)
    (folder / "0.png").symlink_to(outside / "0.png")  # as DVC and the hub's cache store files
    with pytest.raises(ValueError, match="leads out of"):
        path_inside(folder, "link/0.png")
    assert path_inside(folder, "0.png").is_file()


@pytest.mark.parametrize("layout", ["compbench", "hpsv2"])
def test_images_of_any_prompt_and_style_stay_in_their_folder(layout, tmp_path):
    records = [PromptRecord(text or "x", {"style": text}) for text in STRANGE]
    tasks = image_tasks(records, PromptSet(path="p.txt", layout=layout))
    assert len({task.name for task in tasks}) == len(records)
    for task in tasks:
        assert len(task.name.split("/")) == 2
        path_inside(tmp_path, task.name)
        assert task.record in records  # the prompt itself stays whole: prompts.jsonl keeps it
