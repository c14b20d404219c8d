"""Snapshots are the weights of a shorter training, and a learning curve scores them as `generate` and `evaluate` would."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import tiny
from progrpo.cli import main
from progrpo.config import load_config
from progrpo.identity import hash_results
from progrpo.report.evidence import Evidence

pytestmark = pytest.mark.xdist_group("learning_curve")  # its fixture is made once, by one worker
RUNS = {
    "flow": {**tiny.FLOW, "snapshots": [1, 2]},
    "flow_short": {**tiny.FLOW, "iterations": 2},
    "diffusion": {**tiny.DIFFUSION, "iterations": 2, "snapshots": [1]},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """config.yaml of a tier whose learning curve has two images of six prompts; its flow runs and one UNet are trained beside it."""
    folder = tmp_path_factory.mktemp("curve")
    config = tiny.write_config(folder / "config.yaml", tiny.make_models(folder / "models"), **RUNS)
    edited = yaml.safe_load(config.read_text())
    edited["prompt_sets"]["held_out"] = {**edited["prompt_sets"]["test"], "images_per_prompt": 2}
    edited["evaluations"]["held_out"] = edited["evaluations"]["test"]
    edited["learning_curve"] = "held_out"
    config.write_text(yaml.safe_dump(edited))
    for run in RUNS:
        assert main(["train", "--config", str(config), "--run", run, "--out", str(folder / run)]) == 0
    return config


def curve(config: Path, out: Path, run: str, weights: Path | None = None, seed: int = 0) -> dict[str, np.ndarray]:
    options = ["--config", str(config), "--run", run, "--out", str(out), "--seed", str(seed)]
    assert main(["learning-curve", *options, *(["--weights", str(weights)] if weights else [])]) == 0
    with np.load(out / f"{run}-seed{seed}.npz") as stored:
        return dict(stored)


def weights(folder: Path) -> dict[str, str]:
    """Hashes of published weights; the card beside them names the run."""
    return {name: digest for name, digest in hash_results(folder).items() if name.endswith(".safetensors")}


def test_a_snapshot_is_what_a_shorter_training_publishes(world):
    """Average included, and training goes on from the last weights, not from the average."""
    snapshots = world.parent / "flow" / "snapshots"
    assert sorted(path.name for path in snapshots.iterdir()) == ["1", "2"]
    assert weights(snapshots / "2") == weights(world.parent / "flow_short" / "final") != {}
    assert weights(snapshots / "1") != weights(snapshots / "2") != weights(world.parent / "flow" / "final")


def test_a_resumed_training_has_the_snapshots_of_an_uninterrupted_one(world, tmp_path):
    """Killed after the state of iteration 2, before its snapshot."""
    assert main(["train", "--config", str(world), "--run", "flow_short", "--out", str(tmp_path / "flow")]) == 0
    begun = world.parent / "flow" / "begun.json"
    (tmp_path / "flow" / "begun.json").write_bytes(begun.read_bytes())
    for name in ("final", "published.json"):
        (tmp_path / "flow" / name).rename(tmp_path / name)
    assert main(["train", "--config", str(world), "--run", "flow", "--out", str(tmp_path / "flow")]) == 0
    for name in ("snapshots/2", "final"):
        assert hash_results(tmp_path / "flow" / name) == hash_results(world.parent / "flow" / name)


def test_a_curve_has_the_scores_of_generate_and_evaluate(world, tmp_path):
    final = world.parent / "flow" / "final"
    stored = curve(world, tmp_path / "curves", "flow", final)
    assert stored["iterations"].tolist() == [1, 2, 3]
    assert stored["scores"].shape == (3, 1, 6, 2)
    options = ["--config", str(world), "--prompts", "held_out"]
    assert main(["generate", *options, "--run", "flow", "--weights", str(final), "--out", str(tmp_path / "i")]) == 0
    assert main(["evaluate", *options, "--images", str(tmp_path / "i"), "--out", str(tmp_path / "e")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "e" / "held_out.scores.jsonl").read_text().splitlines()]
    # Equal but for the rounding of a batch's place: both cut the images into batches of the same size.
    assert np.allclose(stored["scores"][2, 0].flatten(), [row["pickscore"] for row in rows], rtol=0, atol=1e-5)
    assert (
        stored["prompts"].tolist()
        == [
            json.loads(line)["prompt"]
            for line in (tmp_path / "i" / "held_out" / "prompts.jsonl").read_text().splitlines()
        ][::2]
    )


def test_a_base_model_is_iteration_0_and_has_each_seeds_noise(world, tmp_path):
    first, second = (curve(world, tmp_path, "base_sd14", seed=seed) for seed in (0, 1))
    assert first["iterations"].tolist() == [0]
    assert not np.array_equal(first["scores"], second["scores"])
    untrained = curve(world, tmp_path, "diffusion", world.parent / "diffusion" / "final")
    assert (
        np.abs(untrained["scores"][0] - first["scores"][0]).mean() < np.abs(second["scores"] - first["scores"]).mean()
    )


def test_claims_read_what_trainings_and_curves_leave(world, tmp_path):
    folder, curves = world.parent / "flow", tmp_path / "curves"
    curve(world, curves, "base_sd35m")
    stored = curve(world, curves, "flow", folder / "final")
    costs = ["costs", "--config", str(world), "--run", "flow", "--folder", str(folder)]
    assert main([*costs, "--out", str(curves / "flow-seed0.costs.json")]) == 0
    evidence = Evidence(load_config(world), tmp_path, {})
    iterations, gains = evidence.gain("flow", "pickscore", 0)
    assert iterations.tolist() == [0, 1, 2, 3]
    assert np.allclose(
        gains[3], (stored["scores"][2, 0] - np.load(curves / "base_sd35m-seed0.npz")["scores"][0, 0]).mean(1)
    )
    assert evidence.configs("flow", [0]) == [json.loads(str(stored["provenance"]))["config"]]
    # 4 prompts: 4, 4, 4, 3 trajectories are sampled at the steps, and 2 survivors trained at 3 steps of 4 calls
    assert evidence.rate("flow", "calls") == 4 * (4 + 4 + 4 + 3) + 4 * 2 * 3 * 4


def test_a_finished_curve_stays_and_changed_weights_are_refused(world, tmp_path, capsys):
    final = world.parent / "diffusion" / "final"
    curve(world, tmp_path, "diffusion", final)
    capsys.readouterr()
    curve(world, tmp_path, "diffusion", final)
    assert "already there" in capsys.readouterr().out
    weights = world.parent / "diffusion" / "snapshots" / "1" / "unet" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    try:
        weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        options = [
            "--config",
            str(world),
            "--run",
            "diffusion",
            "--weights",
            str(final),
            "--out",
            str(tmp_path / "new"),
        ]
        assert main(["learning-curve", *options]) == 2
        error = capsys.readouterr().err
        assert "snapshots/1" in error
        assert "train the run anew" in error
    finally:
        weights.write_bytes(whole)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda c: c.pop("learning_curve"), "names none of its evaluations"),
        (lambda c: c.update(learning_curve="none"), "learning_curve: 'none' is not defined"),
        (lambda c: c["runs"]["flow"].update(snapshots=[2, 1]), "snapshots must increase"),
        (lambda c: c["runs"]["flow"].update(snapshots=[3]), "before the last iteration (3)"),
    ],
)
def test_settings_without_a_meaning_are_one_line(world, tmp_path, capsys, edit, complaint):
    config = yaml.safe_load(world.read_text())
    edit(config)
    changed = tmp_path / "config.yaml"
    changed.write_text(yaml.safe_dump(config))
    assert main(["learning-curve", "--config", str(changed), "--run", "base_sd14", "--out", str(tmp_path / "o")]) == 2
    assert complaint in capsys.readouterr().err


def test_weights_of_another_seed_or_of_other_settings_make_no_curve(world, tmp_path, capsys):
    """What is judged by a configuration was trained by it; a label decides nothing."""
    edited = yaml.safe_load(world.read_text())
    edited["runs"]["flow"]["method"] = "another name"
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(edited))
    final = world.parent / "flow" / "final"
    curve(config, tmp_path / "named", "flow", final)
    words = ["learning-curve", "--config", str(config), "--run", "flow", "--weights", str(final)]
    assert main([*words, "--out", str(tmp_path / "seed"), "--seed", "1"]) == 2
    assert "trained with seed 0, not 1" in capsys.readouterr().err
    edited["runs"]["flow"]["optimizer"] = {"learning_rate": 2e-3}
    config.write_text(yaml.safe_dump(edited))
    assert main([*words, "--out", str(tmp_path / "settings")]) == 2
    assert "flow/snapshots/1: trained with other settings than the configuration's" in capsys.readouterr().err
    assert not list(tmp_path.glob("*/*.npz"))[1:]
