"""Stored detections and what stands beside them: bound by a hash, named apart, and marked where they are not whole."""

import json

import pytest

from progrpo.benchmarks.compbench.spatial import Settings
from progrpo.benchmarks.detections import read_settings, write_detections
from progrpo.benchmarks.geneval.detector import load_detector
from progrpo.benchmarks.geneval.verdict import TAGS, other_tags
from progrpo.benchmarks.images import list_images
from progrpo.cli import main
from progrpo.errors import UserError

SPATIAL = {"prompt": "a cup left of a bench", "obj1": "cup", "obj2": "bench", "locality": None, "objects": []}
MADE = {"metric": "spatial_owlv2", "chunker": "template", "threshold": 0.1}
BENCH = {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a bench"}


def verdict(benchmark: str, folder, *options: str) -> int:
    """Judge d.jsonl of a folder into v.jsonl."""
    return main(
        [benchmark, "verdict", *options, "--detections", str(folder / "d.jsonl"), "--out", str(folder / "v.jsonl")]
    )


def test_how_detections_were_made_is_not_said_of_others(tmp_path, capsys):
    """Another detector's detections under the same name: its score would bear the first one's name and threshold."""
    detections = tmp_path / "d.jsonl"
    write_detections(detections, [SPATIAL], MADE)
    assert read_settings(Settings, detections) == MADE
    detections.write_text(json.dumps({**SPATIAL, "prompt": "a cup near a bench"}) + "\n")
    assert verdict("compbench", tmp_path, "--category", "spatial") == 2
    assert "d.settings.json: says how other detections were made" in capsys.readouterr().err
    (tmp_path / "d.settings.json").unlink()
    assert verdict("compbench", tmp_path, "--category", "spatial") == 0
    assert "spatial_external" in capsys.readouterr().out


def test_names_that_differ_behind_a_dot_keep_their_settings(tmp_path):
    for threshold in (0.1, 0.2):
        write_detections(tmp_path / f"d_{threshold}", [SPATIAL], {**MADE, "threshold": threshold})
    assert [read_settings(Settings, tmp_path / f"d_{t}")["threshold"] for t in (0.1, 0.2)] == [0.1, 0.2]


def test_settings_under_the_name_of_an_older_version_are_not_passed_over(tmp_path):
    (tmp_path / "d.txt").write_text("")
    (tmp_path / "d.settings.json").write_text(json.dumps(MADE))
    with pytest.raises(UserError, match="d.settings.json: bears an older name; rename it to d.txt.settings.json"):
        read_settings(Settings, tmp_path / "d.txt")


def test_a_spatial_score_of_a_part_says_so(tmp_path, capsys):
    write_detections(tmp_path / "d.jsonl", [SPATIAL], {**MADE, "partial": "1 of 2 images do not exist"})
    verdict("compbench", tmp_path, "--category", "spatial")
    assert "over 1 images  PARTIAL: 1 of 2 images do not exist" in capsys.readouterr().out


def test_an_overall_score_of_other_tags_than_genevals_six_says_so(tmp_path, capsys):
    assert other_tags(TAGS) is None
    (tmp_path / "d.jsonl").write_text(json.dumps({"image": "0.png", "metadata": BENCH, "detections": []}))
    verdict("geneval", tmp_path)
    assert "not over GenEval's six tags: without two_object, counting" in capsys.readouterr().out
    assert json.loads((tmp_path / "v.summary.json").read_text())["other_tags"].endswith("position, color_attr")
    assert other_tags([*TAGS, "colours"]) == "not over GenEval's six tags: with colours"


def test_images_as_hpsv2_writes_them_are_named(tmp_path):
    (tmp_path / "anime").mkdir()
    (tmp_path / "anime" / "00000.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"by style \(anime\), as HPSv2's own code.*list them in prompts.jsonl"):
        list_images(tmp_path)


def test_a_configuration_for_a_folder_that_has_its_own_is_refused(tmp_path):
    with pytest.raises(UserError, match="--config-from other: is for a .pth"):
        load_detector(tmp_path, config_from="other")
