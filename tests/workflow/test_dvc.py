"""DVC's side: tables from the published results, in a clone without any remote; what is pulled is what was pushed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from checkout import ROOT, call
from progrpo.config import load_config, tier_files
from progrpo.files import write_json
from progrpo.names import parse_seed_folder
from progrpo.report.stored import PUBLISHED, load_summary
from progrpo.report.tables import build, table_names
from progrpo.workflow.code_inputs import Code
from progrpo.workflow.publishing import EMBEDDED, EMBEDDED_BYTES
from small_results import analyses

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())
TIERS, TABLES = (next(entry[name] for entry in STAGES["vars"] if name in entry) for name in ("tiers", "tables"))
# Modules that read, check, write and complain, and those of which another output of the same command is made.
COMMON = {"benchmark_settings", "commands.options", "errors", "files", "identity", "plugins", "typed"}
COMMON |= {"provenance"}  # hashes of settings
NETWORKS = {
    "devices",
    "grpo.backbone",
    "grpo.pipeline_folder",
    "grpo.samplers",
    "grpo.schedules",
    "grpo.sharding",
    "quiet",
}
OTHERS = {
    "table": {"report.metrics", "report.evidence"},
    "metrics": {"execution"}  # how work is cut, which a table of settings says
    | {f"report.tables.{name}" for name in ("bodies", "document", "latex", "layout", "page", "settings")}
    | {
        "analysis.statistics",
        "paper_runs",
        "report.evidence",
        "report.stored",
        "report.summary",
    },  # as stored in the summary
    "discrepancies": NETWORKS | {"commands.analyse", "execution", "model_files", "safe_names"},
}
SILENT = {stage: {f"progrpo.{name}" for name in COMMON | others} for stage, others in OTHERS.items()}
OBJECTS = Path("dvc-remote/files/md5")
pytestmark = pytest.mark.xdist_group("dvc")


def status(checkout: Path) -> str:
    """What git would name as changed or new."""
    return call("git", "status", "--porcelain", cwd=checkout).stdout


def test_every_table_of_every_published_tier_has_a_stage():
    assert sorted(TABLES) == sorted(table_names(ROOT / "paper_tables" / "expected"))
    assert sorted(TIERS) == sorted(path.parent.name for path in (ROOT / PUBLISHED).glob("*/summary.json"))
    assert "smoke" not in TIERS  # its numbers mean nothing


@pytest.mark.parametrize(
    ("stage", "entry"),
    [
        ("table", "progrpo.commands.tables"),
        ("metrics", "progrpo.commands.tables:write_metrics"),
        ("discrepancies", "progrpo.commands.analyse:run_discrepancies"),
    ],
)
def test_a_stage_runs_again_when_code_that_decides_its_numbers_changes(stage, entry):
    """Every module that a stage's command imports is one of its dependencies, or none that knows a number of its output."""
    named = [path for path in STAGES["stages"][stage]["deps"] if path.startswith("code/")]
    for module in Code(ROOT / "code").modules(entry):
        stem = "code/" + module.replace(".", "/")
        watched = any(f"{stem}.py" == path or f"{stem}/".startswith(f"{path}/") for path in named)
        assert watched or module in SILENT[stage] or (ROOT / stem).is_dir(), f"{stage}: {module}"


@pytest.mark.parametrize("tier", TIERS)
def test_the_committed_tables_are_those_of_the_published_summary(tier, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_config(f"config/{tier}.yaml")
    summary = load_summary(PUBLISHED / tier / "summary.json", tier)
    for name in TABLES:
        assert Path("paper_tables", tier, f"{name}.tex").read_text() == build(name, summary, config), name


def test_a_clone_regenerates_its_tables_without_a_remote_and_changes_nothing(own_checkout):
    shutil.rmtree(own_checkout / "dvc-remote")
    call("git", "commit", "--quiet", "--all", "--message", "no remote", cwd=own_checkout)
    shutil.rmtree(own_checkout / "paper_tables" / "mini")
    again = ("dvc", "repro", "--force", "--single-item", "--glob", "*@mini*")  # a tier is like the other
    first = call(*again, cwd=own_checkout)
    assert first.returncode == 0, first.stdout[-2000:]
    assert status(own_checkout) == ""
    assert "up to date" in call("dvc", "repro", cwd=own_checkout).stdout


def test_one_table_follows_the_published_summary(own_checkout):
    (own_checkout / PUBLISHED / "mini" / "summary.json").unlink()
    missing = call("dvc", "repro", "table@mini-flow_main", cwd=own_checkout)
    assert missing.returncode != 0
    assert "results/published/mini/summary.json" in missing.stdout


def test_the_miniatures_come_from_the_remote_inside_the_repository(own_checkout):
    result = call("dvc", "pull", "results/miniature.dvc", cwd=own_checkout)
    assert result.returncode == 0, result.stdout
    for model in load_config(ROOT / "config" / "smoke.yaml").models.values():
        assert (own_checkout / model.path / "model_index.json").is_file()


def test_a_flipped_bit_in_the_remote_is_refused_at_pull(own_checkout):
    files = [path for path in (own_checkout / OBJECTS).glob("*/*") if path.suffix != ".dir"]
    damaged = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.chmod(0o644)
    damaged.write_bytes(content)
    result = call("dvc", "pull", "results/miniature.dvc", cwd=own_checkout)
    assert result.returncode != 0, result.stdout
    arrived = [path.read_bytes() for path in (own_checkout / "results/miniature").rglob("*") if path.is_file()]
    assert bytes(content) not in arrived


def test_the_remote_holds_what_a_pointer_names_and_nothing_else():
    named = set()
    for pointer in (ROOT / "results").rglob("*.dvc"):
        for output in yaml.safe_load(pointer.read_text())["outs"]:
            if output.get("remote", EMBEDDED) != EMBEDDED or not output.get("cache", True):
                continue  # in a remote of one's own, or in git
            named.add(output["md5"])
            if output["md5"].endswith(".dir"):
                listing = json.loads((ROOT / OBJECTS / output["md5"][:2] / output["md5"][2:]).read_text())
                named |= {entry["md5"] for entry in listing}
    assert {path.parent.name + path.name for path in (ROOT / OBJECTS).glob("*/*")} == named


def planned_outputs(checkout: Path, *options: str) -> list[str]:
    """Every file that a run of a tier would write, as far as its rules declare them."""
    planned = call("snakemake", "-n", "all", "--forceall", "--config", *options, cwd=checkout)
    assert planned.returncode == 0, planned.stdout[-2000:]
    lines = [line.strip().split(": ", 1) for line in planned.stdout.splitlines() if ": " in line]
    return [name for key, names in lines if key in ("output", "log", "benchmark") for name in names.split(", ")]


@pytest.mark.parametrize("tier", [path.stem for path in tier_files(ROOT / "config")])
def test_git_ignores_everything_that_a_run_writes(checkout, tier):
    written = [*planned_outputs(checkout, f"tier={tier}"), f"results/{tier}/comparison.txt"]
    assert {f"results/{tier}/summary.json", f"results/{tier}/tables/flow_main.tex"} <= set(written)
    ignored = call("git", "check-ignore", *written, cwd=checkout).stdout.split()
    assert set(written) <= set(ignored), set(written) - set(ignored)


def test_results_in_git_are_published_ones():
    files = call("git", "ls-files", "results", cwd=ROOT).stdout.split()
    others = {name for name in files if not name.startswith("results/published/")}
    assert others == {"results/.gitignore", "results/miniature.dvc"}


def write_curve(path: Path, value: float) -> None:
    """A learning curve, or the costs beside it, of one prompt; by the scorers that guards ask for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        costs = {"iterations": 1, "sampling_calls": 1, "update_calls": 1, "rollout_seconds": 1.0, "update_seconds": 1.0}
        _, seed = parse_seed_folder(path.name.removesuffix(".costs.json"))
        write_json(path, {**costs, "device": "cpu", "config": "c", "seed": seed})
        return
    scorers = ["pickscore", "hpsv2", "imagereward", "clip_score", "scene_soft", "scene_strict"]
    base = path.name.startswith("base_")
    scores = np.full((1, len(scorers), 2, 1), 0 if base else value, np.float32) + np.array([[1], [2]], np.float32)
    texts = {"scorers": np.array(scorers), "prompts": np.array(["a", "b"]), "provenance": np.array('{"config": "c"}')}
    np.savez(path, iterations=np.array([0 if base else 1]), scores=scores, **texts)


def write_own_results(checkout: Path, value: float) -> list[str]:
    """Results of tier mini as a run leaves them: every evaluation and every analysis, with made-up numbers."""
    names = planned_outputs(checkout, "tier=mini")
    parts = tuple(f"results/mini/{part}/" for part in ("evaluations", "analysis", "curves"))
    own = [name for name in names if name.startswith(parts)]
    made_up = analyses()
    for name in own:
        seed = int(name.split("-seed")[1][0]) if "-seed" in name else 0
        if "/evaluations/" in name:
            write_json(checkout / name, {"scores": {"pickscore": {"mean": value + seed}}})
        elif "/curves/" in name:
            write_curve(checkout / name, value)
        elif name.removesuffix(".json").rpartition("/")[2] in made_up and "/samples/" not in name:
            write_json(checkout / name, made_up[name.removesuffix(".json").rpartition("/")[2]])
        else:
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (checkout / name).write_text("{}\n")
    return own


def publish(checkout: Path, tier: str = "mini", *remote: str):
    return call("python", "workflow/scripts/publish.py", tier, *remote, cwd=checkout)


def test_published_results_are_those_of_the_author_and_a_reader_adopts_them(own_checkout):
    own = write_own_results(own_checkout, 6.0)
    contents = {name: (own_checkout / name).read_bytes() for name in own}
    assert status(own_checkout) == ""
    result = publish(own_checkout)
    assert result.returncode == 2
    assert "published files or folders are not in results/mini" in result.stdout
    result = publish(own_checkout, "mini", "embedded", "--drop")
    assert result.returncode == 0, result.stdout
    changed = {line[3:].split("/")[0] for line in status(own_checkout).splitlines()}
    assert changed == {"results", "paper_tables", "dvc.lock", "dvc-remote", "README.md"}
    assert "clustering_share: " in (own_checkout / "README.md").read_text().partition("claims:begin")[2]
    mean = 6.0 + np.mean(load_config(ROOT / "config" / "mini.yaml").run_seeds("flowgrpo_sd35m"))
    assert f"{mean:.3f}" in (own_checkout / "paper_tables/mini/flow_main.tex").read_text()
    for command in (["add", "--all"], ["commit", "--quiet", "--message", "published"]):
        assert call("git", *command, cwd=own_checkout).returncode == 0

    for folder in (
        "results/mini",
        ".dvc/cache",
        "results/published/mini/evaluations",
        "results/published/mini/analysis",
        "results/published/mini/curves",
    ):
        shutil.rmtree(own_checkout / folder, ignore_errors=folder.endswith("curves"))
    adopt = ("snakemake", "results/mini/tables.html", "--cores", "2", "--config", "tier=mini", "results=stored")
    result = call(*adopt, cwd=own_checkout)
    assert result.returncode == 0, result.stdout[-2000:]
    assert {name: (own_checkout / name).read_bytes() for name in own} == contents
    assert "Nothing to be done" in call(*adopt, cwd=own_checkout).stdout
    assert not (own_checkout / "results/mini/runs").exists()
    own_tables, published_tables = (own_checkout / f for f in ("results/mini/tables", "paper_tables/mini"))
    for name in TABLES:  # the same numbers; the first line names the summary
        texts = [(folder / f"{name}.tex").read_text().splitlines()[1:] for folder in (own_tables, published_tables)]
        assert texts[0] == texts[1], name
    assert call("dvc", "pull", "results/miniature.dvc", cwd=own_checkout).returncode == 0  # publishing kept the others
    assert status(own_checkout) == ""


def test_forced_and_changed_tables_are_set_where_nothing_is_pulled(own_checkout):
    """What the summary was made from is not here; the hashes that stand for it are."""
    result = call("dvc", "repro", "-f", "table@mini-flow_main", cwd=own_checkout)
    assert result.returncode == 0, result.stdout[-2000:]
    assert status(own_checkout) == ""
    summary = own_checkout / "results/published/mini/summary.json"
    table = own_checkout / "paper_tables/mini/flow_main.tex"
    mean = load_summary(summary, "mini")["evaluations"]["base_sd35m"]["drawbench.pickscore"]["mean"]
    summary.write_text(summary.read_text().replace(f"{mean!r}", f"{mean + 1!r}"))
    assert f"{mean:.3f}" in table.read_text()
    result = call("dvc", "repro", "table@mini-flow_main", cwd=own_checkout)
    assert result.returncode == 0, result.stdout[-2000:]
    assert f"{mean + 1:.3f}" in table.read_text()


def test_a_tier_that_is_not_published_is_one_line(own_checkout):
    (own_checkout / "results/smoke").mkdir()
    result = publish(own_checkout, "smoke")
    assert (result.returncode, result.stdout.strip()) == (
        2,
        "make publish: tier 'smoke' is not published; published are: mini paper",
    )
    result = call("progrpo", "tables", "--tier", "smoke", "--table", "flow_main", cwd=own_checkout)
    assert (result.returncode, len(result.stdout.splitlines())) == (2, 1)
    assert "tier smoke is not published" in result.stdout
    result = call("snakemake", "-n", "all", "--config", "tier=smoke", "results=stored", cwd=own_checkout)
    assert result.returncode == 1
    assert "nothing is published of tier smoke" in result.stdout.splitlines()[-1]


def test_adopting_does_not_replace_a_run_of_ones_own(own_checkout):
    (own_checkout / PUBLISHED / "mini/curves.dvc").write_text("outs: []\n")
    write_json(own_checkout / PUBLISHED / "mini/contents.json", {"files": ["curves/base_sd35m-seed0.npz"]})
    (own_checkout / "results/mini/runs").mkdir(parents=True)
    result = call("snakemake", "-n", "all", "--config", "tier=mini", "results=stored", cwd=own_checkout)
    assert result.returncode == 1
    assert "results/mini holds a run of your own" in result.stdout.splitlines()[-1]


def test_nothing_large_is_in_git():
    files = call("git", "ls-files", "-z", cwd=ROOT).stdout.split("\0")
    sizes = {name: (ROOT / name).stat().st_size for name in files if name and (ROOT / name).is_file()}
    assert max(sizes.values()) < 20_000_000, max(sizes, key=sizes.get)
    remote = sum(size for name, size in sizes.items() if name.startswith("dvc-remote/"))
    assert remote <= EMBEDDED_BYTES
    assert sum(sizes.values()) - remote < 20_000_000
