"""DVC's side: tables from the summaries in git, in a clone without any remote; miniatures from the remote inside."""

import shutil
from pathlib import Path

import pytest
import yaml

from checkout import ROOT, call
from progrpo.config import load_config
from progrpo.report.summary import collect, rounded
from progrpo.report.tables import build, load_summary, table_names

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())
TIERS, TABLES = (next(entry[name] for entry in STAGES["vars"] if name in entry) for name in ("tiers", "tables"))
pytestmark = pytest.mark.xdist_group("workflow")


def test_every_table_has_a_stage_at_every_tier():
    assert sorted(TABLES) == sorted(table_names(ROOT / "paper_tables" / "expected"))
    assert sorted(TIERS) == sorted(path.stem for path in (ROOT / "config").glob("*.yaml"))


@pytest.mark.parametrize("tier", TIERS)
def test_the_committed_tables_are_those_of_the_committed_summary(tier, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_config(f"config/{tier}.yaml")
    summary = load_summary(Path(config.results) / "summary.json", tier)
    for name in TABLES:
        assert Path("paper_tables", tier, f"{name}.tex").read_text() == build(name, summary, config), name


def test_a_clone_regenerates_its_tables_without_a_remote(own_checkout):
    shutil.rmtree(own_checkout / "dvc-remote")
    for tier in TIERS:
        shutil.rmtree(own_checkout / "paper_tables" / tier)
    first = call("dvc", "repro", "--force", cwd=own_checkout)
    assert first.returncode == 0, first.stdout[-2000:]
    changed = call("git", "diff", "--exit-code", "--stat", "--", "paper_tables", cwd=own_checkout)
    assert changed.returncode == 0, changed.stdout
    assert "up to date" in call("dvc", "repro", cwd=own_checkout).stdout


def test_one_table_follows_its_summary(own_checkout):
    summary = own_checkout / "results" / "smoke" / "summary.json"
    summary.unlink()
    missing = call("dvc", "repro", "table@smoke-flow_main", cwd=own_checkout)
    assert missing.returncode != 0
    assert "results/smoke/summary.json" in missing.stdout


def test_the_miniatures_come_from_the_remote_inside_the_repository(own_checkout):
    result = call("dvc", "pull", "results/miniature.dvc", cwd=own_checkout)
    assert result.returncode == 0, result.stdout
    for model in load_config(ROOT / "config" / "smoke.yaml").models.values():
        assert (own_checkout / model.path / "model_index.json").is_file()


@pytest.mark.parametrize("tier", ["smoke", "mini"])
def test_the_stored_evaluations_are_those_of_the_committed_summary(own_checkout, monkeypatch, tier):
    monkeypatch.chdir(own_checkout)
    config = load_config(f"config/{tier}.yaml")
    stored = [f"{config.results}/{name}.dvc" for name in ("evaluations", "analysis")]
    result = call("dvc", "pull", *stored, cwd=own_checkout)
    assert result.returncode == 0, result.stdout
    committed = load_summary(Path(config.results) / "summary.json", tier)
    collected = rounded(collect(config, Path("results/hardware")))
    assert collected["evaluations"] == committed["evaluations"]
    assert collected["analysis"] == committed["analysis"]
    models = {f"base_{run.model}" for run in config.runs.values()} | set(config.runs)
    assert set(committed["evaluations"]) == models


def test_stored_results_are_adopted_without_training(own_checkout):
    adopt = ("snakemake", "all", "--profile", "local", "--cores", "1", "--config", "tier=mini", "results=stored")
    result = call(*adopt, cwd=own_checkout)
    assert result.returncode == 0, result.stdout[-2000:]
    assert "Nothing to be done" in call(*adopt, cwd=own_checkout).stdout
    assert not (own_checkout / "results" / "mini" / "runs").exists()
    for made in ("figures/ovf_study.pdf", "figures/previews.pdf", "figures/qualitative.pdf", "tables.html"):
        assert (own_checkout / "results" / "mini" / made).stat().st_size > 10_000
    assert call("git", "diff", "--exit-code", "--", "results", cwd=own_checkout).returncode == 0


def test_a_tier_without_stored_results_is_one_line(own_checkout):
    result = call("snakemake", "-n", "all", "--config", "tier=paper", "results=stored", cwd=own_checkout)
    assert result.returncode == 1
    assert "nothing is stored of tier paper" in result.stdout.splitlines()[-1]


def test_nothing_large_is_in_git():
    files = call("git", "ls-files", "-z", cwd=ROOT).stdout.split("\0")
    sizes = {name: (ROOT / name).stat().st_size for name in files if name and (ROOT / name).is_file()}
    assert max(sizes.values()) < 20_000_000, max(sizes, key=sizes.get)
    assert sum(sizes.values()) < 60_000_000
