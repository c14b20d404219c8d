"""Writes ema_series.json: `python tests/data/ema_series.py`. Exact fractions, rounded once; knows nothing of the package.

The public average (Flow-GRPO, flow_grpo/ema.py:33-56 at ac4c86e): at global step s = 0, 1, ..., after the optimizer's update, where
(s + 1) % every == 0: average = decay_s average + (1 - decay_s) parameter, decay_s = min((1 + s)/(10 + s), decay). The parameter
moves by hand-chosen amounts from 1.
"""

import json
from fractions import Fraction
from pathlib import Path

CASES = [(1, "9/10"), (2, "9/10"), (8, "9/10"), (3, "1/5")]
STEPS = 100


def series(every: int, limit: Fraction) -> tuple[list[Fraction], list[Fraction]]:
    """The parameter after each step's update, and the average after it has seen it."""
    parameter = average = Fraction(1)
    parameters, averages = [], []
    for s in range(STEPS):
        parameter += Fraction((-1) ** (s // 7) * (s % 5 + 1), 8)
        if (s + 1) % every == 0:
            decay = min(Fraction(1 + s, 10 + s), limit)
            average = decay * average + (1 - decay) * parameter
        parameters.append(parameter)
        averages.append(average)
    return parameters, averages


if __name__ == "__main__":
    cases = []
    for every, limit in CASES:
        parameters, averages = series(every, Fraction(limit))
        case = {"every": every, "decay": float(Fraction(limit)), "initial": 1.0}
        cases.append(case | {"parameter": [*map(float, parameters)], "average": [*map(float, averages)]})
    Path(__file__).with_suffix(".json").write_text(json.dumps(cases, allow_nan=False) + "\n")
