"""The 2D-spatial rule against the original's, on hand-made detections, and the detectors behind it."""

import collections
import json
import random
from pathlib import Path

import pytest
import torch
from PIL import Image

from progrpo.benchmarks.compbench import spatial, spatial_detect
from progrpo.benchmarks.compbench.chunks import TemplateChunker, stored_answers
from progrpo.benchmarks.compbench.spatial import find_locality, find_objects, position_score, spatial_score
from progrpo.benchmarks.prompt_sets import load_prompts
from progrpo.cli import main
from progrpo.errors import UserError

PROMPTS = Path(__file__).parents[1] / "data" / "t2i_compbench"
LEFT, RIGHT, LOW = [0, 200, 60, 260], [300, 200, 360, 260], [0, 400, 60, 460]


def test_localities_of_the_benchmarks_prompts():
    prompts = [p.prompt for p in load_prompts(PROMPTS / "spatial_val.txt")]
    assert collections.Counter(map(find_locality, prompts)) == {
        "on the top of": 56,
        "on the right of": 56,
        "on the bottom of": 52,
        "on the left of": 51,
        "on side of": 37,
        "next to": 24,
        "near": 24,
    }


def test_short_forms_are_read_only_behind_the_originals_phrases():
    assert find_locality("a red circle above a square") == "on the top of"
    assert find_locality("a cup on the left of a dog") == "on the left of"
    assert find_locality("a dog next to a sign above a door") == "next to"
    assert find_locality("a dog and a cat") is None


@pytest.mark.parametrize(
    ("locality", "one", "two", "score"),
    [
        ("on the left of", LEFT, RIGHT, 1),
        ("on the left of", RIGHT, LEFT, 0),
        ("on the right of", RIGHT, LEFT, 1),
        ("on the top of", LEFT, LOW, 1),
        ("on the bottom of", LOW, LEFT, 1),
        ("on the bottom of", LEFT, LOW, 0),
        ("on the left of", LEFT, LOW, 0),
        ("on top of", LEFT, LOW, 0),
        (None, LEFT, RIGHT, 0),
        ("near", LEFT, RIGHT, 1),
        ("next to", [0, 0, 10, 10], [300, 400, 310, 410], 150 / 400),
        ("on side of", [0, 0, 10, 10], [149, 400, 159, 410], 1),
    ],
)
def test_position_scores(locality, one, two, score):
    assert position_score(locality, one, two) == pytest.approx(score)


def test_overlapping_boxes_lose_in_proportion():
    one, two = [0, 0, 100, 100], [50, 0, 150, 100]  # IoU 1/3
    assert position_score("on the left of", one, two) == pytest.approx(0.3)


def original_rule(locality, a, b):
    """The original's `determine_position`, retold case by case."""
    dx, dy = (b[0] + b[2]) / 2 - (a[0] + a[2]) / 2, (b[1] + b[3]) / 2 - (a[1] + a[3]) / 2
    inter = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    iou = inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)
    full = 1 if iou < 0.1 else 0.1 / iou
    if locality in ("next to", "on side of", "near"):
        return 1 if abs(dx) < 150 or abs(dy) < 150 else 150 / max(abs(dx), abs(dy))
    if locality == "on the right of":
        return full if dx < 0 and abs(dx) > abs(dy) else 0
    if locality == "on the left of":
        return full if dx > 0 and abs(dx) > abs(dy) else 0
    if locality == "on the bottom of":
        return full if dy < 0 and abs(dy) > abs(dx) else 0
    if locality == "on the top of":
        return full if dy > 0 and abs(dy) > abs(dx) else 0
    return 0


def test_the_rule_equals_the_originals_cases_on_random_boxes():
    rng = random.Random(0)
    for _ in range(3000):
        corners = [(rng.uniform(0, 400), rng.uniform(0, 400)) for _ in range(2)]
        a, b = ([x, y, x + rng.uniform(1, 200), y + rng.uniform(1, 200)] for x, y in corners)
        locality = rng.choice([*spatial.LOCALITIES, None])
        assert position_score(locality, a, b) == pytest.approx(original_rule(locality, a, b))


def thing(label, score, box):
    return {"label": label, "score": score, "box": box}


def test_the_score_weighs_confidence_and_position_and_drops_below_one_half():
    both = [thing("cup", 0.9, LEFT), thing("dog", 0.7, RIGHT)]
    assert spatial_score("cup", "dog", "on the left of", both) == pytest.approx(0.25 * 0.9 + 0.25 * 0.7 + 0.5)
    assert spatial_score("cup", "dog", "on the right of", both) == 0  # 0.4 alone is below one half
    assert spatial_score("cup", "cat", "on the left of", both) == 0
    assert spatial_score("owl", "cat", "on the left of", both) == 0


def test_the_best_object_of_a_label_counts_in_whatever_order_they_are_stored():
    objects = [thing("cup", 0.3, RIGHT), thing("dog", 0.8, RIGHT), thing("cup", 0.9, LEFT), thing("cup", 0.9, RIGHT)]
    assert spatial_score("cup", "dog", "on the left of", objects) == pytest.approx(0.925)


def test_of_persons_only_the_label_person_counts():
    """As in the original, which renames the prompt's nouns, never what was found."""
    girl, person, dog = thing("girl", 0.95, RIGHT), thing("person", 0.9, LEFT), thing("dog", 0.8, RIGHT)
    assert spatial_score("woman", "dog", "on the left of", [girl, person, dog]) == pytest.approx(0.925)
    assert spatial_score("woman", "dog", "on the left of", [girl, dog]) == 0


def test_the_first_object_of_a_label_counts_and_persons_share_a_label():
    objects = [thing("person", 0.9, LEFT), thing("person", 0.8, RIGHT), thing("dog", 0.8, [150, 200, 200, 260])]
    assert spatial_score("girl", "dog", "on the left of", objects) == pytest.approx(0.925)
    assert find_objects("a girl on the top of a frog", TemplateChunker()) == ("person", "frog")


def test_only_200_of_300_prompts_can_score_with_unidets_labels():
    missing = {"mouse", "sofa", "table", "wallet", "bag", "painting", "cow", "phone", "computer"}
    prompts = [p.prompt for p in load_prompts(PROMPTS / "spatial_val.txt")]
    assert sum(not missing & set(find_objects(p, TemplateChunker())) for p in prompts) == 200


LINE = {
    "prompt": "a cup on the left of a dog",
    "obj1": "cup",
    "obj2": "dog",
    "locality": "on the left of",
    "objects": [thing("cup", 0.8, LEFT), thing("dog", 0.8, RIGHT)],
}


def run_verdict(tmp_path, *lines):
    path = tmp_path / "detections.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    files = ["--detections", str(path), "--out", str(tmp_path / "scores.jsonl")]
    return main(["compbench", "verdict", "--category", "spatial", *files])


def test_the_command_writes_prompt_and_score(tmp_path):
    assert run_verdict(tmp_path, LINE, {**LINE, "objects": []}) == 0
    lines = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert lines == [{"prompt": LINE["prompt"], "score": pytest.approx(0.9)}, {"prompt": LINE["prompt"], "score": 0}]
    scores = json.loads((tmp_path / "scores.summary.json").read_text())
    assert (scores["metric"], scores["score"]) == ("spatial_external", pytest.approx(0.45))


def test_a_line_without_a_locality_has_that_of_its_prompt():
    without = {key: value for key, value in LINE.items() if key != "locality"}
    other = {**without, "prompt": "a cup on the right of a dog"}
    lines = [LINE, without, {**LINE, "locality": None}, other]
    scores = [result["score"] for result in spatial.verdicts((f"d:{k}", line) for k, line in enumerate(lines))]
    assert scores == [pytest.approx(0.9)] * 3 + [0]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"prompt": "a cup', "detections.jsonl:2: not a JSON object"),
        ({**LINE, "locality": "inside"}, "jsonl:2: unknown locality 'inside'"),
        ({"prompt": "x", "obj1": "y"}, 'jsonl:2: the line needs the string "obj2"'),
        ({**LINE, "objects": [{"label": "cup", "score": "high", "box": LEFT}]}, "jsonl:2: an object needs"),
        ({**LINE, "objects": [{"label": ["cup"], "score": 1, "box": LEFT}]}, 'jsonl:2: the "label" of an object'),
        ({**LINE, "objects": [{"label": "cup", "score": 2, "box": LEFT}]}, "jsonl:2: the score 2 of an object is not"),
        ({**LINE, "objects": None}, 'jsonl:2: the line needs the list "objects"'),
    ],
)
def test_a_bad_line_is_named(tmp_path, capsys, bad, message):
    assert run_verdict(tmp_path, LINE, bad) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "scores.jsonl").exists()


def test_an_empty_file_is_an_error(tmp_path, capsys):
    assert run_verdict(tmp_path) == 2
    assert "holds no detections" in capsys.readouterr().err


def test_the_frame_is_the_benchmarks():
    assert spatial.frame_scale(512, 512) == 479 / 512
    assert spatial.frame_scale(1024, 512) == 480 / 1024


class FakeDetector:
    """Finds what it is told, unsorted, in the image's own pixels."""

    name = "fake"

    def find(self, image, labels):
        """Three objects, one of them too unsure."""
        return [
            thing("circle", 0.6, [0, 0, 24, 24]),
            thing("square", 0.9, [0, 12, 12, 24]),
            thing("square", 0.05, [0] * 4),
        ]


def test_detections_are_sorted_thresholded_and_scaled_to_the_frame(tmp_path):
    Image.new("RGB", (24, 24)).save(tmp_path / "a red circle left of a blue square_000000.png")
    (line,) = spatial_detect.detect_spatial(tmp_path, FakeDetector(), TemplateChunker())
    assert (line["obj1"], line["obj2"], line["locality"]) == ("circle", "square", "on the left of")
    assert [found["label"] for found in line["objects"]] == ["square", "circle"]
    assert line["objects"][1]["box"] == pytest.approx([0, 0, 479, 479])


@pytest.fixture(scope="module")
def owlv2(tmp_path_factory):
    from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessorPil

    from progrpo.miniature.text import clip_tokenizer

    folder = tmp_path_factory.mktemp("owlv2")
    tokenizer = clip_tokenizer()
    tower = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)
    text = dict(tower, vocab_size=len(tokenizer), max_position_embeddings=16)
    vision = dict(tower, image_size=32, patch_size=8)
    torch.manual_seed(0)
    config = Owlv2Config(text_config=text, vision_config=vision, projection_dim=32)
    Owlv2ForObjectDetection(config).save_pretrained(folder)
    Owlv2ImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_owlv2_answers_in_pixels_under_the_nouns_it_was_asked_for(owlv2, tmp_path):
    detector = spatial_detect.load_spatial_detector(owlv2)
    found = detector.find(Image.new("RGB", (40, 20), "red"), ["circle", "square"])
    assert len(found) == 16  # every patch answers; the threshold comes later
    assert {f["label"] for f in found} <= {"circle", "square"}
    assert all(0 <= f["score"] <= 1 and max(f["box"]) <= 80 for f in found)
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (40, 40)).save(images / "a circle next to a square_000000.png")
    files = ["--images", str(images), "--model", str(owlv2), "--out", str(tmp_path / "d.jsonl")]
    assert main(["compbench", "detect", *files, "--threshold", "0"]) == 0
    assert (
        main(
            [
                "compbench",
                "verdict",
                "--category",
                "spatial",
                "--detections",
                str(tmp_path / "d.jsonl"),
                "--out",
                str(tmp_path / "s.jsonl"),
            ]
        )
        == 0
    )
    assert json.loads((tmp_path / "s.summary.json").read_text())["metric"] == "spatial_owlv2"


def test_a_noun_longer_than_the_models_text_is_cut_and_a_short_one_asked_as_it_is(owlv2):
    detector = spatial_detect.load_spatial_detector(owlv2)
    asked = []
    detector.model.register_forward_pre_hook(lambda _, __, given: asked.append(given["input_ids"]), with_kwargs=True)
    for noun in ("circle", "cup" * 60, "\u732b" * 40):
        assert len(detector.find(Image.new("RGB", (40, 20)), [noun, "square"])) == 16
    detector.processor.tokenizer.model_max_length = 16  # as released: what the model reads
    queries = [["a photo of a circle", "a photo of a square"]]
    assert torch.equal(asked[0], detector.processor(text=queries, return_tensors="pt").input_ids)
    end = detector.processor.tokenizer.eos_token_id
    assert all((ids == end).any(-1).all() and ids.shape == asked[0].shape for ids in asked)


def test_a_prompt_that_the_rule_does_not_know_is_refused(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a cat behind a dog_000000.png")
    with pytest.raises(UserError, match="no locality in 'a cat behind a dog'; the 2D-spatial score knows on side of, "):
        spatial_detect.detect_spatial(folder, None, TemplateChunker())


def test_a_part_of_the_benchmarks_prompts_is_said():
    prompts = [prompt for prompt in stored_answers()["prompts"] if spatial.find_locality(prompt)][:300]
    for some, said in (
        (prompts, None),
        (prompts[:-1], "over 299 of the category's 300 prompts"),
        ([*prompts[:9], "a"], None),
    ):
        results = [{"prompt": prompt, "score": 0.5} for prompt in some]
        assert spatial.summary(results, "m").get("left_out") == said


def test_a_folder_of_another_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "detr"}')
    with pytest.raises(UserError, match="takes owlv2 or mask2former"):
        spatial_detect.load_spatial_detector(tmp_path)
    with pytest.raises(UserError, match="no model there"):
        spatial_detect.load_spatial_detector(tmp_path / "none")
