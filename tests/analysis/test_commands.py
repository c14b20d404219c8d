"""`progrpo flops` and `progrpo analyse`: files in, files out, one line for bad input."""

import argparse
import json

import numpy as np
import pytest

from checkout import ROOT
from progrpo.commands import analyse, flops, sample_rewards
from progrpo.errors import UserError
from progrpo.provenance import code_hash


def run(command, *words):
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    arguments = parser.parse_args([str(word) for word in words])
    return arguments.run(arguments)


def write(path, value):
    path.write_text(json.dumps(value))
    return path


@pytest.fixture
def rewards():
    return np.random.default_rng(0).normal(size=(20, 12))


def test_reward_clustering(tmp_path, rewards):
    made = {"config": "abc", "seed": 0}
    stored = {"rewards": rewards.tolist(), "provenance": made}
    data, out = write(tmp_path / "rewards.json", stored), tmp_path / "out.json"
    assert run(analyse, "analyse", "reward-clustering", "--rewards", data, "--out", out, "--simulations", 9) == 0
    result = json.loads(out.read_text())
    assert result["trajectories"] == 240
    assert result["provenance"]["made_from"] == made
    assert result["provenance"]["code"] == code_hash()


def test_pruning_pilot(tmp_path, rewards):
    previews = np.repeat(rewards[:, :, None], 10, axis=2)
    data = write(tmp_path / "p.json", {"previews": previews.tolist(), "terminal": rewards.tolist()})
    words = ["--previews", data, "--out", tmp_path / "out.json", "--counts", 12, 8, 4, "--pairs", "2,4", "5,7"]
    assert run(analyse, "analyse", "pruning-pilot", *words) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert [row["spearman"] for row in result["candidates"]] == [[1, 1], [1, 1]]
    assert result["selected"]["pruning_steps"] == [2, 4]
    with pytest.raises(UserError, match="two integers"):
        run(analyse, "analyse", "pruning-pilot", *words[:-1], "5-7")


def test_ovf_study_reads_metrics_of_every_seed(tmp_path):
    words = []
    for arm in ("full", "uniform", "ovf"):
        folders = [tmp_path / f"{arm}-seed{seed}" for seed in (0, 1)]
        for folder in folders:
            folder.mkdir()
            keys = analyse.OVF_STUDY_METRICS.values()
            lines = [json.dumps({"iteration": i, **dict.fromkeys(keys, 0.5 * i)}) for i in range(1, 6)]
            (folder / "metrics.jsonl").write_text("\n".join(lines))
        words += [f"--{arm}", *folders]
    assert run(analyse, "analyse", "ovf-study", *words, "--out", tmp_path / "out.json", "--window", 1) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["seeds"] == 2
    assert (
        result["provenance"]["made_from"]["full"] == [{"config": None, "seed": None}] * 2
    )  # their weights are not here
    assert result["curves"]["ovf"]["reward"]["mean"] == [0.5, 1, 1.5, 2, 2.5]
    moved = folders[1].rename(tmp_path / "ovf-seed2")
    with pytest.raises(UserError, match="same seeds, each once: full 0, 1; uniform 0, 1; ovf 0, 2"):
        run(analyse, "analyse", "ovf-study", *words[:-1], moved, "--out", tmp_path / "out.json")
    moved.rename(folders[1])
    (folders[0] / "metrics.jsonl").write_text('{"iteration": 1}\n')
    with pytest.raises(UserError, match="metrics.jsonl: entry 1: no"):
        run(analyse, "analyse", "ovf-study", *words, "--out", tmp_path / "out.json")


def test_a_gradient_study_needs_an_analysis_of_gradients_and_its_pools(tmp_path):
    np.savez(tmp_path / "p.npz", rewards=np.zeros((2, 48)))
    words = ["--config", ROOT / "config/smoke.yaml", "--samples", tmp_path / "p.npz", "--out", tmp_path / "out.json"]
    with pytest.raises(UserError, match=r"p\.npz: no pools of gradients: holds no previews, projections, grams"):
        run(analyse, "analyse", "gradient-signal", *words)
    with pytest.raises(UserError, match="--analysis reward_clustering: studies no gradients"):
        run(analyse, "analyse", "gradient-signal", *words, "--analysis", "reward_clustering")


def test_an_analysis_that_the_tier_lacks_is_named_with_those_that_it_has(tmp_path):
    words = ["--config", ROOT / "config/smoke.yaml", "--analysis", "gradients", "--out", tmp_path / "out"]
    told = "--analysis gradients: no such analysis in tier smoke; known: reward_clustering, pruning_pilot,"
    with pytest.raises(UserError, match=told):
        run(analyse, "analyse", "gradient-signal", *words, "--samples", tmp_path / "p.npz")
    with pytest.raises(UserError, match=told):
        run(sample_rewards, "sample-rewards", *words)


@pytest.mark.parametrize("stored", [{"other": []}, {"rewards": [[1.0, 1.0, 1.0]]}, {"rewards": "x"}])
def test_bad_rewards_name_the_file_and_leave_nothing(tmp_path, stored):
    data, out = write(tmp_path / "rewards.json", stored), tmp_path / "out.json"
    with pytest.raises(UserError, match=r"rewards\.json: "):
        run(analyse, "analyse", "reward-clustering", "--rewards", data, "--out", out)
    assert not out.exists()


def test_flops_prints_a_table_and_json(tmp_path, monkeypatch, capsys):
    costs = ("denoiser", "decoder", "taesd", "reward", "trained_step")
    names = [*costs, *(f"{cost}_without_attention" for cost in costs)]
    measured = {backbone: dict.fromkeys(names, 1.0) for backbone in ("sd35m", "sd14")}
    monkeypatch.setattr("progrpo.cost.atomic_costs.measure", lambda: measured)
    assert run(flops, "flops", "--out", tmp_path / "flops.json") == 0
    page = capsys.readouterr().out
    for text in ("335626.82", "360 / 396", "equation_22_as_written", "(5, 7)"):
        assert text in page
    assert run(flops, "flops", "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "flops.json").read_text())
