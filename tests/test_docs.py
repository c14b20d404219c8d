"""The documentation names what exists, and nothing of the machine it was written on."""

import importlib
import importlib.util
import re
import subprocess
import sys

import pytest
import yaml

from checkout import ROOT
from progrpo import cli
from progrpo.config import Config, Run
from progrpo.rehearsal.stage import laid_over
from progrpo.typed import check

PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_that_a_page_names_exists(page):
    named = set(re.findall(r"\b(?:\w+/)*\w+\.py\b", page.read_text()))
    missing = [name for name in named if not any((root / name).is_file() for root in (ROOT, ROOT / "code" / "progrpo"))]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_holds_a_path_of_a_machine(page):
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|mnt)/", page.read_text())


def test_every_equation_names_a_function_that_exists():
    links = re.findall(r"\[`(\w+)`\]\[([\w.]+)\]", (ROOT / "docs" / "algorithm.md").read_text())
    assert len(links) >= 20
    for shown, path in links:
        module, _, name = path.rpartition(".")
        assert shown == name
        assert getattr(importlib.import_module(module), name).__doc__


def test_every_page_of_the_site_is_in_its_menu_and_every_link_between_pages_holds():
    menu = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES:
        assert page.name in menu
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


BLOCKS = [block for page in PAGES for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split(":")[0])
def test_every_block_of_yaml_is_of_a_run_or_makes_a_tier_another_valid_one(block, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    settings = yaml.safe_load(block)
    smoke = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    smoke.pop("templates")
    run = smoke["runs"]["progrpo_sd35m"]
    if set(settings) <= set(Run.model_fields):
        settings = {"runs": {"another": laid_over(run, settings)}}
    elif "runs" in settings:
        settings["runs"] = {name: laid_over(run, own) for name, own in settings["runs"].items()}
    check(Config, laid_over(smoke, settings), "smoke.yaml and the block")


def test_a_shell_can_complete_every_command():
    script = subprocess.run(
        [sys.executable, "-m", "progrpo.cli", "--completion", "bash"], capture_output=True, text=True
    )
    assert script.returncode == 0, script.stderr
    assert all(command.replace("_", "-") in script.stdout for command in cli.COMMANDS)
    assert subprocess.run(["bash", "-n"], input=script.stdout, text=True).returncode == 0


def test_the_page_of_the_miniature_world_is_what_its_script_writes():
    spec = importlib.util.spec_from_file_location("world", ROOT / "docs" / "world.py")
    world = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(world)
    assert (ROOT / "docs" / "world.md").read_text() == world.page()
    for name in ("detector", "blip_vqa"):
        report = world.MODELS / name / "report.json"
        if report.is_file():
            assert world.read_json(world.MEASURED)[name] == world.read_json(report)
