"""What is evaluated, by name: a run, or `base_<model>` for a model that runs start from; and the folder of one with a seed."""

import re
from pathlib import Path

from progrpo.config import Config

BASE = "base_"
_FOLDER = re.compile(r"(?P<name>.+)-seed(?P<seed>0|[1-9]\d*)")


def base_of(model: str) -> str:
    """The name under which a base model is evaluated beside the runs."""
    return f"{BASE}{model}"


def is_base(name: str) -> bool:
    """Whether a name is that of a base model, not of a run."""
    return name.startswith(BASE)


def model_of(config: Config, name: str) -> str:
    """Name of the model of a run or of `base_<model>`; UserError for neither."""
    if is_base(name) and name.removeprefix(BASE) in config.models:
        return name.removeprefix(BASE)
    return config.get_run(name).model


def evaluated_names(config: Config) -> list[str]:
    """All that a tier evaluates: the models that its runs start from, and the runs."""
    return [*(base_of(model) for model in sorted({run.model for run in config.runs.values()})), *config.runs]


def seeds_of(config: Config, name: str) -> tuple[int, ...]:
    """Seeds of a run; those of a base model are those of the runs that start from it, so that each is compared on its own noise."""
    if name in config.runs:
        return config.run_seeds(name)
    model = model_of(config, name)
    return tuple(
        sorted(
            {seed for run, section in config.runs.items() if section.model == model for seed in config.run_seeds(run)}
        )
    )


def prompt_sets_of(config: Config, name: str) -> list[str]:
    """Prompt sets that a run is evaluated on; a base model's are those of the runs that start from it."""
    if name in config.runs:
        chosen = config.runs[name].evaluations
        return [n for n in config.evaluations if n != config.learning_curve] if chosen is None else list(chosen)
    model = model_of(config, name)
    runs = [run for run, section in config.runs.items() if section.model == model]
    wanted = {prompts for run in runs for prompts in prompt_sets_of(config, run)}
    return [prompts for prompts in config.evaluations if prompts in wanted]


def seed_folder(name: str, seed: int | str) -> str:
    """Name of the folder of a run or base model with one seed: `<name>-seed<seed>`."""
    return f"{name}-seed{seed}"


def parse_seed_folder(folder: str) -> tuple[str, int] | None:
    """(name, seed) of a folder's name; None when it is named otherwise."""
    match = _FOLDER.fullmatch(folder)
    return (match["name"], int(match["seed"])) if match else None


def snapshot_folder(run: Path, iteration: int) -> Path:
    """Where a run keeps its weights after an iteration."""
    return run / "snapshots" / str(iteration)
