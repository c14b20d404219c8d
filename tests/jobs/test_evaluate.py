"""What an evaluation says of itself: its rule, the settings it was made with, and what it lacks."""

import json
from pathlib import Path
from statistics import fmean, pstdev

import pytest
import yaml
from PIL import Image

import tiny
from progrpo.benchmarks.compbench import CATEGORIES
from progrpo.cli import main
from progrpo.config import load_config, tier_files
from progrpo.errors import UserError
from progrpo.files import write_jsonl
from progrpo.jobs import evaluate
from progrpo.jobs.evaluate import compbench_category


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("t2i_compbench_spatial", "spatial"),
        ("t2i_compbench_spatial_small", "spatial"),
        ("small-Shape-2", "shape"),
        ("color", "color"),
        ("texture_of_mine", "texture"),
    ],
)
def test_a_category_is_a_word_of_the_sets_name_wherever_it_stands(name, category):
    assert compbench_category(name) == category


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("t2i_compbench_small", "none"),
        ("colors", "none"),
        ("spatialshape", "none"),
        ("color_shape", "color and shape"),
    ],
)
def test_a_name_with_no_category_or_with_several_is_refused(name, held):
    with pytest.raises(UserError, match=f"prompt set {name}: its name must hold one of color, .*, and holds {held}"):
        compbench_category(name)


@pytest.mark.parametrize(
    "name",
    [
        "non_spatial_val",
        "t2i_compbench_non_spatial",
        "3d_spatial_val",
        "my-3Dspatial",
        "complex_val_spatial",
        "numeracy_val",
    ],
)
def test_categories_that_other_models_judge_are_refused(name):
    with pytest.raises(UserError, match=f"prompt set {name}: by .* other models judge"):
        compbench_category(name)


def test_every_tiers_sets_name_their_category():
    tiers = tier_files(Path(__file__).parents[2] / "config")
    assert len(tiers) == 3
    for path in tiers:
        sets = [name for name, section in load_config(path).evaluations.items() if "compbench" in section.benchmarks]
        assert {compbench_category(name) for name in sets} == set(CATEGORIES)


def test_a_set_without_a_category_is_refused_before_anything_is_scored(tmp_path, monkeypatch, capsys):
    tier = yaml.safe_load((Path(__file__).parents[2] / "config" / "smoke.yaml").read_text())
    for section in ("prompt_sets", "evaluations"):
        tier[section]["mine"] = tier[section]["t2i_compbench_spatial"]
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tier))
    (tmp_path / "images" / "mine").mkdir(parents=True)
    monkeypatch.setattr(evaluate, "Tools", lambda *_: pytest.fail("began"))
    paths = ["--config", str(tmp_path / "c.yaml"), "--images", str(tmp_path / "images"), "--out", str(tmp_path / "out")]
    assert main(["evaluate", *paths, "--prompts", "mine"]) == 2
    assert "prompt set mine: its name must hold one of color, shape, texture, spatial" in capsys.readouterr().err


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tiny.make_models(tmp_path_factory.mktemp("models"))


def evaluated(config, folder, lines):
    """The result of `progrpo evaluate` on a folder of images with these lines in its prompts.jsonl."""
    for number, line in enumerate(lines):
        Image.new("RGB", (24, 24), (40 * number % 256, 7 * number % 256, 90)).save(folder / "test" / line["image"])
    write_jsonl(folder / "test" / "prompts.jsonl", lines)
    evaluate = ["evaluate", "--config", str(config), "--images", str(folder), "--out", str(folder / "out")]
    assert main([*evaluate, "--if-changed", "begin-anew"]) == 0
    return json.loads((folder / "out" / "test.json").read_text())


def lines_of(count, metadata=lambda k: None):
    return [{"image": f"{k}.png", "prompt": f"a cat number {k}", "metadata": metadata(k)} for k in range(count)]


@pytest.fixture
def tier(models, tmp_path):
    (tmp_path / "test").mkdir()
    return tiny.write_config(tmp_path / "config.yaml", models)


def test_another_number_of_images_than_the_prompt_set_makes_is_recorded(tier, tmp_path, capsys):
    result = evaluated(tier, tmp_path, lines_of(4))
    assert result["partial"] == "4 images, where prompt set test of tier tiny makes 6"
    assert result["partial"] in capsys.readouterr().out
    assert "partial" not in evaluated(tier, tmp_path, lines_of(6))


def test_a_result_names_the_settings_that_decide_its_scores_defaults_too(tier, tmp_path):
    changed = yaml.safe_load(tier.read_text())
    changed["scorers"]["pickscore"] |= {"precision": "bf16", "options": {"preprocess": "device"}}
    before = evaluated(tier, tmp_path, lines_of(6))["scores"]["pickscore"]["settings"]
    tier.write_text(yaml.safe_dump(changed))
    after = evaluated(tier, tmp_path, lines_of(6))["scores"]["pickscore"]["settings"]
    assert (before["precision"], before["preprocess"]) == ("fp32", "pil")
    assert (after["precision"], after["preprocess"]) == ("bf16", "device")


def test_an_option_of_a_scorer_of_ones_own_may_be_anything(tier, tmp_path, monkeypatch):
    (tmp_path / "own_scorer.py").write_text(
        "from pathlib import Path\n"
        "from progrpo.rewards.base import BatchedScorer\n"
        "class Dark(BatchedScorer):\n"
        "    @classmethod\n"
        "    def load(cls, path, device, *, words=Path('words.txt'), **common):\n"
        "        return cls('dark', device, **common)\n"
        "    def score_batch(self, images, prompts):\n"
        "        return 1 - images.mean((1, 2, 3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    changed = yaml.safe_load(tier.read_text())
    changed["scorers"] |= {"dark": {"kind": "own_scorer:Dark"}}
    changed["evaluations"]["test"]["scorers"] = ["dark"]
    tier.write_text(yaml.safe_dump(changed))
    assert evaluated(tier, tmp_path, lines_of(6))["scores"]["dark"]["settings"]["words"] == "words.txt"


def test_scores_by_style_as_hpsv2s_benchmark_gives_them(tier, tmp_path):
    styles = ["anime"] * 20 + ["photo"] * 3
    scores = evaluated(tier, tmp_path, lines_of(23, lambda k: {"style": styles[k]}))["scores"]["pickscore"]
    values = [
        json.loads(line)["pickscore"] for line in (tmp_path / "out" / "test.scores.jsonl").read_text().splitlines()
    ]
    pairs = [fmean(values[k : k + 2]) for k in range(0, 20, 2)]
    assert scores["styles"]["anime"]["mean"] == pytest.approx(fmean(values[:20]))
    assert scores["styles"]["anime"]["std_of_groups"] == pytest.approx(pstdev(pairs))
    assert scores["styles"]["photo"] == pytest.approx({"mean": fmean(values[20:]), "std": pstdev(values[20:]), "n": 3})


@pytest.mark.parametrize("metadata", ["text", {"style": ["a"]}, {"style": 1}, [1]])
def test_metadata_of_any_kind_is_no_style(tier, tmp_path, metadata):
    assert "styles" not in evaluated(tier, tmp_path, lines_of(6, lambda k: metadata))["scores"]["pickscore"]


@pytest.mark.parametrize("layout", ["plain", "compbench"])
def test_images_of_a_generation_that_has_not_ended_are_not_evaluated(models, tmp_path, capsys, layout):
    """Without their prompts.jsonl their names would be read as prompts, as T2I-CompBench's are."""
    tier = tiny.write_config(tmp_path / "config.yaml", models)
    text = yaml.safe_load(tier.read_text())
    text["prompt_sets"]["test"] |= {"limit": 2, "images_per_prompt": 2, "layout": layout}
    tier.write_text(yaml.safe_dump(text))
    images = tmp_path / "images"
    assert main(["generate", "--config", str(tier), "--run", "base_sd35m", "--out", str(images)]) == 0
    evaluate = ["evaluate", "--config", str(tier), "--images", str(images), "--out", str(tmp_path / "out")]
    (images / "test" / "prompts.jsonl").unlink()
    assert main(evaluate) == 2
    assert main([*evaluate, "--allow-partial"]) == 2
    assert "its images are not all made; run progrpo generate again" in capsys.readouterr().err
    assert main(["generate", "--config", str(tier), "--run", "base_sd35m", "--out", str(images)]) == 0
    assert main(evaluate) == 0
