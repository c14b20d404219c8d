"""Static OVF study (Figs. 1 and 2): the full group, a uniform half and the OVF half, over training.

Arms share seeds; each arm is a list of runs, one per seed, as arrays over iterations.
"""

import numpy as np

from progrpo.analysis.statistics import finite_array, mean_interval, paired_tests

ARMS = ("full", "uniform", "ovf")
TAIL = 0.2  # share of the last iterations that is the end of training


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Trailing mean over up to `window` iterations of (..., n); the first entries average what there is."""
    cumulative = np.concatenate([np.zeros((*values.shape[:-1], 1)), values.cumsum(axis=-1)], axis=-1)
    end = np.arange(1, values.shape[-1] + 1)
    start = np.maximum(end - window, 0)
    return (cumulative[..., end] - cumulative[..., start]) / (end - start)


def curve(runs: np.ndarray, window: int) -> dict[str, list]:
    """Smoothed mean over runs (S, n) with its 95 % interval over seeds (None for one run), per iteration."""
    intervals = [mean_interval(column) for column in smooth(runs, window).T]
    return {key: [interval[key] for interval in intervals] for key in ("mean", "low", "high")}


def analyse(arms: dict[str, dict[str, list]], window: int = 10) -> dict:
    """Curves and end-of-training comparisons of the arms; JSON-ready.

    arms: {"full" | "uniform" | "ovf": {quantity: S x n}} with quantities such as `reward` (mean over the unpruned
    group, so that arms are comparable) and `reward_std` (of the trajectories trained on); the same seeds in the same
    order. The end is the mean of the last `TAIL` of iterations. Comparisons with the full group, and of
    OVF with the uniform half, are paired over seeds and Holm-adjusted.
    Raises ValueError for a missing arm or quantity and for runs of unequal length.
    """
    if missing := [arm for arm in ARMS if arm not in arms]:
        raise ValueError(f"the study needs the arms {', '.join(ARMS)}; missing: {', '.join(missing)}")
    quantities = list(arms["full"])
    data = {arm: {q: finite_array(arms[arm][q], 2, f"{arm} {q}") for q in quantities if q in arms[arm]} for arm in ARMS}
    shapes = {values.shape for arm in data.values() for values in arm.values()}
    if len(shapes) != 1 or any(len(arm) != len(quantities) for arm in data.values()):
        raise ValueError(f"arms differ in quantities, seeds or iterations: shapes {sorted(shapes)}")
    seeds, iterations = shapes.pop()
    last = max(1, round(TAIL * iterations))
    ends = {arm: {q: values[:, -last:].mean(axis=1) for q, values in data[arm].items()} for arm in ARMS}
    pairs = (
        ("uniform", "full"),
        ("ovf", "full"),
        ("ovf", "uniform"),
    )  # the last is the control: chance keeps half, too
    comparisons = {f"{a} - {b}: {q}": (ends[a][q], ends[b][q]) for a, b in pairs for q in quantities}
    return {
        "seeds": seeds,
        "iterations": iterations,
        "window": window,
        "last_iterations": last,
        "curves": {arm: {q: curve(values, window) for q, values in data[arm].items()} for arm in ARMS},
        "end": {arm: {q: mean_interval(values) for q, values in ends[arm].items()} for arm in ARMS},
        "comparisons": paired_tests(comparisons),
    }
