"""The stored inner products are those of the gradients that training would take."""

import json

import numpy as np
import pytest
import torch
import yaml

import tiny
from progrpo.cli import main
from progrpo.config import load_config
from progrpo.grpo.backbone import load_backbone
from progrpo.jobs.loading import scorer_of
from progrpo.jobs.sample_gradients import _Gradients
from progrpo.jobs.sample_rewards import sample_pool


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradients")
    path = tiny.write_config(folder / "config.yaml", tiny.make_models(folder), flow=tiny.FLOW)
    edited = yaml.safe_load(path.read_text())
    edited["analyses"] = {
        "gradient_signal": {
            **{"model": "sd35m", "scorer": "pickscore", "prompts": "train", "prompt_count": 2, "group": 6},
            **{"sampling": {"steps": 4, "guidance_scale": 1.0, "noise": 0.7}, "gradients_of": "flow"},
            **{"candidates": [[2, 3]], "keep": [4, 3]},
        }
    }
    path.write_text(yaml.safe_dump(edited))
    return path


def test_a_groups_gradient_is_the_weighted_sum_of_its_trajectories(config):
    settings = load_config(config)
    analysis, device = settings.analyses["gradient_signal"], torch.device("cpu")
    backbone, scorer = load_backbone(settings.models["sd35m"], device), scorer_of(settings.scorers["pickscore"], device)
    gradients = _Gradients(backbone, settings.runs["flow"], analysis)
    with torch.no_grad():
        rollout = sample_pool(backbone, scorer, ["a red square"], 0, analysis, None)
    text = backbone.encode(["a red square"])
    each, group = gradients.of_trajectories(rollout, text), gradients.of_group(rollout, text)
    weights = (rollout.rewards[0] - rollout.rewards[0].mean()) / 6
    assert each.shape == (6, sum(p.numel() for p in gradients.parameters))
    assert torch.allclose(weights @ each, group, rtol=0, atol=1e-3 * float(group.abs().max()))
    assert group.norm() > 0


def test_pools_become_a_study_that_predicts_the_tiers_arms(config, tmp_path):
    out = tmp_path / "pools.npz"
    options = ["--config", str(config), "--analysis", "gradient_signal"]
    assert main(["sample-rewards", *options, "--out", str(out)]) == 0
    with np.load(out) as stored:
        assert stored["previews"].shape == (2, 6, 4)
        assert (np.linalg.eigvalsh(stored["grams"].astype(float)) > -1e-5 * np.abs(stored["grams"]).max()).all()
    assert main(["analyse", "gradient-signal", *options, "--samples", str(out), "--out", str(tmp_path / "g.json")]) == 0
    result = json.loads((tmp_path / "g.json").read_text())
    assert result["arms"] == {"flow": 1.0}
    with np.load(out) as stored:
        arrays = dict(stored)
    assert result["provenance"]["made_from"] == json.loads(str(arrays["provenance"]))
    np.savez(tmp_path / "bad.npz", **{**arrays, "provenance": np.array("{")})
    words = ["--samples", str(tmp_path / "bad.npz"), "--out", str(tmp_path / "bad.json")]
    assert main(["analyse", "gradient-signal", *options, *words]) == 2
    assert result["prompts"] == 2


def test_the_steps_are_those_that_the_run_trains(config, tmp_path, capsys):
    """A window of stochastic steps begins later than the first; and a run of another number of steps has no such steps."""
    edited = yaml.safe_load(config.read_text())
    windowed = {"steps": 4, "guidance_scale": 1.0, "noise": 0.7, "window": {"start": 1, "length": 2}}
    edited["runs"]["flow"]["sampling"] = edited["analyses"]["gradient_signal"]["sampling"] = windowed
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(edited))
    settings, device = load_config(path), torch.device("cpu")
    analysis = settings.analyses["gradient_signal"]
    backbone, scorer = load_backbone(settings.models["sd35m"], device), scorer_of(settings.scorers["pickscore"], device)
    with torch.no_grad():
        rollout = sample_pool(backbone, scorer, ["a red square"], 0, analysis, None)
        gradients = _Gradients(backbone, settings.runs["flow"], analysis)
        found = gradients._log_probs(rollout, backbone.encode(["a red square"]), torch.arange(6)).view(6, 2)
    assert torch.allclose(found, rollout.log_probs[:, 1:3], atol=1e-3)
    options = ["--config", str(path), "--analysis", "gradient_signal", "--out", str(tmp_path / "pools.npz")]
    whole = {key: value for key, value in windowed.items() if key != "window"}
    for other, told in (
        ({**windowed, "steps": 5}, "5 denoising steps with noise in range(1, 3)"),
        (whole, "range(0, 4)"),
    ):
        edited["runs"]["flow"]["sampling"] = other
        path.write_text(yaml.safe_dump(edited))
        assert main(["sample-rewards", *options]) == 2
        assert f"{told} of flow; the gradients are of its steps" in capsys.readouterr().err
