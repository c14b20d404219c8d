"""The body of every table on a summary of distinct numbers: each cell shows its own number, and no other."""

from itertools import count
from pathlib import Path

import pytest

from progrpo.config import load_config
from progrpo.report.tables.bodies import COMPONENTS, body, evaluation_cell
from progrpo.report.tables.latex import ABSENT, NOT_RUN, UNKNOWN, Estimate
from progrpo.report.tables.layout import Layout, load_layout, table_names
from progrpo.report.tables.settings import run_settings

ROOT = Path(__file__).parents[2]
EXPECTED = ROOT / "paper_tables" / "expected"
LAYOUTS = {name: load_layout(name, EXPECTED) for name in table_names(EXPECTED)}
BACKBONES = {"flow": "sd35m", "diffusion": "sd14"}
EMPTY = {"tier": "toy", "evaluations": {}, "training": {}, "analysis": {}, "hardware": {}}


def of_kind(kind: str) -> list[Layout]:
    return [pytest.param(layout, id=name) for name, layout in LAYOUTS.items() if layout.kind == kind]


def lines_of(layout: Layout, summary: dict) -> list:
    return body(layout, EMPTY | summary, None).lines


def means(cells: dict) -> dict:
    return {key: cell.mean if isinstance(cell, Estimate) else cell for key, cell in cells.items()}


def paper(row, columns) -> dict:
    """What the paper's line must show, from the YAML alone."""
    shown = {}
    for column in columns:
        value = row.paper.get(column.key)
        value = getattr(value, "value", value)
        shown[column.key] = ABSENT if column.key in row.absent else UNKNOWN if value is None else value
    return shown


@pytest.mark.parametrize("layout", of_kind("evaluations"))
def test_every_evaluation_stands_in_its_row_and_column(layout):
    number = count(1)
    columns = [column.key for column in layout.columns if not column.key.startswith("flops.")]
    results, runs = {}, {}
    for seeds, row in enumerate(layout.rows, start=2):
        values = {key: next(number) for key in columns}
        results[row.key] = {
            key: {"mean": float(value), "high": value + 0.25, "low": 0.0, "n": seeds} for key, value in values.items()
        }
        runs[row.key] = {"one_plus_reduction": float(next(number)), "speedup": -1.0}
    flops = {"accountings": {"measured": {"runs": runs}, "published": {"runs": {}}}}
    lines = lines_of(layout, {"evaluations": results, "analysis": {"flops": flops}})
    assert [line.source for line in lines] == ["paper", "measured"] * len(layout.rows)
    for seeds, (row, published, measured) in enumerate(zip(layout.rows, lines[::2], lines[1::2], strict=True), start=2):
        assert published.label == measured.label == row.label
        assert (published.seeds, measured.seeds) == ("", str(seeds))
        assert means(published.cells) == paper(row, layout.columns)
        for key in columns:
            expected = results[row.key][key]
            assert measured.cells[key] == Estimate(expected["mean"], 0.25, seeds)
        if "flops.label" in measured.cells:
            label = runs[row.key]["one_plus_reduction"]
            assert means(measured.cells)["flops.label"] == (ABSENT if "flops.label" in row.absent else label)


def test_seeds_are_a_range_where_columns_differ_and_one_seed_has_no_interval():
    layout = LAYOUTS["flow_main"]
    first, second = [column.key for column in layout.columns if not column.key.startswith("flops.")][:2]
    cell = {"mean": 1.0, "low": 0.5, "high": 1.5}
    summary = {"evaluations": {layout.rows[0].key: {first: {**cell, "n": 3}, second: {**cell, "high": None, "n": 1}}}}
    measured = lines_of(layout, summary)[1]
    assert measured.seeds == "1--3"
    assert measured.cells[second] == Estimate(1.0, None, 1)
    assert lines_of(layout, summary)[3].seeds == "0"


def test_a_counted_speedup_is_not_shown_for_a_run_that_was_not_evaluated():
    flops = {"accountings": {"measured": {"runs": {"pro": {"one_plus_reduction": 1.5}}}}}
    summary = EMPTY | {"analysis": {"flops": flops}}
    assert evaluation_cell(summary, "pro", "flops.label") == NOT_RUN
    assert evaluation_cell(summary | {"evaluations": {"pro": {}}}, "pro", "flops.label") == Estimate(1.5)


@pytest.mark.parametrize("steps", [10, 20, 50])
def test_the_pilot_stands_at_the_papers_share_of_any_number_of_steps(steps):
    (layout,) = [layout for layout in LAYOUTS.values() if layout.kind == "pilot"]
    number = count(100)
    candidates = {}
    for index, row in enumerate(layout.rows):
        first, second = (int(step) * steps // 10 for step in row.key.split(","))
        candidates[row.key] = {
            "pruning_steps": [first, second],
            "variance": next(number),
            "spearman": [next(number), next(number)],
            "cost_ratio": next(number),
            "decision": "selected" if index == 1 else "rejected",
        }
    pilot = {"steps": steps, "candidates": list(reversed(candidates.values()))}
    lines = lines_of(layout, {"analysis": {"pruning_pilot": pilot}})
    for index, (row, published, measured) in enumerate(zip(layout.rows, lines[::2], lines[1::2], strict=True)):
        candidate = candidates[row.key]
        first, second = candidate["pruning_steps"]
        assert (published.source, measured.source) == ("paper", "measured")
        assert (published.label, measured.label) == (row.label, f"$({first}, {second})$")
        assert means(published.cells) == paper(row, layout.columns)
        assert published.bold == (row.paper_value("decision") == "selected")
        assert measured.bold == (index == 1)
        assert means(measured.cells) == {
            "variance": candidate["variance"],
            "spearman_first": candidate["spearman"][0],
            "spearman_second": candidate["spearman"][1],
            "cost_ratio": candidate["cost_ratio"],
            "decision": candidate["decision"],
        }


def test_pairs_that_the_pilot_did_not_try_are_empty():
    (layout,) = [layout for layout in LAYOUTS.values() if layout.kind == "pilot"]
    lines = lines_of(layout, {"analysis": {"pruning_pilot": {"steps": 10, "candidates": []}}})
    assert all(line.cells == {} and not line.bold for line in lines[1::2])


@pytest.mark.parametrize("layout", of_kind("flops"))
def test_every_cost_stands_under_its_accounting(layout):
    number = count(1000)
    atomic = {
        backbone: {part + suffix: next(number) for part in COMPONENTS.values() for suffix in ("", "_without_attention")}
        for backbone in BACKBONES.values()
    }
    runs = {
        accounting: {
            row.key: {
                "tflop": {"total": next(number), "rollout": next(number)},
                "one_plus_reduction": next(number),
                "speedup": next(number),
            }
            for row in layout.rows
        }
        for accounting in ("published", "measured")
    }
    accountings = {accounting: {"runs": counted} for accounting, counted in runs.items()}
    flops = {"accountings": accountings, "atomic": {"measured": atomic}}
    lines = lines_of(layout, {"analysis": {"flops": flops}})
    for row, line in zip(layout.rows, lines, strict=True):
        cells = means(line.cells)
        if row.key in COMPONENTS:
            costs = atomic[BACKBONES[layout.family]]
            part = COMPONENTS[row.key]
            expected = {
                "tflop/paper": row.paper["tflop"],
                "tflop/reproduced": costs[f"{part}_without_attention"],
                "tflop/measured": costs[part],
            }
            assert {key: value for key, value in cells.items() if value != ""} == expected
        else:
            published, measured = runs["published"][row.key], runs["measured"][row.key]
            assert cells == {
                "tflop/paper": row.paper["tflop"],
                "label/paper": row.paper["label"],
                "tflop/reproduced": published["tflop"]["total"],
                "label/reproduced": published["one_plus_reduction"],
                "ratio/reproduced": published["speedup"],
                "tflop/measured": measured["tflop"]["total"],
                "label/measured": measured["one_plus_reduction"],
                "ratio/measured": measured["speedup"],
            }


@pytest.mark.parametrize("layout", of_kind("wall_clock"))
def test_every_device_has_a_line_with_its_seconds(layout):
    number = count(10)
    skipped = layout.rows[-1].key
    hardware = {
        device: {
            row.key: {"vae": next(number), "denoiser": next(number), "total": next(number)}
            for row in layout.rows
            if row.key != skipped
        }
        for device in ("B device", "A device")
    }
    lines = iter(lines_of(layout, {"hardware": hardware}))
    for row in layout.rows:
        published = next(lines)
        assert (published.label, published.source) == (row.label, "paper")
        assert means(published.cells) == paper(row, layout.columns)
        for device in ("A device", "B device") if row.key != skipped else ("measured",):
            line = next(lines)
            assert (line.label, line.source) == (row.label, device)
            expected = hardware[device][row.key] if row.key != skipped else {}
            assert means(line.cells) == {c.key: expected[c.key] for c in layout.columns if expected}
    assert next(lines, None) is None


@pytest.mark.parametrize("layout", of_kind("settings"))
def test_every_hyper_parameter_stands_in_the_column_of_its_run(layout):
    config = load_config(ROOT / "config" / "paper.yaml")
    for row, line in zip(layout.rows, body(layout, EMPTY, config).lines, strict=True):
        assert line.label == row.label
        for run, printed in zip(layout.runs, row.paper, strict=True):
            assert line.cells[f"{run.key}/paper"] == text(printed)
            if run.key in config.runs:
                used = run_settings(config, config.runs[run.key])[row.key]
                assert line.cells[f"{run.key}/config"] == text(used)


def text(value) -> str:
    if isinstance(value, str):  # a sign for what the paper does not have
        return value
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else "none" if value is None else f"{value:g}"


def test_settings_of_a_run_are_its_configuration_with_the_batch_arithmetic():
    config = load_config(ROOT / "config" / "paper.yaml")
    run = config.runs["progrpo_sd35m"]
    hardware = run.hardware.model_copy(update={"gpus": 4, "nodes": 3})
    batches = {"prompts_per_iteration": 96, "updates_per_iteration": 2, "micro_batch": 5, "iterations": 777}
    changed = run.model_copy(update={"hardware": hardware, **batches})
    settings = run_settings(config, changed)
    survivors = run.group.pruning[-1].keep
    assert settings["prompts_per_gpu"] == 96 / 12
    assert settings["accumulation"] == 96 / 2 * survivors / (5 * 12)
    assert (settings["iterations"], settings["micro_batch"], settings["prompts"]) == (777, 5, 96)
    assert settings["group_initial"] == run.group.size
    assert (settings["first_step"], settings["second_step"]) == tuple(stage.step for stage in run.group.pruning)
    assert (settings["group_intermediate"], settings["group_final"]) == tuple(s.keep for s in run.group.pruning)
    assert settings["steps"] == run.sampling.steps
    assert settings["resolution"] == config.models[run.model].resolution
    assert settings["kl_weight"] == run.objective.kl_beta
    assert settings["guidance_scale"] == run.sampling.guidance_scale
    one_stage = run_settings(config, run.model_copy(update={"group": run.group.model_copy(update={"pruning": ()})}))
    assert {one_stage[key] for key in ("group_intermediate", "first_step", "second_step")} == {None}
    assert one_stage["group_final"] == run.group.size
