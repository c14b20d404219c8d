"""No benchmark scores part of a folder silently: what is missing is counted and refused, or allowed and reported."""

import json

import pytest
from PIL import Image

from progrpo.benchmarks.images import gaps, list_images
from progrpo.cli import main
from progrpo.errors import UserError

RECORD = {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


@pytest.fixture
def geneval(tmp_path):
    """A whole GenEval folder: four prompts with two images each."""
    for prompt in range(4):
        folder = tmp_path / "images" / f"{prompt:05d}"
        for k in range(2):
            put(folder / "samples" / f"{k:04d}.png")
        (folder / "metadata.jsonl").write_text(json.dumps(RECORD))
        put(folder / "grid.png")  # the original's generation leaves one beside the samples
    return tmp_path / "images"


def rename(folder, ending):
    for path in sorted(folder.glob("0000[13]/samples/*.png")):
        path.rename(path.with_suffix(ending))


def second_of_all(folder, ending):
    for path in sorted(folder.glob("*/samples/0001.png")):
        path.rename(path.with_suffix(ending))


def remove(folder, name):
    path = folder / name
    if path.is_dir():
        for child in sorted(path.rglob("*"), reverse=True):
            child.rmdir() if child.is_dir() else child.unlink()
        path.rmdir()
    else:
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "message", "left"),
    [
        (lambda f: rename(f, ".jpg"), "2 of 4 prompts have no samples/NNNN.png, the first is 00001.* 4 .jpg", 4),
        (lambda f: rename(f, ".PNG"), "2 of 4 prompts have no samples/NNNN.png, the first is 00001.* 4 .PNG", 4),
        (lambda f: remove(f, "00002/samples"), "1 of 4 prompts have no samples/NNNN.png, the first is 00002", 6),
        (lambda f: remove(f, "00002"), "1 prompt folders are left out of 0 to 3", 6),
        (lambda f: remove(f, "00003/samples/0001.png"), "1 of 4 prompts have fewer images than the 2", 7),
        (
            lambda f: second_of_all(f, ".jpg"),
            r"4 names are not NNNN.png or 00000, the first is 00000/samples/0001.jpg",
            4,
        ),
        (
            lambda f: second_of_all(f, ".PNG"),
            r"4 names are not NNNN.png or 00000, the first is 00000/samples/0001.PNG",
            4,
        ),
        (lambda f: (f / "00003").rename(f / "third"), "1 names are not NNNN.png or 00000, the first is third", 6),
    ],
)
def test_a_partial_geneval_folder_is_refused_or_reported(geneval, damage, message, left):
    assert len(list_images(geneval)) == 8
    assert gaps(geneval) is None
    damage(geneval)
    with pytest.raises(UserError, match=message):
        list_images(geneval)
    assert len(list_images(geneval, allow_partial=True)) == left


@pytest.fixture
def own(tmp_path):
    """A whole folder in this project's layout."""
    for k in range(3):
        put(tmp_path / f"{k}.png")
    lines = [{"image": f"{k}.png", "prompt": "a bench", "metadata": RECORD} for k in range(3)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_a_partial_folder_of_this_project_is_refused_or_reported(own):
    assert len(list_images(own)) == 3
    put(own / "3.png")
    with pytest.raises(UserError, match="1 images are not in prompts.jsonl, the first is 3.png"):
        list_images(own)
    assert len(list_images(own, allow_partial=True)) == 3
    (own / "1.png").unlink()
    with pytest.raises(UserError, match=r"1 of 3 images do not exist, the first is 1.png \(.*prompts.jsonl:2\)"):
        list_images(own)
    assert len(list_images(own, allow_partial=True)) == 2


def check_litter(folder):
    """What other programs leave in a folder of images is no image, and no gap."""
    before = list_images(folder)
    for path in [item.path for item in before]:
        path.with_name(f"._{path.name}").write_bytes(b"what macOS keeps on disks of others")
        put(path.parent / ".ipynb_checkpoints" / path.name)
    assert gaps(folder) is None
    assert list_images(folder) == before


@pytest.mark.parametrize("layout", ["geneval", "own"])
def test_what_other_programs_leave_is_no_image_and_no_gap(request, layout):
    check_litter(request.getfixturevalue(layout))


def test_a_record_over_several_lines_is_read_as_the_original_reads_it(geneval):
    before = list_images(geneval)
    (geneval / "00001" / "metadata.jsonl").write_text(json.dumps(RECORD, indent=4))
    assert [item.metadata for item in list_images(geneval)] == [item.metadata for item in before]
    (geneval / "00001" / "metadata.jsonl").write_text(json.dumps(RECORD) + "\n" + json.dumps(RECORD))
    with pytest.raises(UserError, match="expected the one GenEval record of the prompt, found 2"):
        list_images(geneval)


def test_images_beside_the_samples_of_a_compbench_folder_are_counted(tmp_path):
    put(tmp_path / "samples" / "a bench_000000.png")
    assert len(list_images(tmp_path)) == 1
    put(tmp_path / "a cup_000001.png")
    with pytest.raises(UserError, match="1 images lie beside samples/, the first is a cup_000001.png"):
        list_images(tmp_path)


@pytest.fixture(params=["", "samples"])
def compbench(tmp_path, request):
    """A whole T2I-CompBench folder: three prompts with two images each, numbered through."""
    for k in range(6):
        put(tmp_path / "images" / request.param / f"{('a bench', 'a cup', 'a dog_1')[k // 2]}_{k:06d}.png")
    if request.param:
        put(tmp_path / "images" / "a bench-grid-00000.png")  # the original's generation leaves one beside the samples
    return tmp_path / "images"


def test_what_other_programs_leave_beside_compbench_images_does_not_count(compbench):
    check_litter(compbench)


@pytest.mark.parametrize(
    ("gone", "message", "left"),
    [
        (["a cup_000003"], "1 of 3 prompts have fewer images than the 2 of others, the first is 'a cup'", 5),
        (["a dog_1_000005"], "1 of 3 prompts have fewer images than the 2 of others, the first is 'a dog_1'", 5),
        (["a bench_000001", "a cup_000002", "a dog_1_000005"], "2 numbers are left out of the images' 0 to 4", 3),
        (["a bench_000000", "a bench_000001"], "2 numbers are left out of the images' 0 to 5", 4),
    ],
)
def test_a_partial_compbench_folder_is_refused_or_reported(compbench, gone, message, left):
    assert len(list_images(compbench)) == 6
    assert gaps(compbench) is None
    for name in gone:
        next(compbench.rglob(f"{name}.png")).unlink()
    with pytest.raises(UserError, match=message):
        list_images(compbench)
    assert len(list_images(compbench, allow_partial=True)) == left


def test_a_compbench_folder_may_number_the_images_of_each_prompt(tmp_path):
    for name in ("a bench_0", "a bench_1", "a cup_0", "a cup_1"):
        put(tmp_path / f"{name}.png")
    assert len(list_images(tmp_path)) == 4
    (tmp_path / "a cup_1.png").unlink()
    with pytest.raises(UserError, match="1 of 2 prompts have fewer images"):
        list_images(tmp_path)


@pytest.mark.parametrize("name", ["../x.png", "/x.png", "a/../../x.png", "0.png", "./0.png", "//0.png"])
def test_an_index_names_images_inside_its_folder_once(own, name):
    with open(own / "prompts.jsonl", "a") as file:
        file.write(json.dumps({"image": name, "prompt": "a bench"}))
    with pytest.raises(UserError, match="prompts.jsonl:4: "):
        list_images(own, allow_partial=True)


def test_a_folder_without_any_image_is_refused_even_as_a_partial_one(geneval):
    rename(geneval, ".jpg")
    for k in (0, 2):
        remove(geneval, f"{k:05d}/samples")
    with pytest.raises(UserError, match="4 of 4 prompts have no"):
        list_images(geneval, allow_partial=True)


def test_the_verdict_reports_what_the_detection_left_out(tmp_path, capsys):
    line = {"image": "0.png", "metadata": RECORD, "detections": []}
    (tmp_path / "d.jsonl").write_text(json.dumps(line))
    settings = {"classes": ["bench"], "colors": ["red"], "partial": "1 of 4 prompts have no samples"}
    (tmp_path / "d.settings.json").write_text(json.dumps(settings))
    assert (
        main(["geneval", "verdict", "--detections", str(tmp_path / "d.jsonl"), "--out", str(tmp_path / "v.jsonl")]) == 0
    )
    assert json.loads((tmp_path / "v.summary.json").read_text())["partial"] == settings["partial"]
    assert "PARTIAL: 1 of 4" in capsys.readouterr().out


@pytest.mark.parametrize("include", [{"include": []}, {}])
def test_a_record_that_only_excludes_has_its_verdict(tmp_path, include):
    record = {"tag": "none", **include, "exclude": [{"class": "bench", "count": 1}], "prompt": "no bench"}
    bench = {"class": "bench", "box": [0, 0, 1, 1], "score": 0.9}
    lines = [{"image": f"{k}.png", "metadata": record, "detections": [bench] * k} for k in range(2)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert (
        main(["geneval", "verdict", "--detections", str(tmp_path / "d.jsonl"), "--out", str(tmp_path / "v.jsonl")]) == 0
    )
    verdicts = [json.loads(line)["correct"] for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert verdicts == [True, False]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({**RECORD, "include": {"class": "bench"}}, 'd.jsonl:1: not a GenEval record: "include" and "exclude"'),
        ({**RECORD, "include": ["bench"]}, 'd.jsonl:1: a clause has no "class"'),
        ({**RECORD, "include": "bench"}, "d.jsonl:1: not a GenEval record"),
        ({**RECORD, "include": [{"class": ["bench"], "count": 1}]}, 'd.jsonl:1: a clause has no "class"'),
        (["bench"], "d.jsonl:1: not a GenEval record"),
    ],
)
def test_a_first_record_of_another_shape_is_named(tmp_path, capsys, metadata, message):
    lines = [{"image": f"{k}.png", "metadata": m, "detections": []} for k, m in enumerate((metadata, RECORD))]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["geneval", "verdict", "--detections", str(tmp_path / "d.jsonl"), "--out", str(tmp_path / "v.jsonl")]
    assert main(command) == 2
    assert message in capsys.readouterr().err


def test_the_miniature_worlds_classes_are_known_by_what_a_first_record_excludes(tmp_path):
    excludes = {"tag": "none", "exclude": [{"class": "triangle", "count": 1}], "prompt": "no triangle"}
    line = {"image": "0.png", "metadata": excludes, "detections": []}
    (tmp_path / "d.jsonl").write_text(json.dumps(line))
    command = ["geneval", "verdict", "--detections", str(tmp_path / "d.jsonl"), "--out", str(tmp_path / "v.jsonl")]
    assert main(command) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-objects", "-3"], "--max-objects -3: must be between 1 and"),
        (["--threshold", "nan"], "--threshold nan: must be between 0 and 1"),
        (["--max-overlap", "-1"], "--max-overlap -1.0: must be"),
        (["--out", "d.jsonl"], "would replace"),
        (["--out", "./d.jsonl"], "would replace"),
        (["--out", "d.settings.json"], "would replace"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    text = json.dumps({"image": "0.png", "metadata": RECORD, "detections": []})
    (tmp_path / "d.jsonl").write_text(text)
    assert main(["geneval", "verdict", "--detections", "d.jsonl", "--out", "v.jsonl", *options]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "d.jsonl").read_text() == text
    assert len(list(tmp_path.iterdir())) == 1


def test_an_image_is_judged_once_under_whatever_name(tmp_path, capsys):
    lines = [{"image": name, "metadata": RECORD, "detections": []} for name in ("a/0.png", "a/./0.png")]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["geneval", "verdict", "--detections", str(tmp_path / "d.jsonl"), "--out", str(tmp_path / "v.jsonl")]
    assert main(command) == 2
    assert "d.jsonl:2: image a/0.png was judged already" in capsys.readouterr().err
