"""README says what is measured, what exists and what its pictures are made from."""

import importlib.util
import re
import subprocess

import numpy as np
import pytest
import yaml

from checkout import ENVIRONMENT, ROOT
from progrpo.analysis.statistics import mean_interval
from progrpo.config import load_config
from progrpo.files import read_json
from progrpo.report.claims_figures import observed
from progrpo.report.claims_file import load_claims
from progrpo.report.evidence import Evidence
from progrpo.report.stored import load_summary
from progrpo.report.verdicts import gains_in_units

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


@pytest.fixture(scope="module")
def evidence(curves) -> Evidence:
    """What tier mini has published."""
    folder = ROOT / "results/published/mini"
    analyses = load_summary(folder / "summary.json", "mini")["analysis"]
    return Evidence(load_config(ROOT / "config/mini.yaml"), folder, analyses)


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


def share(value: float) -> str:
    return f"{value:.2f}".replace("0.", ".", 1)


@pytest.mark.xdist_group("pictures")
def test_shares_of_the_gain_in_the_prose_are_those_of_the_published_curves(evidence):
    guard = load_claims(ROOT / "config/claims.yaml").guards["flow"]

    def gain(arm: str, seeds: list[int], at: int | None = None) -> str:
        budget = float(at) if at else None
        return share(gains_in_units(arm, "pickscore", seeds, guard, evidence, budget=budget).mean())

    both = evidence.seeds("progrpo_sd35m", "random_sd35m")
    assert len(both) == 4
    found = gain("progrpo_sd35m", both), gain("random_sd35m", both)
    assert "on the four seeds of both it gains {}, pruning at\n  random {}.".format(*found) in README
    longer = evidence.seeds("plain12_equal_calls_sd35m")
    found = gain("plain12_equal_calls_sd35m", longer, 200), gain("plain12_equal_calls_sd35m", longer)
    assert "had gained {} after 200 iterations, and {} after the 308".format(*found) in README
    assert f"the same arm has {gain('plain12_sd35m', longer)} after 200 iterations of the same four seeds" in README
    law = evidence.analyses["gradient_signal"]["arms"]
    for arm, words in (("progrpo_sd35m", "minus its prediction is "), ("progrpo_flash_sd35m", "excludes zero, ")):
        found = mean_interval(observed(arm, law[arm], guard, evidence) - law[arm])
        assert f"{words}{share(found['mean'])} [{share(found['low'])}, {share(found['high'])}]." in README
    calls = [evidence.rate(arm, "calls") for arm in ("progrpo96_sd35m", "flowgrpo_sd35m")]
    assert f"at {calls[0] / calls[1]:.2f} times\n  its denoiser calls" in README


@pytest.mark.xdist_group("pictures")
def test_gains_of_the_unet_in_the_prose_are_those_of_the_published_curves(evidence):
    faithful = read_json(ROOT / "results/published/mini/regime_search.json")["faithful_images"]["hpsv2"]

    def gains(arm: str, metric: str, seeds: list[int]) -> np.ndarray:
        return evidence.final_gains(arm, metric, seeds).mean(axis=1)

    assert f"rises by {gains('dancegrpo_sd14', 'hpsv2', [0])[0]:.4f}".replace("0.", ".") in README
    strict = evidence.base("dancegrpo_sd14", "scene_strict", [0]).mean()
    fallen = strict + gains("dancegrpo_sd14", "scene_strict", [0])[0]
    assert f"strict accuracy from {strict:.3f} to {fallen:.3f}".replace("0.", ".") in README
    seeds = evidence.seeds("dancegrpo_sd14_ten")
    shares = gains("dancegrpo_sd14_ten", "hpsv2", seeds) / (
        faithful - evidence.base("dancegrpo_sd14_ten", "hpsv2", seeds).mean(axis=1)
    )
    assert "gains {:.0f}, {:.0f} and {:.0f} % of the headroom".format(*(100 * shares[:3])) in " ".join(README.split())
    assert shares[3] < 0
    both = evidence.seeds("progrpo_sd14_ten", "dancegrpo_sd14_ten")
    ratio = gains("progrpo_sd14_ten", "hpsv2", both).mean() / gains("dancegrpo_sd14_ten", "hpsv2", both).mean()
    assert f"three seeds that both have, Pro-GRPO gains {100 * ratio:.0f} % of what DanceGRPO does" in README
