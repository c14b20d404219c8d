"""The batch arithmetic that a training prints first."""

import pytest

import tiny
from checkout import ROOT
from progrpo.cli import main
from progrpo.config import load_config
from progrpo.grpo.progress import batch_arithmetic
from progrpo.grpo.trainer import Trainer

PAPER = load_config(ROOT / "config" / "paper.yaml")


@pytest.mark.parametrize(
    ("name", "ranks", "line"),
    [
        (
            "progrpo_sd35m",
            24,
            "Pro-GRPO: 96 prompts x 12 survivors x 9 steps = 10,368 pairs in 2 updates of 27 passes of 8"
            " on each of 24 ranks",
        ),
        (
            "dancegrpo_sd14",
            1,
            "DanceGRPO: 32 prompts x 16 survivors x 49 steps = 25,088 pairs in 2 updates of 3136 passes of 4 on 1 rank",
        ),
    ],
)
def test_the_arithmetic_of_the_papers_runs(name, ranks, line):
    assert batch_arithmetic(PAPER.get_run(name), ranks, PAPER.get_run(name).micro_batch) == line


def test_a_training_makes_the_passes_that_it_announces_first(tmp_path, monkeypatch, capsys):
    models = tiny.make_models(tmp_path)
    config = tiny.write_config(tmp_path / "config.yaml", models, flow={**tiny.FLOW, "iterations": 1})
    backward, rows = Trainer._backward, []

    def counted(self, samples, pairs, *more):
        rows.append(pairs.count)
        backward(self, samples, pairs, *more)

    monkeypatch.setattr(Trainer, "_backward", counted)
    assert main(["train", "--config", str(config), "--run", "flow", "--out", str(tmp_path / "out")]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.endswith("4 prompts x 2 survivors x 3 steps = 24 pairs in 2 updates of 3 passes of 4 on 1 rank")
    assert (len(rows), sum(rows)) == (2 * 3, 24)
