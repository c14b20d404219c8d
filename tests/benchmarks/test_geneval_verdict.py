"""GenEval's verdicts on hand-made detections, checked by hand against the original's rules."""

import json

import numpy as np
import pytest

from progrpo.benchmarks.geneval.prompts import geneval_records
from progrpo.benchmarks.geneval.verdict import Protocol, iou, relative_position, select, summary, verdicts
from progrpo.benchmarks.geneval.vocabulary import geneval_vocabulary
from progrpo.cli import main
from progrpo.errors import UserError


def found(name, score=0.95, box=(0, 0, 10, 10), color=None):
    return {"class": name, "box": list(box), "score": score, "color": color}


def record(tag, *include, exclude=None):
    extra = {"exclude": exclude} if exclude else {}
    return {"tag": tag, "include": list(include), **extra, "prompt": "a photo"}


def judge(metadata, *detections, protocol=None):
    line = {"image": "0.png", "metadata": metadata, "detections": list(detections)}
    (result,) = verdicts([("d.jsonl:1", line)], geneval_vocabulary(), protocol)
    return result["correct"], result["reason"]


@pytest.mark.parametrize(
    ("a", "b", "relations"),
    [
        ((0, 0, 10, 10), (50, 50, 60, 60), {"left of", "above"}),
        ((0, 0, 100, 100), (30, 5, 130, 105), set()),
        ((0, 0, 10, 10), (50, 25, 60, 35), {"left of"}),
        ((50, 50, 60, 60), (0, 0, 10, 10), {"right of", "below"}),
        ((0, 0, 10, 10), (0, 0, 10, 10), set()),
    ],
)
def test_relative_position_of_the_published_examples(a, b, relations):
    assert relative_position(a, b) == relations


def test_relative_position_is_antisymmetric():
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    rng = np.random.default_rng(0)
    for _ in range(200):
        corner, size = rng.integers(0, 200, (2, 2)), rng.integers(1, 80, (2, 2))
        a, b = ([*c, *(c + s)] for c, s in zip(corner, size, strict=True))
        assert {opposite[r] for r in relative_position(a, b)} == relative_position(b, a)


def test_thresholds_are_exclusive_and_counting_has_its_own():
    clause = {"class": "dog", "count": 1}
    assert judge(record("single_object", clause), found("dog", 0.3)) == (False, "expected dog>=1, found 0")
    assert judge(record("single_object", clause), found("dog", 0.31))[0]
    two = record("counting", {"class": "dog", "count": 2}, exclude=[{"class": "dog", "count": 3}])
    assert judge(two, found("dog", 0.91), found("dog", 0.92))[0]
    assert not judge(two, found("dog", 0.91), found("dog", 0.89))[0]


def test_exclude_makes_counting_exact_and_extra_objects_hurt_nowhere_else():
    dogs = [found("dog", 0.95)] * 3
    two = record("counting", {"class": "dog", "count": 2}, exclude=[{"class": "dog", "count": 3}])
    assert judge(two, *dogs) == (False, "expected dog<3, found 3")
    assert judge(record("single_object", {"class": "dog", "count": 1}), *dogs, found("cat"))[0]


def test_color_looks_only_at_the_best_objects():
    red = record("colors", {"class": "dog", "count": 1, "color": "red"})
    assert judge(red, found("dog", 0.9, color="red"), found("dog", 0.8, color="blue"))[0]
    assert judge(red, found("dog", 0.8, color="red"), found("dog", 0.9, color="blue")) == (
        False,
        "expected red dog>=1, found 0 red; and 1 blue",
    )


def test_position_needs_the_relation_of_every_pair_and_a_matched_target():
    metadata = record(
        "position", {"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 0]}
    )
    left, right = (0, 0, 10, 10), (50, 0, 60, 10)
    assert judge(metadata, found("cat", box=right), found("dog", box=left)) == (True, "")
    correct, reason = judge(metadata, found("cat", box=left), found("dog", box=right))
    assert (correct, reason) == (False, "expected dog left of target, found right of target")
    correct, reason = judge(metadata, found("dog", box=left))
    assert reason == "expected cat>=1, found 0\nno target for dog to be left of"


def test_sixteen_objects_per_class_count_and_suppression_is_off_unless_asked():
    boxes = [found("dog", 0.9 - k / 100) for k in range(20)]
    assert len(select(boxes, "single_object", Protocol())["dog"]) == 16
    assert len(select(boxes, "single_object", Protocol(max_overlap=0.5))["dog"]) == 1
    assert [
        float(d.box[0])
        for d in select([found("dog", 0.5), found("dog", 0.9, (7, 0, 9, 9))], "colors", Protocol())["dog"]
    ] == [7, 0]


def test_overlap_counts_the_corner_pixels():
    assert iou(np.array([0, 0, 9, 9]), np.array([0, 0, 9, 4])) == pytest.approx(0.5)
    assert iou(np.array([0, 0, 9, 9]), np.array([0, 0, 4, 9])) == pytest.approx(0.5)
    assert iou(np.array([0, 0, 9, 9]), np.array([20, 0, 29, 9])) == 0


def test_summary_averages_tags_without_weights_and_counts_prompts_by_any_image():
    one, two = (
        record("single_object", {"class": "dog", "count": 1}),
        record("colors", {"class": "cat", "count": 1, "color": "red"}),
    )
    results = [{"correct": c} for c in (True, False, False, False)]
    scores = summary([one, one, one, two], results)
    assert scores["tags"]["single_object"] == {"score": pytest.approx(1 / 3), "correct": 1, "images": 3}
    assert scores["overall"] == pytest.approx(1 / 6)
    assert (scores["correct_images"], scores["correct_prompts"]) == (0.25, 0.5)


def detections_file(tmp_path, *lines):
    path = tmp_path / "detections.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


GOOD = {
    "image": "0.png",
    "metadata": record("single_object", {"class": "dog", "count": 1}),
    "detections": [found("dog")],
}


def test_a_part_of_the_benchmarks_prompts_is_said():
    records = geneval_records()
    for some, said in (
        (records, None),
        (records[:-1], "over 552 of GenEval's 553 prompts"),
        ([{**records[0], "tag": "x"}], None),
    ):
        results = [{"image": str(k), "correct": True, "reason": ""} for k in range(4 * len(some))]
        assert summary([record for record in some for _ in range(4)], results).get("left_out") == said


def test_the_command_writes_verdicts_and_scores(tmp_path, capsys):
    path = detections_file(tmp_path, GOOD, {**GOOD, "image": "1.png", "detections": []})
    assert main(["geneval", "verdict", "--detections", str(path), "--out", str(tmp_path / "verdicts.jsonl")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert lines == [
        {"image": "0.png", "correct": True, "reason": ""},
        {"image": "1.png", "correct": False, "reason": "expected dog>=1, found 0"},
    ]
    assert json.loads((tmp_path / "verdicts.summary.json").read_text())["overall"] == 0.5
    assert "single_object" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"image": "1.png", "metadata": {"tag"', "detections.jsonl:2: not a JSON object"),
        ({**GOOD, "metadata": record("colors", {"class": "unicorn", "count": 1})}, "jsonl:2: unknown class 'unicorn'"),
        (
            {**GOOD, "metadata": record("colors", {"class": "dog", "count": 1, "color": "mauve"})},
            "jsonl:2: unknown color 'mauve'",
        ),
        ({**GOOD, "detections": [{"class": "dog", "box": [1, 2], "score": 1}]}, "jsonl:2: a detection needs"),
        ({**GOOD, "detections": [found("blimp")]}, "jsonl:2: a detection of the unknown class 'blimp'"),
        ({"image": "1.png", "metadata": GOOD["metadata"]}, 'jsonl:2: the line needs "image"'),
        (
            {**GOOD, "image": "1.png", "metadata": record("colors", {"class": "dog", "count": 1, "color": "red"})},
            "jsonl:2: no color is stored for a 'dog'",
        ),
        (GOOD, "jsonl:2: image 0.png was judged already, see "),
        ({**GOOD, "detections": [{**found("dog"), "score": 1.5}]}, "jsonl:2: the score 1.5 of a detection is not in"),
        ({**GOOD, "detections": [{**found("dog"), "score": -0.1}]}, "jsonl:2: the score -0.1 of a detection is not in"),
        ({**GOOD, "detections": [{**found("dog"), "box": [0, 0, 1e308, 1]}]}, "jsonl:2: a detection needs"),
        ({**GOOD, "detections": [{**found("dog"), "color": "crimson"}]}, "jsonl:2: a detection of the unknown color"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_written(tmp_path, capsys, bad, message):
    out = tmp_path / "verdicts.jsonl"
    out.write_text("earlier results\n")
    path = detections_file(tmp_path, GOOD, bad)
    assert main(["geneval", "verdict", "--detections", str(path), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert out.read_text() == "earlier results\n"


def test_an_empty_detections_file_is_an_error(tmp_path, capsys):
    path = detections_file(tmp_path)
    assert main(["geneval", "verdict", "--detections", str(path), "--out", str(tmp_path / "v.jsonl")]) == 2
    assert "holds no detections" in capsys.readouterr().err


def test_a_bad_line_raises_for_callers_too():
    with pytest.raises(UserError, match="^x:7: "):
        verdicts([("x:7", {})], geneval_vocabulary())
