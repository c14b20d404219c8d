"""What `make` says before it does anything: switches, tiers, and environments of other folders. Nothing is run."""

import shutil

import pytest

from checkout import ROOT, call


@pytest.fixture
def folder(tmp_path):
    for name in ("Makefile", "requirements.txt", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def planned(folder, *words: str) -> str:
    """What `make -n` says."""
    return call("make", "-n", *words, cwd=folder).stdout


@pytest.mark.parametrize("name", ["OWN", "RERUN", "DROP"])
@pytest.mark.parametrize("value", ["0", "no", "true"])
def test_a_switch_is_one_or_not_given(folder, name, value):
    assert f"{name}={value}: the switch is {name}=1, or not given" in planned(folder, "claims", f"{name}={value}")
    assert "Error" not in planned(folder, "claims", f"{name}=1")


@pytest.mark.parametrize("target", ["reproduce", "restore", "publish", "claims", "tables"])
def test_an_empty_tier_is_named(folder, target):
    assert "TIER is empty" in planned(folder, target, "TIER=")


def test_own_results_are_judged_where_one_asks_for_them(folder):
    assert "progrpo claims --tier mini --own" in planned(folder, "claims", "OWN=1")
    assert "--own" not in planned(folder, "claims")
    assert "progrpo tables --tier smoke --own" in planned(folder, "tables", "OWN=1")


def test_tables_are_those_of_the_tier_that_was_named(folder):
    (folder / "paper_tables/mini").mkdir(parents=True)
    (folder / ".venv").mkdir()
    (folder / ".venv/.installed").write_text(f"{folder.resolve()}\n")  # the newest file: nothing is installed
    assert "dvc repro" in planned(folder, "tables").splitlines()
    assert 'dvc repro --glob "*@mini*"' in planned(folder, "tables", "TIER=mini").splitlines()
    done = call("make", "tables", "TIER=nope", cwd=folder)
    assert done.returncode != 0
    assert "make tables: nothing is published of a tier 'nope'; OWN=1 takes your own" in done.stdout


def test_an_environment_that_was_made_in_another_folder_is_not_used(folder):
    (folder / ".venv").mkdir()
    made = folder / ".venv" / ".installed"
    made.write_text("/another/folder\n")
    assert ".venv was made in /another/folder, and runs the code there; remove it and call again" in planned(
        folder, "test"
    )
    for own in (f"{folder.resolve()}\n", ""):  # an older one does not say
        made.write_text(own)
        assert "was made in" not in planned(folder, "test")


def test_an_unpacked_archive_is_told_what_dvc_needs(folder):
    done = call("make", "install", cwd=folder, GIT_CEILING_DIRECTORIES=str(folder.parent))
    assert done.returncode != 0
    assert "this folder is no git checkout, which DVC needs: call `git init` in it once" in done.stdout
    assert not (folder / ".venv").exists()
