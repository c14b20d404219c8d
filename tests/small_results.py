"""Results of every analysis from a few random numbers, in the form in which commands write them."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from progrpo.analysis import gradient_signal, ovf_study, pruning_pilot, reward_clustering

ROOT = Path(__file__).parents[1]


@functools.cache
def _analyses() -> str:
    generator = np.random.default_rng(0)
    terminal = generator.normal(size=(10, 12))
    previews = terminal[:, :, None] + generator.normal(size=(10, 12, 5)) * np.linspace(2, 0.1, 5)
    arms = {arm: {q: generator.normal(size=(2, 8)) for q in ("reward", "reward_std")} for arm in ovf_study.ARMS}
    gradients = generator.normal(size=(10, 12, 20))
    pools = gradient_signal.Pools(terminal, previews, gradients[..., 0], gradients @ gradients.transpose(0, 2, 1))
    plain = {"flowgrpo_sd35m": gradient_signal.Arm(12)}
    published = json.loads((ROOT / "results/published/paper/summary.json").read_text())
    return json.dumps(
        {
            "reward_clustering": reward_clustering.analyse(terminal, simulations=9),
            "pruning_pilot": pruning_pilot.analyse(previews, terminal),
            "ovf_study": ovf_study.analyse(arms),
            "gradient_signal": gradient_signal.analyse(pools, ((2, 6), (4, 4)), plain, "flowgrpo_sd35m"),
            "flops": published["analysis"]["flops"],
        }
    )


def analyses() -> dict[str, Any]:
    """A new copy of the results, by analysis."""
    return json.loads(_analyses())
