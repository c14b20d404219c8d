"""All numbers of a tier that its tables read, in one file without dates, hosts or times."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from progrpo.analysis.statistics import mean_interval
from progrpo.config import Config
from progrpo.errors import UserError
from progrpo.files import read_jsonl
from progrpo.names import evaluated_names, parse_seed_folder, seeds_of
from progrpo.provenance import timing_hash
from progrpo.report.evidence import Evidence
from progrpo.report.schema import Evaluation, Metrics, WallClock
from progrpo.report.stored import stored_analyses
from progrpo.typed import check, read_checked, read_yaml

DIGITS = 10  # significant digits that are kept: more than any table prints (453474.18 has eight)
TAIL = 0.2  # share of the last iterations that "end of training" averages


def collect(config: Config, hardware: Path, weights: Path | None = None) -> dict[str, Any]:
    """The summary of a tier from the files of its results folder and the wall-clock measurements in `hardware`.

    weights: the folder with the pointers of published weights, whose hashes are then in the summary.

    Keys: tier; evaluations {run: {"<prompt set>.<metric>": estimate}}; training {run: {quantity: estimate}} at the end
    of training; analysis {name: its JSON}; hardware {device and prompts: {run: seconds}}. An estimate has mean, low, high (95 %
    interval over seeds), std, n and seeds {seed: value}. What was not run is absent. UserError: a half-written file.
    """
    results = Path(config.results)
    evaluated = partial(evaluation_metrics, sets=config.evaluations)
    return rounded(
        {
            "tier": config.tier,
            "evaluations": _by_run(results / "evaluations", config, evaluated),
            "training": _by_run(results / "runs", config, training_metrics),
            "analysis": stored_analyses(results),
            "hardware": wall_clock(hardware, config),
            **({"learning_curves": learning_curves(config)} if config.learning_curve else {}),
            **({"weights": published_weights(weights)} if weights else {}),
        }
    )


def estimate(values: dict[str, float]) -> dict[str, Any]:
    """Mean and 95 % interval of one value per seed, with the values themselves."""
    return {**mean_interval(list(values.values())), "seeds": values}


def paired_difference(
    evaluations: dict[str, dict[str, dict]], run: str, other: str, metric: str
) -> dict[str, Any] | None:
    """Estimate of a metric's difference, run minus other, over the seeds that a summary's evaluations have of both; None of none."""
    first, second = (evaluations.get(name, {}).get(metric, {}).get("seeds", {}) for name in (run, other))
    differences = {seed: value - second[seed] for seed, value in first.items() if seed in second}
    return estimate(differences) if differences else None


def _by_run(folder: Path, config: Config, metrics_of: Callable[[Path], dict[str, float]]) -> dict[str, dict[str, dict]]:
    """{run: {metric: estimate over seeds}} from the folders `<run>-seed<seed>` of the config's runs and seeds."""
    values: dict[str, dict[str, dict[str, float]]] = {}
    for path in sorted(folder.glob("*"), key=lambda path: path.name):
        run, seed = parse_seed_folder(path.name) or ("", 0)
        if not _is_configured(run, seed, config):
            continue
        for metric, value in metrics_of(path).items():
            values.setdefault(run, {}).setdefault(metric, {})[str(seed)] = value
    return {run: {metric: estimate(seeds) for metric, seeds in metrics.items()} for run, metrics in values.items()}


def _is_configured(run: str, seed: int, config: Config) -> bool:
    return run in evaluated_names(config) and seed in seeds_of(config, run)


def evaluation_metrics(folder: Path, sets: Iterable[str]) -> dict[str, float]:
    """{"<prompt set>.<metric>": value} of one model's evaluation files `<prompt set>.json`, as far as they exist."""
    metrics = {}
    for name in sets:
        path = folder / f"{name}.json"
        for metric, value in (_metrics_of_file(path) if path.exists() else {}).items():
            metrics[f"{name}.{metric}"] = value
    return metrics


def _metrics_of_file(path: Path) -> dict[str, float]:
    evaluation = read_checked(Evaluation, path)
    if evaluation.get("partial"):
        raise UserError(f"{path}: scores part of its images ({evaluation['partial']}); a table needs all of them")
    metrics = {scorer: values["mean"] for scorer, values in evaluation["scores"].items()}
    if geneval := evaluation.get("geneval"):
        metrics |= {"overall": geneval["overall"], **geneval["tags"]}
    if compbench := evaluation.get("compbench"):
        metrics["score"] = compbench["score"]
    return metrics


def training_metrics(folder: Path) -> dict[str, float]:
    """End-of-training means of every number in one run's `metrics.jsonl`; nothing when it was not run."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return {}
    lines = read_metrics(path)
    last = lines[-max(1, round(TAIL * len(lines))) :]
    keys = [key for key in (last[0] if last else {}) if key != "iteration"]
    columns = {key: [number for line in last if (number := line.get(key)) is not None] for key in keys}
    return {key: sum(column) / len(column) for key, column in columns.items() if len(column) == len(last)}


def read_metrics(path: Path) -> list[dict[str, float | None]]:
    """The lines of a `metrics.jsonl`; UserError names file, line and key of what is no number."""
    lines = []
    for number, line in read_jsonl(path):
        check(Metrics, line, f"{path}:{number}")
        lines.append(line)
    return lines


def learning_curves(config: Config) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """{run: {"<prompt set>.<scorer>": {iteration: mean over prompts and seeds, its 95 % interval over seeds, number of seeds}}}."""
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    for name, seeds in Evidence(config, Path(config.results), {}).curves.items():
        for _, curve in sorted(seeds.items()):
            for scorer, scores in curve.scores.items():
                metric = values.setdefault(name, {}).setdefault(f"{config.learning_curve}.{scorer}", {})
                for iteration, mean in zip(curve.iterations.tolist(), scores.mean(axis=1).tolist(), strict=True):
                    metric.setdefault(str(iteration), []).append(mean)

    def point(means: list[float]) -> dict[str, Any]:
        return {key: value for key, value in mean_interval(means).items() if key in ("mean", "low", "high", "n")}

    return {
        name: {metric: {n: point(means) for n, means in points.items()} for metric, points in metrics.items()}
        for name, metrics in values.items()
    }


def published_weights(folder: Path) -> dict[str, dict[str, dict[str, str]]]:
    """{run: {seed: {"final" or "snapshots": DVC's hash}}} from the pointers `<run>-seed<seed>/<name>.dvc` of a folder."""
    hashes: dict[str, dict[str, dict[str, str]]] = {}
    for pointer in sorted(folder.glob("*/*.dvc")):
        if place := parse_seed_folder(pointer.parent.name):
            (out,) = read_yaml(pointer)["outs"]
            hashes.setdefault(place[0], {}).setdefault(str(place[1]), {})[pointer.stem] = out["md5"]
    return hashes


def wall_clock(folder: Path, config: Config) -> dict[str, dict[str, dict[str, float]]]:
    """{device and number of prompts: {run: {vae, denoiser, total}}}, seconds per iteration, from the files of `progrpo bench`.

    They count when they are of the official architectures of the tier's models, or of the tier's own runs as these are set today.
    UserError names a file that is no such measurement.
    """
    devices: dict[str, dict] = {}
    for path in sorted(folder.glob("*/wall_clock*.json")):
        record = read_checked(WallClock, path)
        for run, seconds in record["runs"].items():
            own = record["what"] == config.tier and run in config.runs
            same = own and seconds.get("settings") == _timing_hash(config, run)
            model = config.models.get(record["what"])  # a miniature model may have an official one's name
            if same or (model and model.source):
                prompts = seconds.get("prompts")
                device = record["device"] + (f", {prompts} prompts" if prompts else "")
                devices.setdefault(device, {})[run] = {
                    "vae": seconds["decoder"],
                    "denoiser": seconds["denoiser"],
                    "total": seconds["decoder"] + seconds["denoiser"],  # as the paper's, without encoding and reward
                }
    return devices


def _timing_hash(config: Config, run: str) -> str:
    return timing_hash(config.runs[run], config.models[config.runs[run].model])


def rounded(value: Any) -> Any:
    """A JSON value with every float at `DIGITS` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value
