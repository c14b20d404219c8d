"""README says what is measured, what exists and what its pictures are made from."""

import importlib.util
import re
import subprocess

import numpy as np
import pytest
import yaml

from checkout import ENVIRONMENT, ROOT
from progrpo.files import read_json

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


@pytest.fixture(scope="module")
def curves():
    """The published curves, pulled; another process may be pulling, too."""
    command = ["dvc", "--wait-for-lock", "pull", "--quiet", "results/published/mini/curves.dvc"]
    subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=True)


def drawn(svg: bytes) -> tuple[str, list[str], np.ndarray]:
    """(an SVG without its numbers, its texts, its numbers); a name that is a hash of numbers is replaced by its place among those."""
    text = svg.decode()
    for place, name in enumerate(dict.fromkeys(re.findall(r'id="([mp][0-9a-f]{10})"', text))):
        text = text.replace(name, f"name {place}")
    number = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
    numbers = np.array([float(found) for found in re.findall(number, text)])
    return re.sub(number, "0", text), re.findall(r"<!-- (.*?) -->", text), numbers


@pytest.mark.xdist_group("pictures")  # the curves are pulled once, by one worker
@pytest.mark.parametrize("name", ["method", "compute", "held_out", "forest", "predicted", "pairs"])
def test_a_picture_is_what_its_script_draws(name, curves):
    """Up to the rounding of another processor, a thousandth of a point."""
    shape, texts, numbers = drawn(pictures().svg(name))
    its_shape, its_texts, its_numbers = drawn((ROOT / "docs" / "pictures" / f"{name}.svg").read_bytes())
    assert texts == its_texts
    assert shape == its_shape
    np.testing.assert_allclose(numbers, its_numbers, rtol=0, atol=1e-3)


def test_the_picture_and_its_words_have_the_group_sizes_of_the_paper():
    module = pictures()
    run = module.load_config(ROOT / "config" / "paper.yaml").get_run(module.PROGRPO)
    sizes = [run.group.size, *(stage.keep for stage in run.group.pruning)]
    steps = [stage.step for stage in run.group.pruning]
    words = f"{sizes[0]} images start, {sizes[1]} go on after step {steps[0]}, {sizes[2]} after step {steps[1]}"
    assert words in README
    _, last = module.survivors(run)
    assert [int((last >= step).sum()) for step in (0, steps[0] + 1, steps[1] + 1)] == sizes


def test_operations_on_sd14_are_those_of_the_published_accountings():
    accountings = read_json(ROOT / "results/published/mini/summary.json")["analysis"]["flops"]["accountings"]
    said = []
    for name in ("measured", "published"):
        runs = accountings[name]["runs"]
        ratio = runs["progrpo_sd14"]["tflop"]["total"] / runs["dancegrpo_sd14"]["tflop"]["total"]
        said.append(f"{ratio:.2f}".removeprefix("0"))
    assert (
        f"Pro-GRPO takes {said[0]} of DanceGRPO's operations per prompt there, where the paper's totals say {said[1]} (Table 11)"
        in README
    )
    assert f"per prompt: as the paper counts {said[1]} of the baseline's, as this code runs {said[0]} |" in README
