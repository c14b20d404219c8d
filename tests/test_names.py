"""Names of runs and base models, and of their folders."""

import pytest
from pydantic import ValidationError

from checkout import ROOT
from progrpo.config import Config, load_config, tier_files
from progrpo.errors import UserError
from progrpo.names import (
    base_of,
    evaluated_names,
    is_base,
    model_of,
    parse_seed_folder,
    prompt_sets_of,
    seed_folder,
    seeds_of,
)
from progrpo.paper_runs import distinct_names, paper_name
from progrpo.report.tables.layout import load_layout

TIERS = tier_files(ROOT / "config")


@pytest.mark.parametrize("path", TIERS, ids=lambda path: path.stem)
def test_a_base_model_is_evaluated_on_what_its_runs_are_with_their_seeds(path):
    config = load_config(path)
    names = evaluated_names(config)
    assert len(names) == len(set(names))
    for name, run in config.runs.items():
        base = base_of(run.model)
        assert base in names
        assert model_of(config, name) == model_of(config, base) == run.model
        assert set(prompt_sets_of(config, name)) <= set(prompt_sets_of(config, base))
        assert (is_base(base), is_base(name)) == (True, False)
        assert seeds_of(config, name) == config.run_seeds(name)
        assert set(seeds_of(config, name)) <= set(seeds_of(config, base))
    for base in filter(is_base, names):
        runs = [name for name in config.runs if base_of(config.runs[name].model) == base]
        assert list(seeds_of(config, base)) == sorted({seed for name in runs for seed in seeds_of(config, name)})
        of_runs = [
            prompt_sets_of(config, name) for name in config.runs if model_of(config, name) == model_of(config, base)
        ]
        assert set(prompt_sets_of(config, base)) == {prompts for sets in of_runs for prompts in sets}


@pytest.mark.parametrize("name", ["base_sd36m", "sd35m", "progrpo"])
def test_a_name_of_neither_is_one_line(name):
    with pytest.raises(UserError, match=f"{name}: no such run in tier smoke; known: dancegrpo_sd14"):
        model_of(load_config(ROOT / "config" / "smoke.yaml"), name)


@pytest.mark.parametrize("name", ["run", "base_sd14", "twice-seed1"])
def test_a_folder_is_read_as_it_is_named(name):
    assert parse_seed_folder(seed_folder(name, 12)) == (name, 12)


@pytest.mark.parametrize("folder", ["run", "run-seed", "run-seedling", "-seed1", "run-seed1.incoming", "run-seed01"])
def test_other_folders_are_none(folder):
    assert parse_seed_folder(folder) is None


def test_runs_have_the_names_of_the_papers_tables():
    """Figures say what the tables say; a run of two tables that name it differently (a group size) has no row in the main ones."""
    for name in ("flow_main", "diffusion_main", "sd15"):
        for row in load_layout(name, ROOT / "paper_tables" / "expected").rows:
            assert paper_name(row.key) == row.label


def test_two_runs_that_the_paper_calls_alike_stay_apart():
    assert distinct_names(["flowgrpo_sd35m", "mine"]) == ["Flow-GRPO", "mine"]
    both = ["progrpo_sd14", "progrpo_sd15"]
    assert distinct_names(both) == ["Pro-GRPO (progrpo_sd14)", "Pro-GRPO (progrpo_sd15)"]


def test_an_evaluation_of_a_run_says_how_its_family_is_sampled():
    """Otherwise the training succeeds, and its images cannot be made."""
    config = load_config(ROOT / "config" / "smoke.yaml").model_dump(mode="json")
    del config["evaluations"]["drawbench"]["sampling"]["diffusion"]
    with pytest.raises(
        ValidationError, match=r"evaluations.drawbench.sampling, for run \w+: 'diffusion' is not defined"
    ):
        Config.model_validate(config)
    for run in config["runs"].values():
        run["evaluations"] = [name for name in run["evaluations"] or config["evaluations"] if name != "drawbench"]
    Config.model_validate(config)
