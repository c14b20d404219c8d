"""Nothing from a configuration reaches a shell unquoted."""

import re
import shlex

import pytest
import yaml

from checkout import ROOT, call
from progrpo.cli import main

pytestmark = pytest.mark.xdist_group("dag")
STRANGE = "results/p p;touch X;$(touch Y)'\"&"


def test_every_placeholder_of_a_shell_command_is_quoted():
    for file in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        text = file.read_text()
        commands = re.findall(r"shell:\n((?:\s+(?:f?\".*\"|#.*)\n)+)", text)
        assert len(commands) == len(re.findall(r"\bshell:", text)), file  # written in a form that is looked at
        for shell in commands:
            names = re.findall(r"\{(?:input|params|output|log|wildcards|resources)[^}]*\}", shell)
            assert names
            assert [name for name in names if not name.endswith(":q}")] == [], file


def test_every_placeholder_of_a_hook_is_quoted():
    for file in (ROOT / "Snakefile", *sorted((ROOT / "workflow" / "rules").glob("*.smk"))):
        for command in re.findall(r"\bshell\(([^)]*)\)", file.read_text()):
            assert not re.search(r"\bf\"", command), file  # what an f-string has put in, nothing quotes
            names = re.findall(r"\{[^}]*\}", command)
            assert names
            assert [name for name in names if not name.endswith(":q}")] == [], file


def test_a_results_folder_with_a_strange_name_is_one_word(own_checkout):
    path = own_checkout / "config" / "smoke.yaml"
    config = yaml.safe_load(path.read_text())
    config["results"] = STRANGE
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    run, seed = next(iter(config["runs"])), config["seeds"][0]
    target = f"{STRANGE}/runs/{run}-seed{seed}/final/provenance.json"
    done = call("snakemake", "-n", "-p", "--profile", "local", "--config", "tier=smoke", "--", target, cwd=own_checkout)
    assert done.returncode == 0, done.stdout[-2000:]
    (command,) = [line for line in done.stdout.splitlines() if "progrpo train" in line]
    words = shlex.split(command)
    assert f"{STRANGE}/runs/{run}-seed{seed}" in words  # after --out
    assert f"{STRANGE}/logs/train/{run}-seed{seed}.log" in words
    assert not [name for name in ("X", "Y") if (own_checkout / name).exists()]


@pytest.mark.parametrize("name", ["a&touch X", "a b", "../x", "a;b", "$(x)", "a'b", "base_sd14", "a.b", "{a}", ""])
def test_a_run_name_that_is_no_word_is_refused(tmp_path, capsys, name):
    config = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    config["runs"] = {name: next(iter(config["runs"].values()))}
    (tmp_path / "smoke.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    assert main(["train", "--config", str(tmp_path / "smoke.yaml"), "--run", name, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "runs" in said
