"""README says what is measured, what exists and what its pictures are made from."""

import importlib.util
import re
import subprocess

import pytest
import yaml

from checkout import ROOT

README = (ROOT / "README.md").read_text()
MEASURED = yaml.safe_load((ROOT / "docs" / "measured.yaml").read_text())["measured"]


def test_every_duration_and_size_is_a_measured_one():
    text = re.sub(r"```.*?```", "", README, flags=re.DOTALL)  # what a command prints is an example
    stated = set(re.findall(r"\b\d+(?:\.\d+)?(?: to \d+)? (?:s|min|h|GB)\b", text))
    known = {value for entry in MEASURED.values() for value in entry.values()}
    assert stated == known


def test_every_file_that_a_link_names_exists():
    targets = {target for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target}
    headings = {
        "#" + re.sub(r"\W+", "-", text.lower()) for text in re.findall(r"^## (.*)$", README, flags=re.MULTILINE)
    }
    assert {target for target in targets if target.startswith("#")} <= headings
    targets -= headings
    assert {f"docs/pictures/{name}.svg" for name in ("method", "compute", "held_out")} <= targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_verdicts_have_their_place():
    assert README.count("<!-- claims:begin -->") == README.count("<!-- claims:end -->") == 1
    assert README.index("<!-- claims:begin -->") < README.index("<!-- claims:end -->")


def pictures():
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["method", "compute", "held_out", "forest", "predicted", "pairs"])
def test_a_picture_is_what_its_script_draws(name):
    if name not in ("method", "compute"):
        subprocess.run(["dvc", "pull", "--quiet", "results/published/mini/curves.dvc"], cwd=ROOT, check=True)
    assert pictures().svg(name) == (ROOT / "docs" / "pictures" / f"{name}.svg").read_bytes()


def test_the_picture_and_its_words_have_the_group_sizes_of_the_paper():
    module = pictures()
    run = module.load_config(ROOT / "config" / "paper.yaml").get_run(module.PROGRPO)
    sizes = [run.group.size, *(stage.keep for stage in run.group.pruning)]
    steps = [stage.step for stage in run.group.pruning]
    words = f"{sizes[0]} images start, {sizes[1]} go on after step {steps[0]}, {sizes[2]} after step {steps[1]}"
    assert words in README
    _, last = module.survivors(run)
    assert [int((last >= step).sum()) for step in (0, steps[0] + 1, steps[1] + 1)] == sizes
