"""The paper's figures, drawn from stored results only: vector PDF and PNG in one style, the same bytes every time.

Each `draw_*` takes parsed data and returns a matplotlib Figure; `save` writes both files. Colours are Okabe and Ito's,
which colour-blind readers tell apart; line styles and markers repeat the distinction for print.
"""

import textwrap
from functools import partial, wraps
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from progrpo.analysis.ovf_study import curve
from progrpo.files import write_atomic

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK = "#CC79A7", "#56B4E9", "#000000"
GREY = "#7F7F7F"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
WIDTH = 6.75  # inches, the text width of a two-column page
STYLE: Any = {  # matplotlib's hint knows no dictionary that is not written in place
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "text.parse_math": False,  # a prompt, or the name of a run, may hold a dollar
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
}
ARM_LABELS = {"full": "full group", "uniform": "uniform subset", "ovf": "OVF"}
ARM_COLOURS = {"full": BLUE, "uniform": ORANGE, "ovf": GREEN}
DECISION_MARKERS = {"selected": "*", "inefficient": "s", "borderline": "D", "inseparable": "v", "unreliable": "X"}
AXES = {
    "iteration": "iteration",
    "denoiser_calls": "denoiser calls of sampling (thousands)",
    "reward_mean": "mean reward of trained trajectories",
    "reward_std": "reward std within groups",
    "candidates_mean": "mean reward of all candidates\n(pruned: of first previews)",
    "candidates_std": "reward std of all candidates",
    "kl": "KL to the reference",
    "clip_fraction": "clipped share of samples",
}
PROMPT_SIZE = 6.5  # points
MAX_COLUMNS = 11  # of a preview grid; longer schedules show evenly spaced steps


def save(figure: Figure, stem: Path | str) -> list[Path]:
    """Write `<stem>.pdf` and `<stem>.png` atomically, without dates or versions in them; returns both paths."""
    paths = []
    for extension, metadata in (
        ("pdf", {"CreationDate": None, "Producer": None, "Creator": None}),
        ("png", {"Software": None}),
    ):
        path = Path(f"{stem}.{extension}")
        with matplotlib.rc_context(STYLE):
            write_atomic(path, partial(figure.savefig, format=extension, metadata=metadata))
        paths.append(path)
    return paths


def canvas(columns: int, height: float, **options) -> tuple[Figure, np.ndarray]:
    """A figure of so many inches with a row of axes, in the common style."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        return figure, figure.subplots(1, columns, squeeze=False, **options)[0]


def _letters(axes) -> None:
    for letter, axis in zip("abcdef", axes, strict=False):
        axis.set_title(f"({letter})", loc="left", fontweight="bold")


def styled(draw):
    """Draw under the common style: labels and ticks take it when they are made, not when they are saved."""

    @wraps(draw)
    def wrapped(*arguments, **options):
        with matplotlib.rc_context(STYLE):
            return draw(*arguments, **options)

    return wrapped


@styled
def draw_reward_distribution(clustering: dict) -> Figure:
    """Fig. 6: histogram of standardised rewards with the fitted Gaussian, QQ plot, share near the mean.

    `clustering`: result of `analysis.reward_clustering.analyse`.
    """
    figure, (left, middle, right) = canvas(3, 2.35)
    _histogram(left, clustering)
    theoretical, observed = (np.array(clustering["qq"][key]) for key in ("theoretical", "observed"))
    limit = 1.05 * max(np.abs(theoretical).max(), np.abs(observed).max())
    middle.plot([-limit, limit], [-limit, limit], color=VERMILION, linestyle="--", linewidth=1, label="Gaussian")
    middle.plot(theoretical, observed, ".", markersize=3, color=BLUE, label="rewards")
    middle.set(xlabel="Gaussian quantile", ylabel="quantile of A", aspect="equal")
    middle.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[-2, 0, 2], yticks=[-2, 0, 2])
    middle.legend(loc="upper left", handlelength=1.4)
    _clustered_share(right, clustering)
    _letters((left, middle, right))
    return figure


def _histogram(axis, clustering: dict) -> None:
    edges, density = np.array(clustering["histogram"]["edges"]), np.array(clustering["histogram"]["density"])
    moments, n = clustering["moments"], clustering["group"]
    axis.stairs(density, edges, fill=True, color=SKY, alpha=0.6, label=f"{clustering['trajectories']} rewards")
    grid = np.linspace(edges[0], edges[-1], 401)
    fitted = stats.norm.pdf(grid, moments["mean"], moments["std"])
    axis.plot(grid, fitted, color=VERMILION, linestyle="--", label="Gaussian fit")
    centres, expected = (edges[1:] + edges[:-1]) / 2, clustering["histogram"]["gaussian_groups"]
    axis.plot(centres, expected, color=BLACK, linewidth=0.9, label=f"Gaussian, groups of {n}")
    axis.set(xlabel="standardised reward A (group std)", ylabel="density", xlim=(edges[0], edges[-1]))
    axis.set_ylim(0, 1.45 * max(density.max(), 0.42))
    axis.legend(loc="upper center", ncols=1, handlelength=1.6, borderaxespad=0)


def _clustered_share(axis, clustering: dict) -> None:
    """Share |A| <= delta of the full group, of a uniform subset and of the OVF subset, with Gaussian predictions."""
    keep = clustering["subsampling"][0]["keep"]
    subsets = {row["rule"]: row for row in clustering["subsampling"] if row["keep"] == keep}
    deltas = [row["delta"] for row in clustering["shares"]]
    series = {
        f"all {clustering['group']}": (
            [row["observed"] for row in clustering["shares"]],
            [row["gaussian_groups"] for row in clustering["shares"]],
        )
    }
    for rule in ("uniform", "ovf"):
        observed, predicted = (
            [row["share"] for row in subsets[rule][source]["shares"]] for source in ("observed", "gaussian")
        )
        series[f"{'OVF' if rule == 'ovf' else rule} {keep}"] = (observed, predicted)
    positions, width = np.arange(len(deltas)), 0.27
    for index, ((label, (observed, predicted)), colour) in enumerate(
        zip(series.items(), ARM_COLOURS.values(), strict=True)
    ):
        at = positions + (index - 1) * width
        axis.bar(at, observed, width, color=colour, label=label)
        mark = "Gaussian" if index == 2 else None
        axis.plot(at, predicted, linestyle="", marker="_", markersize=7, markeredgewidth=1.4, color=BLACK, label=mark)
    axis.set_xticks(positions, [f"{delta:g}" for delta in deltas])
    axis.set(xlabel="δ", ylabel="share with |A| ≤ δ", ylim=(0, 0.8))
    axis.legend(loc="upper left", handlelength=1.2)


@styled
def draw_ovf_study(study: dict) -> Figure:
    """Fig. 2: reward spread and reward over training of the full group, a uniform subset and OVF.

    `study`: result of `analysis.ovf_study.analyse`; bands are 95 % intervals over seeds.
    """
    figure, axes = canvas(2, 2.4)
    labels = {"reward_std": "reward std of trained trajectories", "reward": "mean reward of the whole group"}
    for axis, (quantity, label) in zip(axes, labels.items(), strict=True):
        for (arm, name), dash in zip(ARM_LABELS.items(), DASHES, strict=False):
            _band(axis, study["curves"][arm][quantity], name, ARM_COLOURS[arm], dash)
        axis.set(xlabel="iteration", ylabel=label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].legend(loc="best")
    _letters(axes)
    return figure


def _band(axis, band: dict, label: str, colour: str, dash, at=None) -> None:
    """A mean with its interval, at the abscissae `at` or at iterations 1, 2, ..."""
    at = np.arange(1, len(band["mean"]) + 1) if at is None else at
    axis.plot(at, band["mean"], color=colour, linestyle=dash, label=label)
    if band["low"][0] is not None:
        axis.fill_between(at, band["low"], band["high"], color=colour, alpha=0.18, linewidth=0)


@styled
def draw_training_curves(
    runs: dict[str, list[list[dict]]], keys: tuple[str, ...], window: int = 10, over: str = "iteration"
) -> Figure:
    """Fig. 5: quantities of `metrics.jsonl` over training, one line per run, mean and 95 % interval over seeds.

    `runs`: {label: one list of metric records per seed}, cut to the shortest seed. `over`: "iteration", or
    "denoiser_calls" for the accumulated calls of sampling. ValueError for a quantity that a record lacks.
    """
    figure, axes = canvas(len(keys), 2.5)
    for axis, key in zip(axes, keys, strict=True):
        for index, (label, seeds) in enumerate(runs.items()):
            suffix = f" ({len(seeds)} seeds)" if len(seeds) > 1 else ""
            at = None if over == "iteration" else _series(label, seeds, over)[0].cumsum() / 1000
            smoothed = curve(_series(label, seeds, key), window)
            style = (CYCLE[index % len(CYCLE)], DASHES[index % len(DASHES)])
            _band(axis, smoothed, label + suffix, *style, at=at)
        axis.set(xlabel=AXES[over], ylabel=AXES.get(key, key.replace("_", " ")))
        if over == "iteration":
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].legend(loc="best")
    if len(keys) > 1:
        _letters(axes)
    return figure


def _series(label: str, seeds: list[list[dict]], key: str) -> np.ndarray:
    """One quantity of all seeds, (seeds, iterations), cut to the shortest seed."""
    length = min(len(records) for records in seeds)
    values = [[record.get(key) for record in records[:length]] for records in seeds]
    if any(value is None for row in values for value in row):
        raise ValueError(f"{label}: the metrics have no {key!r}")
    return np.array(values, dtype=float)


@styled
def draw_pilot(pilot: dict) -> Figure:
    """Table 9 as a figure: Spearman over steps with intervals; survivors' variance against CostRatio.

    `pilot`: result of `analysis.pruning_pilot.analyse`. The paper's Spearman values stand at the same t / T.
    """
    figure, (left, right) = canvas(2, 2.6)
    rows, steps = pilot["reliability"], pilot["steps"]
    at, value = [row["fraction"] for row in rows], np.array([row["spearman"] for row in rows])
    low, high = np.array([row["low"] for row in rows]), np.array([row["high"] for row in rows])
    spread = np.maximum([value - low, high - value], 0)
    left.errorbar(
        at, value, spread, color=BLUE, marker="o", markersize=3.5, capsize=2, elinewidth=0.8, label="measured"
    )
    paper = np.array([(row["fraction"], row["spearman"]) for row in pilot["paper_spearman"]])
    left.plot(*paper.T, color=ORANGE, linestyle="", marker="^", markersize=5, label="paper, SD3.5-M")
    for fraction, name in zip(pilot["selected"]["fractions"], ("$t_1$", "$t_2$"), strict=True):
        left.axvline(fraction, color=GREY, linewidth=0.8, linestyle=":")
        left.text(fraction + 0.01, 0.02, name, transform=left.get_xaxis_transform(), color=GREY, parse_math=True)
    left.set(xlabel=f"completed steps, t / T  (T = {steps})", ylabel="Spearman, preview and final reward")
    left.set(xlim=(-0.03, 1.0), ylim=(min(-0.05, low.min() - 0.03), 1.05))
    left.legend(loc="upper left")
    _variance_against_cost(right, pilot)
    _letters((left, right))
    return figure


def _variance_against_cost(axis, pilot: dict) -> None:
    pairs = pilot["all_pairs"]
    axis.plot(
        [row["cost_ratio"] for row in pairs],
        [row["variance"] for row in pairs],
        linestyle="",
        marker=".",
        markersize=3,
        color=GREY,
        label="all pairs" if pairs else None,
    )
    for (name, colour), dash in zip({"oracle": GREEN, "pool": BLACK, "random": ORANGE}.items(), DASHES, strict=False):
        label = {"oracle": "OVF on final rewards", "pool": "whole pool", "random": "random subset"}[name]
        axis.axhline(pilot["reference_variances"][name], color=colour, linestyle=dash, linewidth=0.9, label=label)
    for index, row in enumerate(pilot["candidates"]):
        at, value = row["cost_ratio"], row["variance"]
        spread = np.maximum([[value - row["variance_low"]], [row["variance_high"] - value]], 0)
        chosen = row["decision"] == "selected"
        colour, marker = (VERMILION if chosen else BLUE), DECISION_MARKERS[row["decision"]]
        axis.errorbar(at, value, spread, color=colour, marker=marker, markersize=9 if chosen else 5, capsize=2)
        name = f"({row['pruning_steps'][0]}, {row['pruning_steps'][1]})\n{row['decision']}"
        # Below and above in turn: neighbouring candidates lie closer together than their names are wide.
        end, lift, edge = ("variance_high", 5, "bottom") if index % 2 else ("variance_low", -5, "top")
        place = {"xytext": (0, lift), "textcoords": "offset points", "ha": "center", "va": edge}
        axis.annotate(name, (at, row[end]), fontsize=6, color=colour, **place)
    axis.set(xlabel="CostRatio", ylabel="variance of survivors' rewards")
    axis.margins(x=0.16)
    highest = max((row["variance_high"] for row in pilot["candidates"]), default=0)
    axis.set_ylim(0, max(1.75 * pilot["reference_variances"]["oracle"], 1.6 * highest))  # room for names and legend
    axis.legend(loc="upper left", ncols=2, columnspacing=1)


@styled
def draw_grid(images: np.ndarray, prompts: list[str], labels: list[str]) -> Figure:
    """Rows of images under common column labels, each with its prompt at the left.

    images: uint8 (rows, columns, H, W, 3). Used for Fig. 7 (columns are steps) and qualitative comparisons (columns are
    models). ValueError when prompts or labels do not fit.
    """
    rows, columns = images.shape[:2]
    if len(prompts) != rows or len(labels) != columns or images.shape[-1] != 3:
        raise ValueError(f"images {images.shape} do not fit {len(prompts)} prompts and {len(labels)} labels")
    shown = np.arange(columns)
    if columns > MAX_COLUMNS:
        shown = np.unique(np.linspace(0, columns - 1, MAX_COLUMNS).round().astype(int))
    margin = 1.15  # inches for the prompts
    cell = (WIDTH - margin) / len(shown)
    cell_height = cell * images.shape[2] / images.shape[3]
    figure = Figure(figsize=(WIDTH, rows * cell_height + 0.25))
    grid = figure.add_gridspec(
        rows,
        len(shown),
        left=margin / WIDTH,
        right=0.998,
        bottom=0,
        top=1 - 0.25 / figure.get_figheight(),
        wspace=0.05,
        hspace=0.05,
    )
    lines = min(
        5, int(cell_height * 72 / (1.25 * PROMPT_SIZE))
    )  # of a prompt, in points: no more than fit beside its images
    smooth = "nearest" if images.shape[2] < 128 else "antialiased"
    for row in range(rows):
        for place, column in enumerate(shown):
            axis = figure.add_subplot(grid[row, place])
            axis.imshow(images[row, column], interpolation=smooth)
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set(visible=True, linewidth=0.4, color=GREY)
            if row == 0:
                axis.set_title(labels[column], fontsize=7, pad=3)
            if place == 0:
                text = textwrap.fill(prompts[row], 18, max_lines=max(lines, 1))
                axis.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=PROMPT_SIZE, labelpad=4)
    return figure
