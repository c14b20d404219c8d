"""The pictures of README and of docs/evidence.md, from the configuration and what is published: python docs/pictures.py

method.svg    one group of tier paper's Pro-GRPO run: who is cut at which step; the rewards in it are invented
compute.svg   operations per epoch, the paper's numbers beside those counted here
held_out.svg  what the arms of tier mini gain on held-out prompts; of published curves (dvc pull results/published/mini/curves.dvc)
forest.svg, predicted.svg, pairs.svg  the verdicts on them, what the gradient study predicts of them, and their seeds
"""

import io
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from progrpo.config import load_config
from progrpo.files import read_json
from progrpo.grpo.ovf import optimal_variance_filter
from progrpo.paper_runs import FLOWGRPO, PROGRPO, PROGRPO_FLASH, paper_name
from progrpo.report.claims_figures import draw_forest, draw_held_out, draw_pairs, draw_predicted
from progrpo.report.claims_file import Claims, load_claims
from progrpo.report.evidence import Evidence
from progrpo.report.figures import BLUE, GREY, ORANGE, VERMILION
from progrpo.report.stored import PUBLISHED, load_summary
from progrpo.report.tables.layout import load_layout
from progrpo.report.verdicts import judge

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "pictures"
STYLE = {
    "font.size": 9,
    "svg.hashsalt": "progrpo",
    "svg.fonttype": "path",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
RUNS = (FLOWGRPO, PROGRPO_FLASH, PROGRPO)


def survivors(run, seed: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """(paths (G, T + 1), the last step (G,) of each) of random walks that the run's stages prune by their place at each stage."""
    steps, size = run.sampling.steps, run.group.size
    paths = np.random.default_rng(seed).normal(size=(size, steps + 1)).cumsum(axis=1)
    last, alive = np.full(size, steps), np.arange(size)
    for stage in run.group.pruning:
        kept = optimal_variance_filter(torch.tensor(paths[alive, stage.step])[None], stage.keep)[0].numpy()
        last[np.setdiff1d(alive, alive[kept])] = stage.step
        alive = alive[kept]
    return paths, last


def method() -> Figure:
    """Trajectories of one group over the denoising steps, cut where a preview did not make it."""
    run = load_config(ROOT / "config" / "paper.yaml").get_run(PROGRPO)
    paths, last = survivors(run)
    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    axis = figure.subplots()
    for path, end in zip(paths, last, strict=True):
        kept = end == run.sampling.steps
        axis.plot(
            path[: end + 1], color=BLUE if kept else GREY, linewidth=1.1 if kept else 0.6, alpha=1 if kept else 0.6
        )
        axis.plot(end, path[end], "o" if kept else "x", color=BLUE if kept else VERMILION, markersize=4)
    top, low = paths.max() * 1.12, paths.min() * 1.25
    counts = [run.group.size, *(stage.keep for stage in run.group.pruning)]
    edges = [0, *(stage.step for stage in run.group.pruning), run.sampling.steps]
    for number, (start, stop, count) in enumerate(zip(edges[:-1], edges[1:], counts, strict=True)):
        verb = "start" if number == 0 else "go on" if number < len(counts) - 1 else "are finished and trained on"
        axis.text((start + stop) / 2, top, f"{count} {verb}", ha="center", va="bottom", color=BLUE)
    for stage in run.group.pruning:
        axis.axvline(stage.step, color=ORANGE, linestyle="--", linewidth=1)
        axis.text(stage.step + 0.06, low, "preview, score, cut", color=ORANGE, va="bottom", fontsize=8)
    axis.set(
        xlabel="denoising step (0: pure noise)",
        ylabel="reward, if it ended here",
        yticks=[],
        xlim=(0, edges[-1] + 0.1),
        ylim=(low, top),
    )
    return figure


def compute() -> Figure:
    """Operations of an epoch by part: as the paper counts (its printed total is a dot), and as executed here."""
    accountings = read_json(ROOT / PUBLISHED / "mini" / "summary.json")["analysis"]["flops"]["accountings"]
    printed = {
        row.key: row.paper.get("tflop") for row in load_layout("flops_flow", ROOT / "paper_tables/expected").rows
    }
    parts = {"denoising": BLUE, "previews": ORANGE, "terminal": GREY, "update": VERMILION}
    words = {"denoising": "sampling", "previews": "previews", "terminal": "final rewards", "update": "training"}
    figure = Figure(figsize=(7.2, 2.3), layout="constrained")
    for place, (axis, (name, title)) in enumerate(
        zip(figure.subplots(1, 2, sharey=True, sharex=True), COUNTED.items(), strict=True)
    ):
        left = np.zeros(len(RUNS))
        for part, colour in parts.items():
            width = np.array([accountings[name]["runs"][run]["tflop"][part] for run in RUNS]) / 1000
            axis.barh([paper_name(run) for run in RUNS], width, left=left, color=colour, label=words[part])
            left += width
        if place == 0:
            axis.invert_yaxis()
            axis.plot(
                [float(printed[run]) / 1000 for run in RUNS], range(len(RUNS)), "k.", label="printed in the paper"
            )
        axis.set(xlabel="PFLOP per epoch", title=title)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, handlelength=1.2, columnspacing=1.2)
    return figure


def held_out() -> Figure:
    """Gains in the reward that the flow arms of tier mini were trained with, on prompts that they were not."""
    config = load_config(ROOT / "config" / "mini.yaml")
    evidence = Evidence(config, ROOT / PUBLISHED / "mini", {})
    return draw_held_out(load_claims(ROOT / "config" / "claims.yaml"), "flow", evidence)


def _published() -> tuple[Claims, Evidence]:
    config = load_config(ROOT / "config" / "mini.yaml")
    source = ROOT / PUBLISHED / "mini"
    analyses = load_summary(source / "summary.json", "mini")["analysis"]
    return load_claims(ROOT / "config" / "claims.yaml"), Evidence(config, source, analyses)


def forest() -> Figure:
    """Every contrast of tier mini with its interval, in units of the baseline's gain."""
    claims, evidence = _published()
    return draw_forest(claims, judge(claims, evidence))


def predicted() -> Figure:
    """Gains that the gradient study predicts, against those that were found."""
    return draw_predicted(*_published())


def pairs() -> Figure:
    """The seeds of the primary contrasts, those of one seed joined."""
    claims, evidence = _published()
    return draw_pairs(claims, judge(claims, evidence), evidence)


COUNTED = {"published": "as the paper counts", "measured": "as this code runs"}
PICTURES = {
    "method": method,
    "compute": compute,
    "held_out": held_out,
    "forest": forest,
    "predicted": predicted,
    "pairs": pairs,
}


def svg(name: str) -> bytes:
    """A picture, the same bytes every time."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        PICTURES[name]().savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


if __name__ == "__main__":
    for name in PICTURES:
        (FOLDER / f"{name}.svg").write_bytes(svg(name))
