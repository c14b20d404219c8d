"""pyproject.toml, environment.yml and requirements.txt say the same."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def by_name(requirements: list[str]) -> dict[str, Requirement]:
    parsed = [Requirement(text) for text in requirements]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


@pytest.fixture(scope="module")
def declared() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return by_name(project["dependencies"] + sum(project["optional-dependencies"].values(), []))


def locked() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return by_name([line for line in lines if line and not line.startswith("#")])


def test_the_conda_environment_has_what_pyproject_names_in_the_versions_of_the_lock(declared):
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    constraint, *packages = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert constraint == "--constraint requirements.txt"  # binds what the packages bring with them
    listed, lock = by_name(packages), locked()
    assert set(listed) == set(declared)
    for name, requirement in listed.items():
        assert str(requirement.specifier) == str(lock[name].specifier), name


def test_the_lock_satisfies_pyproject(declared):
    lock = locked()
    assert all(re.fullmatch(r"==[^*]+", str(requirement.specifier)) for requirement in lock.values())
    for name, requirement in declared.items():
        version = str(lock[name].specifier).removeprefix("==")
        assert requirement.specifier.contains(version), f"{requirement} against {version}"


def test_every_package_of_the_papers_stack_is_mentioned():
    text = (ROOT / "environment.yml").read_text()
    for package in ("torch", "diffusers", "transformers", "peft", "accelerate", "dvc", "snakemake", "open_clip_torch"):
        assert f"- {package}" in text
    assert "image-reward" in text
    assert "geneval" in text


def fresh(code: str, folder: Path) -> subprocess.CompletedProcess:
    """Run code in an isolated process: no PYTHONPATH, no user site, not this folder; only what is installed."""
    return subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize(
    "code", ["import torchvision", "from diffusers import StableDiffusion3Pipeline", "import open_clip"]
)
def test_the_installed_environment_works_outside_this_package(tmp_path, code):
    done = fresh(
        f"{code}; from torchvision.transforms import v2; import sys; assert 'progrpo' not in sys.modules", tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_torch_is_not_imported_by_processes_that_do_not_ask_for_it(tmp_path):
    looked = (
        "import importlib.util, sys; assert importlib.util.find_spec('torchvision'); assert 'torch' not in sys.modules"
    )
    done = fresh(looked, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_operators_that_a_working_torchvision_has_are_left_alone(tmp_path):
    own = (
        "import torch; library = torch.library.Library('torchvision', 'DEF')\n"
        "for name in ('nms', 'qnms'):\n"
        "    library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        "import torchvision, progrpo_torchvision; assert progrpo_torchvision._library is None"
    )
    done = fresh(own, tmp_path)
    assert done.returncode == 0, done.stderr
