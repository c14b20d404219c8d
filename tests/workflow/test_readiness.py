"""`progrpo doctor` says what a machine lacks, and of each tier whether it can run: in small checkouts with one thing wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from checkout import ROOT
from progrpo.cli import main
from progrpo.weights.manifest import RECORD, packaged_manifest
from progrpo.workflow import machine, readiness, sources

DEVICE = machine.device  # as it is, where the fixture below gives the tests another


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """A checkout as far as doctor reads it, without miniature models; on a machine without GPU and Slurm, with all packages."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    for name in ("requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "results").mkdir()
    (tmp_path / ".git").mkdir()
    shutil.copy(ROOT / machine.POINTER, tmp_path / machine.POINTER)
    (tmp_path / "dvc-remote").symlink_to(ROOT / "dvc-remote")
    monkeypatch.chdir(tmp_path)
    gigabytes = {"cores": 2, "memory": 16 * 10**9, "gpus": [], "problem": None}
    monkeypatch.setattr(machine, "device", lambda: gigabytes)
    monkeypatch.setattr(machine, "tools", lambda: dict.fromkeys(machine.TOOLS, False))
    return tmp_path


def restore() -> list[Path]:
    """The published miniature models, from the remote inside the repository."""
    wanted = machine.read_yaml(machine.POINTER)["outs"][0]["md5"]
    paths = []
    for entry in json.loads(machine._object(wanted).read_text()):
        paths.append(machine.POINTER.with_suffix("") / entry["relpath"])
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(machine._object(entry["md5"]), paths[-1])
    return paths


def reasons(tier: str) -> str:
    return "\n".join(readiness.examine()["tiers"][tier]["why_not"])


def test_a_fresh_clone_can_run_smoke_and_not_paper(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tiers"]["smoke"] == {"can_run": True, "command": "make reproduce TIER=smoke", "why_not": []}
    assert found["miniature"]["state"] == "absent"
    paper = "\n".join(found["tiers"]["paper"]["why_not"])
    assert "sd35m (gated)" in paper
    assert "asks for 24 GPUs, here are 0" in paper
    assert "GB of memory" in paper


def test_a_machine_that_cannot_run_smoke_has_exit_status_1(here, capsys):
    (here / "dvc-remote").unlink()
    assert main(["doctor"]) == 1
    page = capsys.readouterr().out
    assert "tier smoke cannot run now:" in page
    assert "models.sd14: results/miniature/sd14 is not there" in page


def test_an_unpacked_archive_is_no_git_checkout_which_dvc_needs(here):
    (here / ".git").rmdir()
    assert "this folder is no git checkout, which DVC needs: call `git init` in it once" in reasons("smoke")


def test_a_tier_without_any_job_and_a_copy_of_another_are_reasons_or_none(here):
    (here / "config" / "copy.yaml").write_text((here / "config" / "smoke.yaml").read_text())
    bare = yaml.safe_load((here / "config" / "smoke.yaml").read_text())
    bare |= {"tier": "bare", "results": "results/bare", "runs": {}, "evaluations": {}, "analyses": {}}
    (here / "config" / "bare.yaml").write_text(yaml.safe_dump({k: v for k, v in bare.items() if k != "learning_curve"}))
    assert "config/copy.yaml: is of tier smoke" in reasons("copy")
    judged = readiness.examine()["tiers"]["bare"]
    assert judged == {"can_run": True, "command": "make reproduce TIER=bare", "why_not": []}


def test_a_remote_that_lacks_one_file_restores_nothing(here, monkeypatch):
    listing = machine._object(machine.read_yaml(machine.POINTER)["outs"][0]["md5"])
    assert machine.miniature()["restorable"]
    monkeypatch.setattr(machine, "OBJECTS", here / "objects")
    copied = machine.OBJECTS / listing.parent.name / listing.name
    copied.parent.mkdir(parents=True)
    shutil.copy(listing, copied)
    assert not machine.miniature()["restorable"]


def test_no_checkout_is_one_line(here, monkeypatch, capsys):
    monkeypatch.chdir(here / "results")
    assert main(["doctor"]) == 2
    assert (
        capsys.readouterr().err
        == "progrpo doctor: error: config is not here; start it from the root of the repository\n"
    )


def test_a_flipped_bit_in_a_model_is_seen_by_content_alone():
    paths = restore()
    assert machine.miniature(hashes=True)["state"] == "published"
    data = bytearray(paths[0].read_bytes())
    data[-1] ^= 1
    paths[0].write_bytes(data)
    assert machine.miniature()["state"] == "published"
    assert machine.miniature(hashes=True)["state"] == "differs"
    paths[0].unlink()
    assert machine.miniature()["state"] == "incomplete"


def test_the_pointer_stands_for_the_folder_that_the_workflow_restores():
    assert str(machine.POINTER) == f"{sources.MINIATURE}.dvc"


def test_a_download_is_present_when_its_files_are_those_of_its_record(here):
    folder = here / "data" / "geneval"
    assert main(["fetch", "geneval"]) == 0
    assert machine.downloads(hashes=True)["geneval"]["state"] == "present"
    (file,) = packaged_manifest()["geneval"].files
    text = (folder / file).read_bytes()
    (folder / file).write_bytes(text.replace(b"bench", b"couch"))
    assert machine.downloads()["geneval"]["state"] == "present"
    assert machine.downloads(hashes=True)["geneval"]["state"] == f"data/geneval/{file} has another hash"
    (folder / file).write_bytes(text[:-1])
    assert "has another size" in machine.downloads()["geneval"]["state"]
    assert "geneval: data/geneval" in reasons("paper")
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps({**record, "source": "an older one"}))
    assert "another revision" in machine.downloads()["geneval"]["state"]
    (folder / RECORD).write_text("{}")
    assert RECORD in machine.downloads()["geneval"]["state"]


def test_a_package_that_is_needed_and_missing_or_too_old_stops_every_tier(monkeypatch):
    versions = {"peft": None, "diffusers": "0.1.0"}
    found = machine.installed
    monkeypatch.setattr(machine, "installed", lambda name: versions[name] if name in versions else found(name))
    for tier in ("smoke", "paper"):
        assert "peft is missing" in reasons(tier)
        assert "diffusers 0.1.0, needed is >=0.42" in reasons(tier)


def test_a_torch_that_cannot_be_imported_is_a_reason_and_no_traceback(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(machine, "device", DEVICE)
    assert "torch cannot be imported" in reasons("smoke")


def test_a_full_disk_and_a_broken_configuration_are_reasons(here, monkeypatch):
    monkeypatch.setattr(machine, "free_disk", lambda: 10**6)
    assert "1.0 MB of disk are free" in reasons("smoke")
    (here / "config" / "smoke.yaml").write_text("tier: smoke\n")
    assert "config/smoke.yaml" in reasons("smoke")


def test_with_slurm_the_cluster_is_asked_for_what_is_not_here(monkeypatch):
    monkeypatch.setattr(machine, "tools", lambda: dict.fromkeys(machine.TOOLS, True))
    tiers = readiness.examine()["tiers"]
    assert not any("GPU" in reason for reason in tiers["paper"]["why_not"])
    assert tiers["paper"]["command"] == "snakemake --profile slurm all --config tier=paper"
    assert tiers["smoke"]["command"] == "make reproduce TIER=smoke"


def test_nothing_but_torch_is_loaded():
    code = "import sys; from progrpo.cli import main; main(['doctor']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"diffusers", "transformers", "open_clip", "snakemake", "dvc"} & set(
        done.stdout.splitlines()[-1].split()
    )
