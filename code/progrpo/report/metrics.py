"""The main numbers of each run, and its held-out curves, in the form in which `dvc metrics` and `dvc plots` read them."""

from typing import Any

from progrpo.config import Config
from progrpo.names import evaluated_names, model_of

GENEVAL = "geneval.overall"


def main_metrics(summary: dict[str, Any], config: Config) -> dict[str, dict[str, float]]:
    """{run or base model: its metrics on the in-domain test prompts, GenEval, and the number of seeds}, means over seeds."""
    chosen = {}
    for name in evaluated_names(config):
        prefix = f"test_{config.models[model_of(config, name)].family}."
        measured = summary["evaluations"].get(name, {})
        test = {key.removeprefix(prefix): value for key, value in measured.items() if key.startswith(prefix)}
        values = {**test, **({"geneval": measured[GENEVAL]} if GENEVAL in measured else {})}
        means = {key: value["mean"] for key, value in sorted(values.items())}
        chosen[name] = {"seeds": max((value["n"] for value in values.values()), default=0), **means}
    return chosen


def curve_points(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The held-out curves of all runs as one list of points: run, metric, iteration, mean, low and high of its interval."""
    return [
        {
            "run": run,
            "metric": metric,
            "iteration": int(iteration),
            **{key: value[key] for key in ("mean", "low", "high")},
        }
        for run, metrics in summary.get("learning_curves", {}).items()
        for metric, points in metrics.items()
        for iteration, value in sorted(points.items(), key=lambda point: int(point[0]))
    ]
