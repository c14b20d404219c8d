"""Yours against the published: the interval is that of a repetition, and the verdict counts what lies inside."""

import json

import numpy as np
import pytest

from progrpo.cli import main
from progrpo.files import write_json
from progrpo.report.comparison import compare, lines, repetition_interval, verdict
from progrpo.report.summary import estimate

EMPTY = {"tier": "smoke", "evaluations": {}, "training": {}, "analysis": {}, "hardware": {}}


def summary(**models: dict[str, list[float]]) -> dict:
    """{model: {metric: values over seeds}} as a summary."""
    filled = {
        model: {
            metric: estimate({str(seed): value for seed, value in enumerate(values)}) for metric, values in own.items()
        }
        for model, own in models.items()
    }
    return {**EMPTY, "evaluations": filled}


@pytest.mark.parametrize(("n", "m"), [(3, 1), (3, 3), (5, 2)])
def test_95_per_cent_of_repetitions_lie_in_the_interval(n, m):
    draws = np.random.default_rng(0).normal(4.0, 0.5, (4000, n + m))
    published = [estimate({str(seed): value for seed, value in enumerate(row[:n])}) for row in draws]
    bounds = np.array([repetition_interval(values, m) for values in published])
    means = draws[:, n:].mean(axis=1)
    assert np.mean((bounds[:, 0] <= means) & (means <= bounds[:, 1])) == pytest.approx(0.95, abs=0.012)


def test_each_cell_is_judged_by_the_published_interval():
    published = summary(
        run={"a": [1.0, 2.0, 3.0], "b": [1.0, 1.01, 1.02]}, base={"a": [5.0], "c": [5.0]}, other={"a": [1.0]}
    )
    yours = summary(run={"a": [3.0, 2.0, 3.5], "b": [2.0, 2.0, 2.0]}, base={"a": [5.0], "c": [5.1]}, mine={"a": [1.0]})
    cells = compare(yours, published)
    judged = {(cell.model, cell.metric): cell.verdict for cell in cells}
    assert judged == {
        ("run", "a"): "inside",
        ("run", "b"): "outside",
        ("base", "a"): "equal",
        ("base", "c"): "unequal",
    }
    assert len(list(lines(cells))) == 1 + len(cells)


def test_the_same_results_agree_though_all_seeds_are_equal():
    published = summary(run={"a": [1.1, 1.1, 1.1]}, base={"a": [5.0]})
    assert verdict(compare(published, published), "mini") == (
        "Your tier mini agrees with the published: 1 of 1 cells inside the interval of a repetition (on average 95 % are);"
        " 1 of 1 cells of one seed, without interval, equal."
    )


def test_the_verdict_is_that_of_the_cells_with_an_interval():
    metrics = {str(k): [1.0, 2.0, 3.0] for k in range(10)}
    published = summary(run=metrics, base={"a": [5.0]})
    for far, word in ((1, "agrees with"), (2, "differs from")):
        yours = summary(run={key: [99.0] if int(key) < far else [2.0] for key in metrics}, base={"a": [5.1]})
        line = verdict(compare(yours, published), "mini")
        assert line.startswith(f"Your tier mini {word} the published: {10 - far} of 10 cells inside")
        assert "\n" not in line


def test_of_one_published_seed_nothing_is_said_but_that_all_is_equal():
    published = summary(run={"a": [1.0], "b": [2.0]})
    assert verdict(compare(published, published), "mini").startswith("Your tier mini agrees with the published: 2 of 2")
    assert verdict(compare(summary(run={"a": [1.0, 1.2], "b": [2.0]}), published), "mini") == (
        "Your tier mini cannot be judged by the published: 1 of 2 cells of one seed, without interval, equal."
    )


def test_the_command_says_so_in_one_line_where_nothing_is_published(tmp_path, monkeypatch, capsys, request):
    config = request.config.rootpath / "config" / "smoke.yaml"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / "published").mkdir(parents=True)
    write_json("results/smoke/summary.json", summary(run={"a": [1.0]}))
    line = "Nothing is published of tier smoke: there is nothing to compare with.\n"
    assert main(["compare", "--config", str(config)]) == 0
    assert capsys.readouterr().out == line
    write_json("results/published/smoke/summary.json", EMPTY)
    assert main(["compare", "--config", str(config)]) == 0
    assert capsys.readouterr().out == line
    write_json("results/published/smoke/summary.json", summary(run={"a": [1.0, 1.1]}))
    assert main(["compare", "--config", str(config)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("Your tier smoke agrees with the published: 1 of 1")
    assert len((tmp_path / "results/smoke/comparison.txt").read_text().splitlines()) == 3
    assert main(["compare", "--config", str(config), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(cell["model"], cell["metric"], cell["yours"], cell["verdict"]) for cell in told["cells"]] == [
        ("run", "a", 1.0, "inside")
    ]
    assert told["verdict"].startswith("Your tier smoke agrees")


def test_an_estimate_of_one_seed_has_no_interval_whatever_its_spread_says():
    assert repetition_interval({"mean": 1.0, "std": 0.1, "n": 1}, 3) == (None, None)
