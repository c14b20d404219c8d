"""The stored results that claims are judged from: held-out curves of runs and base models, costs of the runs, analyses."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from progrpo.config import Config
from progrpo.errors import UserError
from progrpo.files import parse_json, read_arrays
from progrpo.names import base_of, parse_seed_folder
from progrpo.provenance import CUTS, LABELS, config_hash
from progrpo.report.schema import Part
from progrpo.typed import Count, Number, check, read_checked

ARRAYS = {"iterations": ("i", 1), "scorers": ("U", 1), "prompts": ("U", 1), "scores": ("f", 4), "provenance": ("U", 0)}
COSTS = {  # of an iteration
    "calls": ("sampling_calls", "update_calls"),
    "seconds": ("rollout_seconds", "update_seconds"),
}


Above0 = Annotated[Number, Field(gt=0)]


class Provenance(Part):
    """What a curve was made from, as far as a verdict names it."""

    config: str
    decides: str | None = None  # the hash without what decides no number; older files lack it


class Costs(Part):
    """Costs of an iteration: the file that `progrpo costs` writes."""

    iterations: Annotated[Count, Field(ge=1)]
    sampling_calls: Above0
    update_calls: Above0
    rollout_seconds: Above0
    update_seconds: Above0
    device: str
    config: str
    decides: str | None = None
    seed: Count


@dataclass(frozen=True)
class Curve:
    """Held-out scores of one run or base model and seed: iterations (I,), scores {scorer: (I, P)}, means over a prompt's images."""

    iterations: np.ndarray
    scores: dict[str, np.ndarray]
    prompts: tuple[str, ...]
    config: str
    decides: str | None = None

    @classmethod
    def read(cls, path: Path) -> "Curve":
        """The curve in a file of `progrpo learning-curve`; UserError names an array that is missing or of another kind."""
        stored = read_arrays(path, tuple(ARRAYS))
        for name, (kind, dimensions) in ARRAYS.items():
            array = stored.get(name)
            if array is None or array.dtype.kind != kind or array.ndim != dimensions:
                raise UserError(f"{path}: {name}: missing or of another kind; `progrpo learning-curve` writes it")
        scores = stored["scores"].astype(float).mean(axis=3)
        if scores.shape != tuple(len(stored[name]) for name in ("iterations", "scorers", "prompts")):
            raise UserError(f"{path}: scores of shape {stored['scores'].shape} do not fit iterations, scorers, prompts")
        if not scores.size or not np.isfinite(scores).all():
            raise UserError(f"{path}: scores are empty or not finite; score the run again")
        by_scorer = dict(zip(stored["scorers"].tolist(), scores.transpose(1, 0, 2), strict=True))
        made = check(Provenance, _parsed(str(stored["provenance"]), path), f"{path}: provenance")
        return cls(stored["iterations"], by_scorer, tuple(stored["prompts"].tolist()), made.config, made.decides)


def _parsed(provenance: str, path: Path) -> Any:
    try:
        return parse_json(provenance)
    except ValueError as error:
        raise UserError(f"{path}: provenance: not JSON ({error})") from None


def _short_hash(prompts: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:8]


class Evidence:
    """What is stored in a tier's folder `source`; gains of runs over their base models at equal noise."""

    def __init__(self, config: Config, source: Path, analyses: dict[str, Any]):
        self.config, self.source, self.analyses = config, source, analyses

    def _files(self, suffix: str) -> Iterator[tuple[str, int, Path]]:
        known = {*self.config.runs, *map(base_of, self.config.models)}
        for path in sorted((self.source / "curves").glob(f"*{suffix}")):
            name, seed = parse_seed_folder(path.name.removesuffix(suffix)) or ("", 0)
            if name in known:
                yield name, seed, path

    @cached_property
    def curves(self) -> dict[str, dict[int, Curve]]:
        """{run or base model: {seed: curve}} of the tier's configuration."""
        found: dict[str, dict[int, Curve]] = {}
        for name, seed, path in self._files(".npz"):
            found.setdefault(name, {})[seed] = Curve.read(path)
        for name, curves in found.items():
            self._require_one("configurations", name, [curve.decides for curve in curves.values() if curve.decides])
            self._require_one("last iterations", name, [curve.iterations[-1] for curve in curves.values()])
            self._require_one("lists of prompts", name, [_short_hash(curve.prompts) for curve in curves.values()])
        return found

    @cached_property
    def costs(self) -> dict[str, dict[int, dict[str, Any]]]:
        """{run: {seed: costs of an iteration}}."""
        found: dict[str, dict[int, dict]] = {}
        for name, seed, path in self._files(".costs.json"):
            costs = found.setdefault(name, {})[seed] = read_checked(Costs, path)
            trained = self.curves.get(name, {}).get(seed)
            for what, expected in (("seed", seed), ("iterations", trained and int(trained.iterations[-1]))):
                if expected is not None and costs[what] != expected:
                    raise UserError(
                        f"{path}: {what} {costs[what]}, but the curve beside it has {expected}; record the costs again"
                    )
        for name, costs in found.items():
            self._require_one(
                "configurations", name, [cost["decides"] for cost in costs.values() if cost.get("decides")]
            )
        return found

    def _require_one(self, what: str, run: str, values: Iterable[Any]) -> None:
        """UserError where the seeds of a run are not of one kind: they would be averaged as if they were."""
        if len(kinds := sorted({*values})) > 1:
            raise UserError(
                f"{self.source / 'curves'}: the seeds of {run} have several {what} ({', '.join(map(str, kinds))});"
                " make the older ones again or move them away"
            )

    def seeds(self, *runs: str) -> list[int]:
        """Seeds that all of some runs have, and their base models with them."""
        wanted = {*runs, *(base_of(self.config.runs[run].model) for run in runs if run in self.config.runs)}
        found = [set(self.curves.get(name, {})) for name in wanted]
        return sorted(set.intersection(*found)) if found else []

    def configs(self, run: str, seeds: Iterable[int]) -> list[str]:
        """Hashes of the configurations that a run's curves come from."""
        return sorted({self.curves[run][seed].config for seed in seeds})

    def base(self, run: str, metric: str, seeds: Iterable[int]) -> np.ndarray:
        """Scores (seeds, prompts) of a run's base model."""
        curves = self.curves[base_of(self.config.runs[run].model)]
        return np.stack([curves[seed].scores[metric][0] for seed in seeds])

    def gain(self, run: str, metric: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Iterations (I + 1,) from 0 on, and gains (I + 1, prompts) over the base model with the same noise, 0 at first.

        UserError when run and base model were not evaluated on the same prompts, or not by that scorer.
        """
        curve, base = self.curves[run][seed], self.curves[base_of(self.config.runs[run].model)][seed]
        if curve.prompts != base.prompts:
            raise UserError(f"{run}, seed {seed}: not the prompts of its base model's curve; make both anew")
        if metric not in curve.scores or metric not in base.scores:
            raise UserError(f"{run}, seed {seed}: no scores of {metric}; the learning curve's evaluation lacks it")
        gains = curve.scores[metric] - base.scores[metric][0]
        return np.concatenate([[0], curve.iterations]), np.concatenate([np.zeros((1, gains.shape[1])), gains])

    def rate(self, run: str, at: str) -> float | None:
        """Iterations, denoiser calls or seconds of an iteration, the median over seeds; None where they are not stored."""
        if at == "iterations":
            return 1.0
        stored = self.costs.get(run, {}).values()
        return median(sum(costs[key] for key in COSTS[at]) for costs in stored) if stored else None

    def devices(self, *runs: str) -> set[str]:
        """Devices that some runs were trained on."""
        return {costs["device"] for run in runs for costs in self.costs.get(run, {}).values()}

    def seconds(self, runs: Iterable[str], seeds: Iterable[int]) -> float:
        """Seconds of the trainings of some runs and seeds, as far as they are stored."""
        stored = [self.costs.get(run, {}).get(seed) for run in runs for seed in seeds]
        return sum(c["iterations"] * (c["rollout_seconds"] + c["update_seconds"]) for c in stored if c)

    def end(self, run: str, at: str) -> float | None:
        """The abscissa at which a run's curves end; None where its cost is not stored."""
        rate = self.rate(run, at)
        return None if rate is None else rate * next(iter(self.curves[run].values())).iterations[-1]

    def budget(self, runs: Iterable[str], at: str) -> float | None:
        """The largest abscissa that all of some runs reach; None where a cost is not stored."""
        ends = [self.end(run, at) for run in runs]
        return None if None in ends else min(end for end in ends if end is not None)

    def reaches(self, run: str, at: str, budget: float | None) -> bool:
        """Whether a run's curves end at a budget or later, to within one iteration."""
        end, rate = self.end(run, at), self.rate(run, at)
        return end is not None and rate is not None and budget is not None and end + rate > budget

    def apart_from_length(self, run: str) -> str:
        """What decides a run's trainings but for how long they go on: equal where one run is the beginning of another."""
        return config_hash(self.config.runs[run], (LABELS | CUTS | {"iterations", "snapshots"}) - {"model", "prompts"})

    def gains_at(self, run: str, metric: str, seeds: Iterable[int], at: str, budget: float) -> np.ndarray:
        """Gains (seeds, prompts) at a budget, linear between the snapshots."""
        rows = []
        for seed in seeds:
            iterations, gains = self.gain(run, metric, seed)
            position = np.interp(budget / (self.rate(run, at) or 1.0), iterations, np.arange(len(iterations)))
            before = min(int(position), len(iterations) - 2)
            share = position - before
            rows.append((1 - share) * gains[before] + share * gains[before + 1])
        return np.stack(rows)

    def final_gains(self, run: str, metric: str, seeds: Iterable[int]) -> np.ndarray:
        """Gains (seeds, prompts) of the final weights."""
        return np.stack([self.gain(run, metric, seed)[1][-1] for seed in seeds])
