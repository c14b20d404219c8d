"""Which rule of T2I-CompBench++ judges a prompt set, by its name."""

from pathlib import Path

import pytest
import yaml

from progrpo.benchmarks.compbench import CATEGORIES
from progrpo.cli import main
from progrpo.config import load_config, tier_files
from progrpo.errors import UserError
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
        ("non_spatialshape", "none"),
        ("color_shape", "color and shape"),
    ],
)
def test_a_name_with_no_category_or_with_several_is_refused(name, held):
    with pytest.raises(UserError, match=f"prompt set {name}: its name must hold one of color, .*, and holds {held}"):
        compbench_category(name)


def test_every_tiers_sets_name_their_category():
    for path in tier_files():
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
