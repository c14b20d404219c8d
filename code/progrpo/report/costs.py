"""What a training cost, in a file of a few hundred bytes beside its learning curve: the abscissae of equal calls and equal seconds."""

from pathlib import Path
from statistics import fmean, median

from progrpo.config import Run
from progrpo.cost.flops import POLICY_CALLS, REFERENCE_CALLS
from progrpo.errors import UserError
from progrpo.files import read_jsonl
from progrpo.provenance import require_training_of
from progrpo.report.schema import Part
from progrpo.report.summary import read_metrics
from progrpo.typed import Count, Number, check, read_checked


class Timings(Part):
    """Seconds of an iteration, a line of `timings.jsonl`."""

    rollout: Number
    update: Number


class Trained(Part):
    """What a training's provenance must say for its costs to be known again."""

    device: str
    config: str
    seed: Count


def run_costs(folder: Path, run: Run) -> dict:
    """Costs of an iteration of the finished run in `folder`: denoiser calls, and median seconds of rollout and update.

    The median, because other processes on the machine lengthen some iterations. UserError for a run that has not ended, or
    that was trained with other settings.
    """
    metrics, times = read_metrics(folder / "metrics.jsonl"), folder / "timings.jsonl"
    timings = [check(Timings, line, f"{times}:{number}") for number, line in read_jsonl(times)]
    if not len(metrics) == len(timings) == run.iterations:
        raise UserError(f"{folder}: {len(metrics)} of {run.iterations} iterations; the run has not ended")
    per_pair = POLICY_CALLS + (REFERENCE_CALLS if run.objective.kl_beta > 0 else 0)
    seconds = {part: median(getattr(line, part) for line in timings) for part in ("rollout", "update")}
    calls = [line.get("denoiser_calls") for line in metrics]
    counted = [number for number in calls if number is not None]
    if len(counted) < len(calls):
        raise UserError(f"{folder / 'metrics.jsonl'}: an iteration without its denoiser_calls; the file is damaged")
    provenance = read_checked(Trained, folder / "final" / "provenance.json")
    require_training_of(folder / "final", run, provenance["seed"])
    return {
        "iterations": run.iterations,
        "sampling_calls": fmean(counted),
        "update_calls": run.trained_pairs * per_pair,
        "rollout_seconds": seconds["rollout"],
        "update_seconds": seconds["update"],
        "device": provenance["device"],
        "config": provenance["config"],
        **({"decides": provenance["decides"]} if "decides" in provenance else {}),
        "seed": provenance["seed"],
    }
