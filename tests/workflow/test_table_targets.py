"""A target per table: it runs what its cells show and nothing else; what fails leaves `--`, and the rest is set."""

import shutil
from pathlib import Path

import pytest

from checkout import ROOT, call
from progrpo.config import load_config
from progrpo.files import write_json
from progrpo.names import prompt_sets_of, seeds_of
from progrpo.report.tables.layout import load_layout, reads, table_names
from progrpo.workflow.code_inputs import Code
from progrpo.workflow.plan import Plan

pytestmark = pytest.mark.xdist_group("dag")
EXPECTED = ROOT / "paper_tables" / "expected"


def plan(tier: str) -> Plan:
    return Plan(load_config(ROOT / "config" / f"{tier}.yaml"), Code(ROOT / "code"))


def files_of(table: str, tier: str = "paper") -> set[str]:
    """The files that a table's target reads, below the tier's results."""
    made = plan(tier).table_files(reads(load_layout(table, EXPECTED)))
    return {name.removeprefix(f"results/{tier}/") for name in made}


def test_a_table_reads_every_evaluation_that_its_cells_show():
    config = plan("paper").config
    models = ("base_sd35m", "flowgrpo_sd35m", "progrpo_flash_sd35m", "progrpo_sd35m")
    wanted = {
        f"evaluations/{model}-seed{seed}/{prompts}.json"
        for model in models
        for seed in seeds_of(config, model)
        for prompts in ("test_flow", "drawbench", "hpsv2")
        if prompts in prompt_sets_of(config, model)
    }
    assert files_of("flow_main") == wanted | {"analysis/flops.json"}
    assert files_of("pruning_pilot") == {"analysis/pruning_pilot.json"}
    assert files_of("flops_diffusion") == {"analysis/flops.json"}
    assert files_of("wall_clock") == files_of("hyperparameters_flow") == set()
    assert "evaluations/progrpo_sd15-seed0/test_diffusion.json" in files_of("numbers")


def test_the_tables_of_sd14_need_no_sd35m(checkout):
    assert not [name for name in files_of("diffusion_main") if "sd35m" in name]
    planned = call("snakemake", "-n", "table_diffusion_main", "--config", "tier=paper", cwd=checkout)
    assert planned.returncode == 0, planned.stdout[-2000:]
    assert "rule table_diffusion_main:" in planned.stdout
    assert "sd35m" not in planned.stdout


@pytest.mark.parametrize("tier", ["smoke", "mini", "paper"])
def test_every_table_has_a_target_at_every_tier(tier):
    everything = {*plan(tier).evaluation_files(), *plan(tier).analysis_files()}
    for table in table_names(EXPECTED):
        assert {f"results/{tier}/{name}" for name in files_of(table, tier)} <= everything, table


def test_what_fails_stays_open_and_the_rest_is_set(own_checkout):
    made = plan("mini")
    flow = [name for name in made.evaluation_files() if "sd35m" in name]
    for name in flow:
        write_json(own_checkout / name, {"scores": {"pickscore": {"mean": 6.0}}})
    shutil.rmtree(own_checkout / "dvc-remote")  # no base model can come from it
    result = call(
        "snakemake",
        "table_diffusion_main",
        "--profile",
        "local",
        "--keep-going",
        "--config",
        "tier=mini",
        cwd=own_checkout,
    )
    assert result.returncode != 0
    tables = own_checkout / "results/mini/tables"
    assert "6.000" in (tables / "flow_main.tex").read_text()
    measured = [line for line in (tables / "diffusion_main.tex").read_text().splitlines() if "& measured" in line]
    assert measured
    assert all("--" in line for line in measured)
    assert Path(own_checkout, "results/mini/tables.html").is_file()
