"""Learning curves and costs of a small world whose effects are known, in the files that trainings leave."""

import json
from pathlib import Path

import numpy as np
import yaml

from checkout import ROOT
from progrpo.config import Config, load_config
from progrpo.files import write_json
from progrpo.typed import read_yaml

SCORERS = ("pickscore", "hpsv2", "imagereward", "clip_score", "scene_soft", "scene_strict")
PROMPTS, IMAGES, ITERATIONS = 30, 2, (20, 40, 80, 100)
ARMS = {  # final gain, in units of Flow-GRPO's: calls of an iteration
    "flowgrpo_sd35m": (1.0, 1104),
    "progrpo_sd35m": (1.04, 792),
    "plain12_sd35m": (0.6, 552),
    "random_sd35m": (0.6, 792),
    "oracle_sd35m": (1.2, 792),
    "uniform_sd35m": (0.6, 600),
    "ovf_sd35m": (0.98, 600),
    "best_of_n_sd35m": (0.98, 600),
}


def write_tier(folder: Path, arms: dict[str, tuple[float, int]] | None = None) -> Config:
    """The configuration of tier mini with these arms, and with its results in `folder`."""
    data = read_yaml(ROOT / "config" / "mini.yaml")
    data.pop("templates", None)
    data["results"] = str(folder)
    flow = data["runs"]["flowgrpo_sd35m"]
    data["runs"] |= {arm: flow for arm in (arms or ARMS) if arm not in data["runs"]}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(data))
    return load_config(path)


def write_curves(folder: Path, arms=None, seeds: int = 8, noise: float = 0.04, scale=1.0, rising=SCORERS) -> None:
    """Curves linear in the iteration, gains of an arm times `scale` by the scorers in `rising`, else -.1; and their costs."""
    curves = folder / "curves"
    curves.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    hard = generator.normal(0, 1, (len(SCORERS), PROMPTS, 1))
    shape = (len(SCORERS), PROMPTS, IMAGES)
    for seed in range(seeds):
        base = hard + generator.normal(0, 0.3, shape)
        _save(curves / f"base_sd35m-seed{seed}.npz", [0], base[None], seed)
        for arm, (gain, calls) in (arms or ARMS).items():
            own = gain + generator.normal(0, noise)
            rise = np.array([own * scale if scorer in rising else -0.1 for scorer in SCORERS])[:, None, None]
            rows = [base + rise * n / ITERATIONS[-1] + generator.normal(0, 0.02, shape) for n in ITERATIONS]
            _save(curves / f"{arm}-seed{seed}.npz", ITERATIONS, np.stack(rows), seed, arm)
            write_json(curves / f"{arm}-seed{seed}.costs.json", costs(calls, seed))


def costs(calls: int, seed: int = 0, device: str = "cpu") -> dict:
    """Costs of an iteration of so many calls, half of them sampling's; a call takes a millisecond."""
    seconds = {"rollout_seconds": calls / 2000, "update_seconds": calls / 2000}
    halves = {"sampling_calls": calls / 2, "update_calls": calls / 2}
    return {"iterations": ITERATIONS[-1], **halves, **seconds, "device": device, "config": "c0ffee", "seed": seed}


def _save(path: Path, iterations, scores, seed: int, arm: str = "base") -> None:
    np.savez_compressed(
        path,
        iterations=np.array(iterations),
        scorers=np.array(SCORERS),
        prompts=np.array([f"prompt {k}" for k in range(PROMPTS)]),
        scores=scores.astype(np.float32),
        provenance=np.array(json.dumps({"config": f"hash-of-{arm}", "seed": seed})),
    )
