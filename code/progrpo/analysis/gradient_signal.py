"""Why pruning pays or not: noise and signal of a group's policy gradient by selection rule, all rules on the same pools.

A pool holds N trajectories of a prompt: rewards R, and for the gradients h_i of their mean log-probabilities the Gram matrix h_i h_j
and the projections h_i u on a direction u that raises the reward of other prompts. A rule that keeps K of them has the gradient
g = (1/K) sum (R_i - mean) h_i, so its power |g|^2 and its projection g u follow from the stored numbers, whatever the rule.
The law: noise power is c Var_kept / K with one c for all rules, the signal goes as Var_kept, and with a step of fixed length
(AdamW) progress goes as signal over noise, sqrt(K Var_kept).
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from progrpo.analysis import gaussian
from progrpo.analysis.statistics import bootstrap_interval, finite_array
from progrpo.grpo.ovf import best_of_n, optimal_variance_filter, uniform

RULES = {"ovf": optimal_variance_filter, "best_of_n": best_of_n, "uniform": uniform}
DRAWS = 16  # of a random subset, averaged
SIGNAL = ("ovf", "uniform")  # the two rules whose ratio of signal to noise is a claim


@dataclass(frozen=True)
class Arm:
    """A way to train: trajectories started, stages (completed steps, kept), selection rule, iterations."""

    size: int
    stages: tuple[tuple[int, int], ...] = ()
    rule: str = "ovf"
    iterations: int = 1

    @property
    def keep(self) -> int:
        """K, the trajectories that are trained on."""
        return self.stages[-1][1] if self.stages else self.size


@dataclass(frozen=True)
class Pools:
    """Pools of P prompts: rewards (P, N), previews (P, N, T) before each step, projections (P, N), grams (P, N, N)."""

    rewards: np.ndarray
    previews: np.ndarray
    projections: np.ndarray
    grams: np.ndarray

    def __post_init__(self):
        prompts, size = finite_array(self.rewards, 2, "rewards").shape
        shapes = {"previews": (prompts, size), "projections": (prompts, size), "grams": (prompts, size, size)}
        for name, shape in shapes.items():
            array = finite_array(getattr(self, name), 2 + (name != "projections"), name)
            if array.shape[: len(shape)] != shape:
                raise ValueError(f"{name} has shape {array.shape}; expected {shape} first")


def survivors(pools: Pools, arm: Arm, draw: int = 0) -> np.ndarray:
    """Indices (P, K) of what an arm keeps of the first `size` of each pool; a stage at the last step goes by terminal rewards."""
    steps = pools.previews.shape[2]
    stages = arm.stages or ((steps, arm.size),)  # one that keeps all

    def rule(values: np.ndarray, keep: int, stage: int) -> np.ndarray:
        seeds = [1000 * (draw * len(stages) + stage) + p for p in range(len(values))]
        return RULES[arm.rule](torch.from_numpy(values.astype(np.float64)), keep, seeds).numpy()

    proxies = [pools.rewards if step == steps else pools.previews[:, :, step] for step, _ in stages]
    return gaussian.survivors_of([proxy[:, : arm.size] for proxy in proxies], [keep for _, keep in stages], rule)


def moments(pools: Pools, kept: np.ndarray) -> np.ndarray:
    """Of each prompt (P, 3): variance of the kept rewards, power of their gradient, its projection."""
    rewards = np.take_along_axis(pools.rewards, kept, 1)
    weights = (rewards - rewards.mean(1, keepdims=True)) / kept.shape[1]
    grams = np.take_along_axis(np.take_along_axis(pools.grams, kept[:, :, None], 1), kept[:, None, :], 2)
    power = np.einsum("pi,pij,pj->p", weights, grams, weights)
    projection = (weights * np.take_along_axis(pools.projections, kept, 1)).sum(1)
    return np.stack([rewards.var(1), power, projection], axis=1)


def arm_moments(pools: Pools, arm: Arm) -> np.ndarray:
    """`moments` of an arm, of a random rule the mean over draws."""
    draws = DRAWS if arm.rule == "uniform" else 1
    return np.mean([moments(pools, survivors(pools, arm, draw)) for draw in range(draws)], axis=0)


def study_arms(size: int, steps: int, stages: tuple[tuple[int, int], ...]) -> dict[str, Arm]:
    """The rules that are compared on whole pools: each keeps the last stage's number by terminal rewards, or prunes by the stages."""
    end = ((steps, stages[-1][1]),)
    chosen = {rule: Arm(size, end, rule) for rule in RULES}
    return {**chosen, "pruned": Arm(size, stages), "all": Arm(size)}


def analyse(pools: Pools, stages: tuple[tuple[int, int], ...], arms: dict[str, Arm], baseline: str | None) -> dict:
    """The whole study; JSON-ready.

    stages: pruning steps and numbers kept of the rule "pruned". arms: the tier's trainings, of which those that the pools are large
    enough for get a predicted gain, in units of the baseline's. Intervals are bootstrapped over prompts. ValueError for pools that do
    not fit each other or the stages, or in which no reward differs from another of its prompt.
    """
    if not gaussian.differ(pools.rewards).any():
        raise ValueError("every prompt's rewards are equal; they say nothing about gradients")
    size, steps = pools.rewards.shape[1], pools.previews.shape[2]
    rules = study_arms(size, steps, stages)
    found = {name: arm_moments(pools, arm) for name, arm in rules.items()}
    units = np.stack([found[name] for name in rules], axis=1)  # (P, rules, 3)
    keeps = np.array([arm.keep for arm in rules.values()])

    def coefficients(sample: np.ndarray) -> np.ndarray:
        variance, power, _ = np.moveaxis(sample.mean(axis=1), -1, 0)
        return power * keeps / variance  # (resamples, rules)

    def quality(sample: np.ndarray, name: str) -> np.ndarray:
        _, power, projection = np.moveaxis(sample[:, :, [*rules].index(name)].mean(axis=1), -1, 0)
        return projection**2 / power

    ratio = bootstrap_interval(units, lambda s: quality(s, SIGNAL[0]) / quality(s, SIGNAL[1]))
    noise = bootstrap_interval(units, lambda s: coefficients(s).max(axis=1) / coefficients(s).min(axis=1))
    law = {name: float(np.sqrt(arm.keep * found[name][:, 0].mean())) for name, arm in rules.items()}
    return {
        "prompts": len(pools.rewards),
        "pool": size,
        "noise": noise,
        "signal": {**ratio, "expected": (law[SIGNAL[0]] / law[SIGNAL[1]]) ** 2},
        "rules": [
            {
                "rule": name,
                "keep": arm.keep,
                "variance": float(found[name][:, 0].mean()),
                "noise_coefficient": float(coefficients(units[None])[0, number]),
                "signal_to_noise": bootstrap_interval(units, partial(quality, name=name)),
                "predicted": law[name] / law["uniform"],
            }
            for number, (name, arm) in enumerate(rules.items())
        ],
        "arms": predicted_gains(pools, arms, baseline),
    }


def predicted_gains(pools: Pools, arms: dict[str, Arm], baseline: str | None) -> dict[str, float]:
    """Iterations times sqrt(K Var_kept) of each arm over the baseline's, where the pools are large enough; {} without baseline."""
    size, steps = pools.rewards.shape[1], pools.previews.shape[2]
    fitting = {
        name: arm
        for name, arm in arms.items()
        if arm.size <= size and arm.rule in RULES and all(step <= steps for step, _ in arm.stages)
    }
    if baseline not in fitting:
        return {}
    law = {
        name: arm.iterations * float(np.sqrt(arm.keep * arm_moments(pools, arm)[:, 0].mean()))
        for name, arm in fitting.items()
    }
    return {name: value / law[baseline] for name, value in law.items()}
