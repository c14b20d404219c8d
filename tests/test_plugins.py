"""Scorers and selection rules of one's own, named in YAML: from the configuration to a training and its scores."""

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml

import tiny
from checkout import ROOT, call
from progrpo import plugins
from progrpo.cli import main
from progrpo.config import load_config
from progrpo.errors import UserError
from progrpo.rewards import load_scorer
from progrpo.rewards.registry import declared_files

OWN = """
import torch
from progrpo.rewards.base import BatchedScorer

CALLS = []


class Brightness(BatchedScorer):
    def score_batch(self, images, prompts):
        return images.mean((1, 2, 3))


class Weighted(BatchedScorer):
    files = ("weights.txt", "more.txt")

    @classmethod
    def load(cls, path, device, *, offset=0.0, **common):
        scorer = cls("weighted", device, **common)
        scorer.factor, scorer.offset = float((path / "weights.txt").read_text()), offset
        return scorer

    def score_batch(self, images, prompts):
        return self.factor * images.mean((1, 2, 3)) + self.offset


def lowest(rewards, keep, seeds):
    CALLS.append((tuple(rewards.shape), keep, len(seeds)))
    return rewards.argsort(dim=1)[:, :keep].sort(dim=1).values


def no_scorer():
    pass


class Plain:  # not a BatchedScorer
    name = "plain"

    @classmethod
    def load(cls, path, device, **common):
        return cls()

    def score(self, images, prompts):
        return [float("nan") if prompt == "bad" else 0.5 for prompt in prompts][: 1 if "few" in prompts else None]
"""


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """A folder on the import path with a module `own_code`."""
    (tmp_path / "own_code.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_code", None)


def write_config(folder: Path, scorer: dict, rule: str) -> Path:
    """A tier whose only scorer and whose run's rule are those."""
    run = {**tiny.FLOW, "reward": {"mine": 1.0}, "iterations": 1, "group": {**tiny.FLOW["group"], "rule": rule}}
    path = tiny.write_config(folder / "config.yaml", tiny.make_models(folder / "models"), mine=run)
    config = yaml.safe_load(path.read_text())
    config["scorers"] = {"mine": scorer}
    config["evaluations"]["test"]["scorers"] = ["mine"]
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_scorer_and_a_rule_of_ones_own_train_and_evaluate(own):
    config = write_config(own, {"kind": "own_code:Brightness"}, "own_code:lowest")
    common = ["--config", str(config)]
    assert main(["train", *common, "--run", "mine", "--out", str(own / "run")]) == 0
    assert sys.modules["own_code"].CALLS == [((4, 4), 3, 4), ((4, 3), 2, 4)]  # 4 prompts: 4 -> 3 -> 2 trajectories
    images = ["--out", str(own / "images"), "--weights", str(own / "run" / "final")]
    assert main(["generate", *common, "--run", "mine", *images]) == 0
    assert main(["evaluate", *common, "--images", str(own / "images"), "--out", str(own / "scores")]) == 0
    scores = [json.loads(line) for line in (own / "scores" / "test.scores.jsonl").read_text().splitlines()]
    assert len(scores) == 6
    assert all(0 < line["mine"] < 1 for line in scores)


def test_declared_files_and_options_are_those_of_the_class(own):
    (own / "weights.txt").write_text("2")
    images = torch.rand(3, 3, 8, 8)
    scorer = load_scorer("own_code:Weighted", own, offset=1.0)
    assert torch.allclose(scorer.score(images, ["a"] * 3), 2 * images.mean((1, 2, 3)) + 1)
    assert declared_files("own_code:Weighted") == ("weights.txt", "more.txt")
    assert declared_files("own_code:Brightness") == ()
    with pytest.raises(UserError, match="option 'scale' is unknown; known: offset"):
        load_scorer("own_code:Weighted", own, scale=1)
    with pytest.raises(UserError, match="needs a folder of weights"):
        load_scorer("own_code:Weighted", None)
    with pytest.raises(UserError, match="has no `load`"):
        load_scorer("own_code:no_scorer", None)
    (own / "hubconf.py").write_text("raise SystemExit('a stranger's folder ran')")
    with pytest.raises(UserError, match="no class, or has no `load`"):
        load_scorer("torch:hub", own, source="local", trust_repo=True)
    with pytest.raises(UserError, match="'own_code:Gone': module own_code has no Gone"):
        load_scorer("own_code:Gone", None)


def test_a_scorer_that_is_no_batched_one_keeps_its_promises_or_is_named_with_the_prompt(own):
    scorer, images = load_scorer("own_code:Plain", None), torch.rand(2, 3, 8, 8)
    scores = scorer.score(images, ["a", "b"])
    assert scorer.name == "plain"
    assert (scores.tolist(), scores.dtype) == ([0.5, 0.5], torch.float32)
    with pytest.raises(UserError, match="plain: the score for prompt 'bad' is not finite"):
        scorer.score(images, ["a", "bad"])
    with pytest.raises(UserError, match=r"plain: returned \(1,\) for 2 images; return one number each"):
        scorer.score(images, ["few", "b"])


@pytest.mark.parametrize(
    ("scorer", "rule", "message"),
    [
        ("brightness", "ovf", "scorers.mine.kind: 'brightness' is unknown; use one of hpsv2, imagereward, "),
        ("other_code:Brightness", "ovf", "scorers.mine.kind: .*no module other_code; install it or put its folder on"),
        ("no.such.package:Brightness", "ovf", "scorers.mine.kind: .*no module no.such.package"),
        ("pickscore", "lowest", "runs.mine.group.rule: 'lowest' is unknown; use one of ovf, best_of_n, uniform, or"),
        ("pickscore", "own_code:lowest:", "runs.mine.group.rule: .* is unknown"),
    ],
)
def test_the_configuration_refuses_unknown_names_by_their_key(own, scorer, rule, message):
    with pytest.raises(UserError, match=message):
        load_config(write_config(own, {"kind": scorer}, rule))


def test_every_name_of_the_tables_can_be_loaded():
    for table in (plugins.SCORERS, plugins.SELECTION_RULES):
        assert all(callable(plugins.load(name, table)) for name in table)
    assert {kind: declared_files(kind) for kind in plugins.SCORERS} == plugins.SCORER_FILES
    assert all(plugins.SCORER_FILES.values())  # each reads weights


def test_reading_a_configuration_loads_no_network():
    code = (
        "import sys, progrpo.config; progrpo.config.load_config('config/smoke.yaml'); sys.exit('torch' in sys.modules)"
    )
    assert call(sys.executable, "-c", code, cwd=ROOT).returncode == 0
