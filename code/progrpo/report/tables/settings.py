"""Tables 7 and 8: hyper-parameters read from the configuration that the runs use, so that they cannot drift."""

from progrpo.config import Config, Run
from progrpo.errors import UserError
from progrpo.report.tables.latex import NOT_RUN, Body, Cell, Line
from progrpo.report.tables.layout import Column, Layout

Setting = bool | int | float | str | None


def run_settings(config: Config, run: Run) -> dict[str, Setting]:
    """What Tables 7 and 8 print of a run; group sizes and pruning steps that a run does not have are None."""
    ranks = run.hardware.ranks
    stages = run.group.pruning
    samples = run.prompts_per_iteration // run.updates_per_iteration * run.group.survivors
    return {
        "lora": run.lora is not None,
        "global_std": run.objective.advantage_std == "global",
        "ema": run.ema is not None,
        "resolution": config.models[run.model].resolution,
        "guidance_scale": run.sampling.guidance_scale,
        "steps": run.sampling.steps,
        "kl_weight": run.objective.kl_beta,
        "iterations": run.iterations,
        "micro_batch": run.micro_batch,
        "prompts": run.prompts_per_iteration,
        "prompts_per_gpu": _ratio(run.prompts_per_iteration, ranks),
        "accumulation": "auto" if run.micro_batch == "auto" else _ratio(samples, run.micro_batch * ranks),
        "group_initial": run.group.size,
        "group_intermediate": stages[0].keep if len(stages) > 1 else None,
        "group_final": run.group.survivors,
        "first_step": stages[0].step if stages else None,
        "second_step": stages[1].step if len(stages) > 1 else None,
    }


def _ratio(total: int, parts: int) -> float:
    quotient = total / parts
    return int(quotient) if quotient == int(quotient) else quotient


def settings_body(layout: Layout, config: Config) -> Body:
    """One line per setting, per run the paper's value and the configuration's."""
    columns = [
        Column(key=f"{run.key}/{source}", head=source, group=run.label, digits=0, better="none")
        for run in layout.runs
        for source in ("paper", "config")
    ]
    used = {key: run_settings(config, run) for key, run in config.runs.items()}
    lines = []
    for row in layout.rows:
        cells: dict[str, Cell] = {}
        for run, paper in zip(layout.runs, row.paper, strict=True):
            cells[f"{run.key}/paper"] = _text(paper)
            cells[f"{run.key}/config"] = _text(_setting(used[run.key], row.key)) if run.key in used else NOT_RUN
        lines.append(Line(row.label, cells))
    return Body(columns, lines, leading=("Setting",))


def _setting(settings: dict[str, Setting], key: str) -> Setting:
    if key not in settings:
        raise UserError(f"hyper-parameter tables have no setting {key!r}; known: {', '.join(settings)}")
    return settings[key]


def _text(value: Setting) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else f"{value:g}"
