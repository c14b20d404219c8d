"""The paper's cost model (appendix D, equations 21 and 22; Tables 9, 10 and 11): network calls and TFLOP per epoch.

Pure arithmetic. The published totals come out to the cent under one convention, `published`; the other accountings show
what the equation as printed, attention's matrix products and the steps really trained would give instead.
"""

from dataclasses import dataclass

from progrpo.paper_runs import DANCEGRPO_SD14, FLOWGRPO, PROGRPO, PROGRPO_FLASH, PROGRPO_SD14, SD14, SD35M

ACCOUNTINGS = {
    "published": (
        "The printed atomic costs (SD3.5-M's decode + reward solved from its three totals), four denoiser calls per "
        "trained step, and a preview that costs an extra denoiser call only for the trajectories that are then pruned."
    ),
    "equation_22_as_written": (
        "The printed atomic costs throughout, and one extra denoiser call for every active trajectory at each pruning "
        "step, as the text and equation (22) say."
    ),
    "with_attention": (
        "The call counts of `published` at atomic costs measured with the matrix products of attention, which the "
        "published costs leave out."
    ),
    "measured": (
        "What this repository executes, at the prompts of `published` and without activations that are computed twice: "
        "measured costs with attention, survivors that reuse the preview's call, 9 of 10 (49 of 50) trained steps, and "
        "the update of each baseline's public code."
    ),
    "measured_taesd_previews": "As `measured`, but the previews are decoded by the tiny autoencoder TAESD.",
}


@dataclass(frozen=True)
class Phases:
    """Active trajectories per phase, the completed steps after which each phase ends, and the number of steps T.

    `counts` has one entry more than `pruning_steps`; a baseline is `Phases((24,), (), 10)`, a static arm prunes at
    step T, on terminal rewards. Raises ValueError for counts that grow or steps that do not increase within 1..T.
    """

    counts: tuple[int, ...]
    pruning_steps: tuple[int, ...]
    steps: int

    def __post_init__(self):
        if len(self.counts) != len(self.pruning_steps) + 1:
            raise ValueError(f"{len(self.counts)} counts need {len(self.counts) - 1} pruning steps")
        if any(a < b for a, b in zip(self.counts, self.counts[1:], strict=False)) or self.counts[-1] < 1:
            raise ValueError(f"counts {self.counts} must not grow and must stay positive")
        bounds = (0, *self.pruning_steps)
        if any(a >= b for a, b in zip(bounds, bounds[1:], strict=False)) or bounds[-1] > self.steps:
            raise ValueError(f"pruning steps {self.pruning_steps} must increase within 1..{self.steps}")

    @property
    def preview_stages(self) -> list[tuple[int, int]]:
        """(trajectories before, after) of each selection on previews, i.e. of each pruning step before T."""
        pairs = zip(self.counts, self.counts[1:], self.pruning_steps, strict=False)
        return [(before, after) for before, after, step in pairs if step < self.steps]

    @property
    def terminal(self) -> int:
        """Trajectories that reach step T, and are decoded and scored there."""
        return self.counts[len(self.preview_stages)]


@dataclass(frozen=True)
class Costs:
    """TFLOP: one guided denoiser call, one preview decoded and scored, one terminal image decoded and scored, and one
    trained step of one trajectory."""

    denoiser: float
    preview: float
    terminal: float
    trained_step: float


@dataclass(frozen=True)
class PublishedRun:
    """One row of Table 10 or 11: phases, prompts per epoch, TFLOP per epoch, the printed speedup and its baseline."""

    phases: Phases
    backbone: str
    prompts: int
    tflop: float
    label: float
    baseline: str


@dataclass(frozen=True)
class PrintedCosts:
    """The atomic costs of Table 10 or 11, TFLOP per call."""

    denoiser: float
    decoder: float
    reward: float


PRINTED = {SD35M: PrintedCosts(3.88, 2.49, 0.34), SD14: PrintedCosts(1.36, 2.49, 0.37)}

PUBLISHED = {
    FLOWGRPO: PublishedRun(Phases((24,), (), 10), SD35M, 96, 453474.18, 1.00, FLOWGRPO),
    PROGRPO: PublishedRun(Phases((48, 24, 12), (5, 7), 10), SD35M, 96, 335626.82, 1.26, FLOWGRPO),
    PROGRPO_FLASH: PublishedRun(Phases((24, 16, 12), (5, 7), 10), SD35M, 96, 267365.79, 1.41, FLOWGRPO),
    DANCEGRPO_SD14: PublishedRun(Phases((16,), (), 50), SD14, 4, 21943.04, 1.00, DANCEGRPO_SD14),
    PROGRPO_SD14: PublishedRun(Phases((48, 32, 8), (30, 40), 50), SD14, 4, 19937.92, 1.09, DANCEGRPO_SD14),
}

TABLE9_COST_RATIOS = {(2, 4): 0.450, (4, 6): 0.600, (5, 7): 0.675, (7, 9): 0.825}
TABLE9_COUNTS = (48, 24, 12)
POLICY_CALLS, REFERENCE_CALLS = 3, 1  # forward and a backward pass of two, and the reference's: appendix D.1
UPDATE_CALLS = POLICY_CALLS + REFERENCE_CALLS


def phase_calls(phases: Phases) -> int:
    """Denoiser calls of one prompt's trajectories while active, previews not counted: sum of N_k dt_k."""
    ends = (*phases.pruning_steps, phases.steps)
    starts = (0, *phases.pruning_steps)
    return sum(n * (end - start) for n, start, end in zip(phases.counts, starts, ends, strict=True))


def sampling_calls(phases: Phases, preview: str = "reuse") -> int:
    """Denoiser calls of one prompt's rollout, previews included.

    `reuse`: survivors take their next step from the preview's network output, so only pruned trajectories pay for their
    preview. `recompute`: one extra call for every active trajectory, as equation (22) is written.
    """
    if preview not in ("reuse", "recompute"):
        raise ValueError(f"preview {preview!r} is neither 'reuse' nor 'recompute'")
    extra = sum(before - (after if preview == "reuse" else 0) for before, after in phases.preview_stages)
    return phase_calls(phases) + extra


def call_counts(phases: Phases, preview: str = "reuse") -> dict[str, int]:
    """Network calls per prompt: denoiser, previews and terminal images, decoder (= reward), update (4 T K, eq. 21).

    A rollout's own counters must equal `denoiser`, `decoder` and `reward`.
    """
    sampling = sampling_calls(phases, preview)
    previews = sum(before for before, _ in phases.preview_stages)
    update = UPDATE_CALLS * phases.steps * phases.counts[-1]
    return {
        "denoiser": sampling,
        "previews": previews,
        "terminal": phases.terminal,
        "decoder": previews + phases.terminal,
        "reward": previews + phases.terminal,
        "update": update,
        "total": sampling + update,
    }


def cost_ratio(phases: Phases) -> float:
    """Table 9's CostRatio: sum of N_k dt_k over N_0 T; previews, rewards and the update are left out."""
    return phase_calls(phases) / (phases.counts[0] * phases.steps)


def prompt_tflop(phases: Phases, costs: Costs, preview: str, trained_steps: int) -> dict[str, float]:
    """TFLOP of one prompt, by part: denoising, previews, terminal rewards, update and their total."""
    calls = call_counts(phases, preview)
    parts = {
        "denoising": calls["denoiser"] * costs.denoiser,
        "previews": calls["previews"] * costs.preview,
        "terminal": calls["terminal"] * costs.terminal,
        "update": trained_steps * phases.counts[-1] * costs.trained_step,
    }
    return {**parts, "total": sum(parts.values())}


def solved_decode_and_reward() -> float:
    """Decode + reward cost from which SD3.5-M's published totals follow to the cent, 2.82039 TFLOP; the printed sum is 2.83.

    The middle of what rounds to all three of them.
    """
    bounds = []
    for run in (run for run in PUBLISHED.values() if run.backbone == SD35M):
        calls = call_counts(run.phases)
        rest = run.tflop / run.prompts - calls["total"] * PRINTED[SD35M].denoiser
        bounds.append([(rest + error / run.prompts) / calls["decoder"] for error in (-0.005, 0.005)])
    low, high = (max(low for low, _ in bounds), min(high for _, high in bounds))
    return (low + high) / 2


def solve_atomic_costs(first: str, second: str) -> tuple[float, float]:
    """(denoiser, decode + reward) TFLOP that make two published totals exact under the `published` call counts."""
    rows = [(call_counts(PUBLISHED[name].phases), PUBLISHED[name]) for name in (first, second)]
    (a, b), (c, d) = [(calls["total"], calls["decoder"]) for calls, _ in rows]
    p, q = [run.tflop / run.prompts for _, run in rows]
    determinant = a * d - b * c
    return (p * d - b * q) / determinant, (a * q - p * c) / determinant


def printed_costs(backbone: str, solved: bool) -> Costs:
    """Costs as printed; with `solved`, SD3.5-M's decode + reward is the one that its three totals imply."""
    printed = PRINTED[backbone]
    image = solved_decode_and_reward() if solved and backbone == SD35M else printed.decoder + printed.reward
    return Costs(printed.denoiser, image, image, UPDATE_CALLS * printed.denoiser)


def measured_costs(atomic: dict[str, float], accounting: str) -> Costs:
    """Costs of an accounting from one backbone's entry of `atomic_costs.measure()`."""
    image = atomic["decoder"] + atomic["reward"]
    if accounting == "with_attention":
        return Costs(atomic["denoiser"], image, image, UPDATE_CALLS * atomic["denoiser"])
    preview = atomic["taesd"] + atomic["reward"] if accounting == "measured_taesd_previews" else image
    return Costs(atomic["denoiser"], preview, image, atomic["trained_step"])


def run_tflop(name: str, accounting: str, measured: dict[str, dict[str, float]]) -> dict[str, float]:
    """TFLOP per epoch of one published run under one accounting, by part (keys of `prompt_tflop`).

    `measured`: `atomic_costs.measure()`, needed by the three accountings that rest on it.
    """
    run = PUBLISHED[name]
    if accounting in ("published", "equation_22_as_written"):
        costs = printed_costs(run.backbone, solved=accounting == "published")
    else:
        costs = measured_costs(measured[run.backbone], accounting)
    preview = "recompute" if accounting == "equation_22_as_written" else "reuse"
    trained = run.phases.steps - (1 if accounting.startswith("measured") else 0)
    parts = prompt_tflop(run.phases, costs, preview, trained)
    return {part: run.prompts * value for part, value in parts.items()}


def _accounting_rows(accounting: str, measured: dict) -> dict[str, dict]:
    totals = {name: run_tflop(name, accounting, measured) for name in PUBLISHED}
    rows = {}
    for name, run in PUBLISHED.items():
        ratio = totals[run.baseline]["total"] / totals[name]["total"]
        rows[name] = {
            "tflop": totals[name],
            "difference_from_published": totals[name]["total"] / run.tflop - 1,
            "speedup": ratio,
            "one_plus_reduction": 2 - 1 / ratio,
        }
    return rows


def report(measured: dict[str, dict[str, float]]) -> dict:
    """Everything `progrpo flops` prints, from the measured atomic costs (TFLOP per call, `atomic_costs.measure()`)."""
    return {
        "atomic": {
            "printed": {name: vars(costs) for name, costs in PRINTED.items()},
            "measured": measured,
            "solved_decode_and_reward_sd35m": solved_decode_and_reward(),
        },
        "published": {
            name: {"tflop": run.tflop, "label": run.label, "prompts": run.prompts, "baseline": run.baseline}
            for name, run in PUBLISHED.items()
        },
        "calls_per_prompt": {
            name: {mode: call_counts(run.phases, mode) for mode in ("reuse", "recompute")}
            for name, run in PUBLISHED.items()
        },
        "accountings": {
            name: {"explanation": sentence, "runs": _accounting_rows(name, measured)}
            for name, sentence in ACCOUNTINGS.items()
        },
        "cost_ratio": [
            {"pruning_steps": list(pair), "paper": paper, "reproduced": cost_ratio(Phases(TABLE9_COUNTS, pair, 10))}
            for pair, paper in TABLE9_COST_RATIOS.items()
        ],
    }
