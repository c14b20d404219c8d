"""YAML and the configuration at the edge: plain, of a bounded size, every mistake in one line."""

import copy
import re
from pathlib import Path

import pytest
import yaml

from progrpo.cli import main
from progrpo.config import load_config
from progrpo.errors import UserError
from progrpo.typed import read_yaml

SMOKE = yaml.safe_load((Path(__file__).parents[1] / "config" / "smoke.yaml").read_text())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", ":3: not valid YAML: the key 'a' stands twice"),
        ("a: [1\n", "not valid YAML"),
        ("a: &a [*a]\n", "an alias refers to what contains it"),
        (
            "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 9)),
            "more than",
        ),
        ("[" * 5000, "not valid YAML"),
        ("a: !!python/object/apply:os.system ['touch X']\n", "not valid YAML"),
        ("a: 2001-99-99\n", "not valid YAML"),
        ("a: !!int ''\n", "not valid YAML"),
    ],
)
def test_what_is_no_plain_yaml_is_one_line(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        read_yaml(tmp_path / "c.yaml")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_merged_keys_may_be_overridden(tmp_path):
    (tmp_path / "c.yaml").write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n")
    assert read_yaml(tmp_path / "c.yaml")["b"] == {"x": 3, "y": 2}


def test_a_binary_config_is_one_line(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(UserError, match=r"c\.yaml:1: not UTF-8"):
        load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("prompts_per_iteration",), 1e30),
        (("prompts_per_iteration",), 10**30),
        (("sampling", "steps"), 10**9),
        (("group", "size"), 10**12),
        (("optimizer", "learning_rate"), 1e30),
        (("optimizer", "betas"), [0.9, 1.0]),
        (("optimizer", "epsilon"), 0),
        (("lora",), {"targets": []}),
        (("lora",), {"targets": [""]}),
        (("lora",), {"rank": 10**9}),
        (("seeds",), []),
        (("seeds",), [-1]),
        (("reward",), {"hpsv2": float("nan")}),
    ],
)
def test_a_value_out_of_bounds_is_named(tmp_path, place, value):
    config = copy.deepcopy(SMOKE)
    name = next(iter(config["runs"]))
    section = config["runs"][name] = copy.deepcopy(config["runs"][name])
    for key in place[:-1]:
        section = section[key]
    section[place[-1]] = value
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=rf"runs\.{name}\.{place[0]}"):
        load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("candidates", [], "gradients_of needs one pair of candidates, not 0, and keep"),
        ("candidates", [[2, 4], [5, 7]], "gradients_of needs one pair of candidates, not 2, and keep"),
        ("keep", None, "gradients_of needs one pair of candidates, not 1, and keep"),
        *(
            ("candidates", [pair], f"candidates must be pairs 1 <= t1 < t2 <= 10, got {pair}")
            for pair in ([0, 7], [7, 7], [5, 11])
        ),
        *(
            ("keep", keep, f"keep must not grow, from group (48) down to at least 2, got {keep}")
            for keep in ([49, 12], [12, 24], [12, 1])
        ),
    ],
)
def test_an_analysis_that_nothing_could_analyse_is_refused_before_it_is_sampled(tmp_path, key, value, told):
    study = {**SMOKE["analyses"]["gradient_signal"], key: value}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**SMOKE, "analyses": {"study": study}}))
    with pytest.raises(UserError, match=rf"analyses\.study.*{re.escape(told)}"):
        load_config(tmp_path / "c.yaml")


def test_a_pilot_whose_default_survivors_would_be_too_few_is_refused_and_a_study_of_terminal_rewards_is_not(tmp_path):
    """Without `keep` half of the group and a quarter of it go on; a gradient study's last selection may be on final images."""
    pilot = {**SMOKE["analyses"]["pruning_pilot"], "group": 6, "candidates": [[2, 4]]}
    pilot.pop("keep", None)
    study = {**SMOKE["analyses"]["gradient_signal"], "candidates": [[5, 10]]}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**SMOKE, "analyses": {"study": study}}))
    load_config(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**SMOKE, "analyses": {"pilot": pilot}}))
    with pytest.raises(UserError, match=r"analyses\.pilot.*from group \(6\) down to at least 2, got \[3, 1\]"):
        load_config(tmp_path / "c.yaml")


def test_settings_of_benchmarks_are_typed(tmp_path):
    for settings in ({"geneval": {"detector": 1}}, {"compbench": {"vqa": "x", "chunker": "other"}}, {"other": {}}):
        (tmp_path / "c.yaml").write_text(yaml.safe_dump({**SMOKE, "benchmarks": settings}))
        with pytest.raises(UserError, match=r"c\.yaml: benchmarks\."):
            load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("place", "value", "line"),
    [
        (("seeds",), [True], "seeds: 'True' is no number"),
        (("seeds",), ["0"], "seeds: '0' is no number"),
        (("seeds",), [1, 1], "seeds must differ"),
        (("models", "sd14", "resolution"), "24", "models.sd14.resolution: '24' is no number"),
        (("prompt_sets", "train", "limit"), True, "prompt_sets.train.limit: 'True' is no number"),
        (("scorers", "PICKSCORE"), {"kind": "pickscore"}, "PICKSCORE and pickscore differ in case only"),
    ],
)
def test_no_number_is_read_from_a_truth_value_and_no_name_taken_twice(tmp_path, place, value, line):
    config = copy.deepcopy(SMOKE)
    section = config
    for key in place[:-1]:
        section = section[key]
    section[place[-1]] = value
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError) as error:
        load_config(tmp_path / "c.yaml")
    assert line in str(error.value)


def test_a_fraction_may_be_written_as_yaml_takes_for_text(tmp_path):
    config = copy.deepcopy(SMOKE)
    optimizer = next(iter(config["runs"].values()))["optimizer"]
    optimizer["learning_rate"] = f"{optimizer['learning_rate']:e}"
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    assert load_config(tmp_path / "c.yaml") == load_config(Path(__file__).parents[1] / "config" / "smoke.yaml")


def test_what_the_system_says_of_a_name_is_one_line(tmp_path, capsys):
    assert main(["summary", "--config", "x" * 300, "--out", str(tmp_path / "s.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("x: File name too long")


@pytest.mark.parametrize("written", ["010", "-007", "0_1"])
def test_a_number_that_begins_with_0_is_not_read_in_base_8(tmp_path, written):
    (tmp_path / "c.yaml").write_text(f"iterations: {written}\nzero: 0\nhalf: 0.5\n")
    assert read_yaml(tmp_path / "c.yaml") == {"iterations": written, "zero": 0, "half": 0.5}
