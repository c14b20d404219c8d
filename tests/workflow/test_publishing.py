"""Trained weights under DVC: published to a remote, pulled in a clone, evaluated again with the same scores; limits are kept."""

import importlib.util
import itertools
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from checkout import ROOT, call, make_checkout
from progrpo.config import load_config
from progrpo.errors import UserError
from progrpo.files import read_json, sha256, write_json, write_text
from progrpo.report.tables import table_names
from progrpo.workflow.code_inputs import Code
from progrpo.workflow.plan import Plan
from progrpo.workflow.publishing import (
    ADOPTED,
    CONTENTS,
    RECORD,
    Part,
    finished_runs,
    fitting,
    pointer_text,
    recorded_runs,
    require_small,
    stored_curves,
    weights,
    with_published_weights,
    would_be_lost,
)

pytestmark = pytest.mark.xdist_group("publishing")
CUT = Path(__file__).parents[1] / "slurm" / "cut.yaml"  # one short run, everything that a job does, in seconds
RUN = "progrpo_sd35m-seed0"
SET = ("flow_main", "wall_clock")  # tables of this tier; each takes seconds
SCORES = f"results/cut/evaluations/{RUN}/test_flow.json"


def succeed(*command: str, cwd: Path) -> str:
    result = call(*command, cwd=cwd)
    assert result.returncode == 0, result.stdout[-3000:]
    return result.stdout


def commit(checkout: Path) -> None:
    for command in (["add", "--all"], ["commit", "--quiet", "--message", "published"]):
        succeed("git", *command, cwd=checkout)


def restore_script(folder: Path, monkeypatch, **settings: str):
    """The body of `make restore` in a folder with tier `cut`, everything published pulled."""
    spec = importlib.util.spec_from_file_location("restore", ROOT / "workflow" / "scripts" / "restore.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(script, "bring_inputs", lambda _: None)
    monkeypatch.setattr(script.subprocess, "run", lambda *_, **__: None)
    write_text("config/cut.yaml", yaml.safe_dump(yaml.safe_load(CUT.read_text()) | settings))
    write_json(f"results/published/cut/{CONTENTS}", {"files": ["runs"]})
    return script


def same_records(author: Path, clone: Path) -> None:
    """A training's record travels packed and arrives as it was."""
    for name in RECORD:
        own, came = (checkout / "results/cut/runs" / RUN / name for checkout in (author, clone))
        assert came.read_bytes() == own.read_bytes()
        assert not came.with_name(f"{name}.gz").exists()


@pytest.fixture(scope="module")
def author(tmp_path_factory) -> Path:
    """A checkout in which tier `cut` was run and published to a folder of its author's own; `store` beside it is the remote."""
    checkout = make_checkout(tmp_path_factory.mktemp("author") / "checkout")
    shutil.copy(CUT, checkout / "config")
    (checkout / "results/published/cut").mkdir()
    stages = (checkout / "dvc.yaml").read_text()
    assert "tiers: [mini, paper]" in stages
    stages = stages.replace("tiers: [mini, paper]", "tiers: [mini, paper, cut]")
    others = [f"      - {name}\n" for name in table_names(ROOT / "paper_tables" / "expected") if name not in SET]
    assert all(stages.count(line) == 1 for line in others)
    for line in others:
        stages = stages.replace(line, "")
    (checkout / "dvc.yaml").write_text(stages)
    succeed("snakemake", SCORES, "--profile", "local", "--cores", "1", "--config", "tier=cut", cwd=checkout)
    snapshot = checkout / "results/cut/runs" / RUN / "snapshots" / "3"
    shutil.copytree(checkout / "results/cut/runs" / RUN / "final", snapshot)
    succeed("dvc", "remote", "add", "store", str(checkout.parent / "store"), cwd=checkout)
    published = succeed("python", "workflow/scripts/publish.py", "cut", "store", cwd=checkout)
    assert "the weights of 1 trainings, in store" in published
    commit(checkout)
    return checkout


def test_weights_are_evaluated_again_in_a_clone_with_the_same_scores(author, tmp_path):
    clone = tmp_path / "clone"
    succeed("git", "clone", "--quiet", str(author), str(clone), cwd=tmp_path)
    assert not (clone / "results/cut").exists()
    options = ("--profile", "local", "--cores", "1", "--config", "tier=cut", "results=weights")
    log = succeed("snakemake", SCORES, *options, cwd=clone)
    assert "adopt weights" in log
    assert "rule train:" not in log
    each = SCORES.replace(".json", ".scores.jsonl")  # of every image
    assert (clone / each).read_bytes() == (author / each).read_bytes()
    assert read_json(clone / SCORES)["scores"] == read_json(author / SCORES)["scores"]
    same_records(author, clone)
    assert succeed("git", "status", "--porcelain", cwd=clone) == ""
    succeed("dvc", "pull", "results/published/cut/images.dvc", cwd=clone)
    image = next((author / "results/cut/images" / RUN).rglob("*.png"))
    pulled = clone / "results/published/cut/images" / image.relative_to(author / "results/cut/images")
    assert pulled.read_bytes() == image.read_bytes()


def test_a_tier_that_is_published_in_part_is_adopted_and_gone_on_with(author, tmp_path):
    """One of two seeds was run: stored results are those, and after `make restore` the other alone is to be trained."""
    clone = tmp_path / "clone"
    succeed("git", "clone", "--quiet", str(author), str(clone), cwd=tmp_path)
    config = yaml.safe_load((clone / "config/cut.yaml").read_text())
    (clone / "config/cut.yaml").write_text(yaml.safe_dump(config | {"seeds": [0, 1]}))
    everything = ("snakemake", "all", "--profile", "local", "--cores", "1", "--config", "tier=cut")
    for results in ("stored", "weights"):
        planned = succeed(*everything, f"results={results}", "-n", "-p", cwd=clone)
        assert RUN in planned
        assert "seed1" not in planned
    assert "1 trainings are there" in succeed("python", "workflow/scripts/restore.py", "cut", cwd=clone)
    for name in (SCORES, SCORES.replace(".json", ".scores.jsonl")):
        assert (clone / name).read_bytes() == (author / name).read_bytes()
    assert not list((clone / SCORES).parent.glob("*.gz"))
    same_records(author, clone)
    planned = succeed(*everything, "-n", "-p", cwd=clone)
    assert "--seed 1 --out" in planned
    assert f"--out results/cut/runs/{RUN}" not in planned
    refused = call(*everything, "results=weights", "-n", cwd=clone)
    assert refused.returncode == 0, refused.stdout  # what was restored is what is published
    assert "0 files restored" in succeed("python", "workflow/scripts/restore.py", "cut", cwd=clone)


def test_nothing_published_is_mixed_into_a_training_of_ones_own(tmp_path, monkeypatch):
    """Of two seeds one was begun here, the other is published alone; a training that was published from here is no other."""
    script = restore_script(tmp_path, monkeypatch)
    published, results = Path("results/published/cut"), Path("results/cut")
    for seed in range(3):
        folder = f"progrpo_sd35m-seed{seed}"
        write_json(published / "runs" / folder / "final/provenance.json", {"seed": seed})
        write_json(published / "curves" / f"{folder}.costs.json", {})
        write_json(published / "evaluations" / folder / "test_flow.json", {})
    write_json(results / "runs/progrpo_sd35m-seed0/begun.json", {})
    write_json(results / "runs/progrpo_sd35m-seed1/begun.json", {})
    write_json(results / "runs/progrpo_sd35m-seed1/final/provenance.json", {"seed": 1})
    script.restore("cut")
    there = {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()} - {ADOPTED}
    brought = {
        file.format(k)
        for k in (1, 2)
        for file in ("curves/progrpo_sd35m-seed{}.costs.json", "evaluations/progrpo_sd35m-seed{}/test_flow.json")
    }
    provenance = {f"runs/progrpo_sd35m-seed{k}/final/provenance.json" for k in (1, 2)}
    assert there == brought | provenance | {f"runs/progrpo_sd35m-seed{k}/begun.json" for k in (0, 1)}


def test_what_is_restored_lies_in_the_results_of_the_configuration_and_its_list_is_whole(tmp_path, monkeypatch):
    script = restore_script(tmp_path, monkeypatch, results="elsewhere/cut")
    record = f"runs/{RUN}/final/provenance.json"
    write_json(f"results/published/cut/{record}", {"seed": 0})
    script.restore("cut")
    assert (tmp_path / "elsewhere/cut" / record).is_file()
    assert not (tmp_path / "results/cut").exists()
    adopted = tmp_path / "elsewhere/cut" / ADOPTED
    before = adopted.read_text()
    assert before.split() == [sha256(Path("elsewhere/cut", record)), f"results/published/cut/{record}"]
    write_json(f"results/published/cut/{record}", {"seed": 1})

    def killed(*_):
        raise OSError("no space")

    monkeypatch.setattr("progrpo.files.os.replace", killed)
    with pytest.raises(UserError, match=ADOPTED):
        script.restore("cut")
    assert adopted.read_text() == before


def test_the_summary_has_the_hashes_of_the_published_weights(author):
    published = author / "results/published/cut"
    hashes = read_json(published / "summary.json")["weights"]["progrpo_sd35m"]["0"]
    for name in ("final", "snapshots"):
        (out,) = yaml.safe_load((published / "runs" / RUN / f"{name}.dvc").read_text())["outs"]
        assert hashes[name] == out["md5"]
        assert (author.parent / "store/files/md5" / out["md5"][:2] / out["md5"][2:]).is_file()
    assert set(hashes) == {"final", "snapshots"}


def test_one_picture_leads_from_data_to_a_table(author):
    drawn = succeed("dvc", "dag", "--mermaid", "table@cut-flow_main", cwd=author)
    nodes = dict(reversed(line.split('["')) for line in drawn.replace('"]', "").split() if '["' in line)
    edges = {tuple(line.split("-->")) for line in drawn.split() if "-->" in line}
    published = "results/published/cut"
    way = [
        "results/miniature.dvc",
        f"{published}/runs/{RUN}/final.dvc",
        f"{published}/images.dvc",
        f"{published}/evaluations.dvc",
        f"{published}/summary.json.dvc",
        "table@cut-flow_main",
    ]
    for start, end in zip(way, way[1:], strict=False):
        assert (nodes[start], nodes[end]) in edges, (start, end, drawn)


def test_metrics_say_what_each_run_reached_and_what_changed(author):
    shown = succeed("dvc", "metrics", "show", cwd=author)
    (line,) = [line for line in shown.splitlines() if "cut/metrics/progrpo_sd35m.json" in line]
    measured = read_json(author / SCORES)["scores"]["scene_checker"]["mean"]
    assert f"{measured:.5g}"[:5] in line
    path = author / "paper_tables/cut/metrics/progrpo_sd35m.json"
    before = path.read_text()
    path.write_text(before.replace('"seeds": 1', '"seeds": 2'))
    changed = succeed("dvc", "metrics", "diff", cwd=author)
    path.write_text(before)
    assert [line.split()[1:] for line in changed.splitlines() if "progrpo_sd35m" in line] == [["seeds", "1", "2", "1"]]


def test_tables_are_set_again_without_anything_pulled(author, tmp_path):
    clone = tmp_path / "clone"
    succeed("git", "clone", "--quiet", str(author), str(clone), cwd=tmp_path)
    succeed("dvc", "repro", "--force", "--single-item", "--glob", "table@cut-*", cwd=clone)
    succeed("dvc", "repro", cwd=clone)
    assert succeed("git", "status", "--porcelain", cwd=clone) == ""


def test_a_limited_remote_holds_the_most_important_that_fits():
    parts = [Part("runs/a/final"), Part("runs/b/final"), Part("runs/c/final"), Part("runs/a/snapshots")]
    sizes = {"runs/a/final": 10, "runs/b/final": 30, "runs/c/final": 100, "runs/a/snapshots": 20}
    assert [part.path for part in fitting(parts, sizes, 60)] == ["runs/a/final", "runs/b/final", "runs/a/snapshots"]
    assert fitting(parts, sizes, 9) == []


def test_arms_keep_the_same_seeds_where_not_all_weights_fit(tmp_path):
    """They are compared in pairs: eight seeds of one arm and none of another would show nothing."""
    config = load_config(ROOT / "config" / "mini.yaml").model_copy(update={"results": str(tmp_path)})
    plan = SimpleNamespace(config=config, train_inputs=lambda wildcards: ())
    for seed in range(3):
        for run, size in (("flowgrpo_sd35m", 700), ("ovf_sd35m", 650), ("dancegrpo_sd14", 2 * 2**20)):
            final = tmp_path / "runs" / f"{run}-seed{seed}" / "final"
            write_text(final / "provenance.json", "{}")
            write_text(final / "weights", (size - seed) * "x")
    order = [part.path.split("/")[1] for part in weights(plan)]
    small = [f"{run}-seed{seed}" for seed in range(3) for run in ("flowgrpo_sd35m", "ovf_sd35m")]
    assert order == [*small, *(f"dancegrpo_sd14-seed{seed}" for seed in range(3))]


def test_the_record_of_a_training_stays_where_its_weights_did_not_fit(tmp_path):
    config = load_config(ROOT / "config" / "mini.yaml").model_copy(update={"results": str(tmp_path)})
    plan = SimpleNamespace(config=config)
    (tmp_path / "curves").mkdir()
    (tmp_path / "curves" / "uniform_sd35m-seed3.npz").touch()
    assert recorded_runs(plan) == []
    (tmp_path / "runs" / "uniform_sd35m-seed3").mkdir(parents=True)
    lines = "".join(f'{{"iteration": {k}}}\n' for k in range(1, config.runs["uniform_sd35m"].iterations + 1))
    metrics = tmp_path / "runs" / "uniform_sd35m-seed3" / "metrics.jsonl"
    metrics.write_text(lines[: len(lines) // 2])  # it is being trained anew
    assert recorded_runs(plan) == []
    metrics.write_text(lines)
    assert finished_runs(plan) == []
    assert recorded_runs(plan) == [("uniform_sd35m", 3)]


def test_one_records_loss_among_many_is_named(tmp_path):
    """Of a training without weights its record is all that says how it went."""
    config = load_config(ROOT / "config" / "mini.yaml").model_copy(update={"results": str(tmp_path / "own")})
    plan, names = SimpleNamespace(config=config), ("ovf_sd35m-seed0", "uniform_sd35m-seed3")
    for name in names:
        write_text(tmp_path / "own/runs" / name / "final/provenance.json", "{}")
    listing = "".join(f"{'0' * 64}  training/{name}/{part}.gz\n" for name in names for part in RECORD)
    write_text(tmp_path / "published/training.sha256", listing)
    assert would_be_lost(plan, tmp_path / "published", "embedded") == []
    (tmp_path / "own/runs/uniform_sd35m-seed3/final/provenance.json").unlink()
    assert would_be_lost(plan, tmp_path / "published", "embedded") == ["training/uniform_sd35m-seed3"]
    (tmp_path / "own/runs/ovf_sd35m-seed0/final/provenance.json").unlink()
    (tmp_path / "published/training.sha256").unlink()
    (tmp_path / "published/training.dvc").touch()
    assert would_be_lost(plan, tmp_path / "published", "embedded") == ["training"]


def test_more_than_the_remote_may_hold_is_one_line(tmp_path):
    (tmp_path / "object").write_bytes(bytes(11))
    require_small(tmp_path, limit=11)
    with pytest.raises(UserError, match=r"holds 0\.0 MB, 0 are allowed; publish to REMOTE=<name> instead"):
        require_small(tmp_path, limit=10)


def test_a_pointer_never_names_one_dependency_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pointer = Path("final.dvc")
    pointer.write_text("outs:\n- {path: final, md5: abc}\n")
    for name in ("one", "two"):
        Path(name).touch()
    assert "deps" not in pointer_text(pointer, ["one", "absent"], "embedded")
    assert pointer_text(pointer, ["one", "two"], "store") == {
        "outs": [{"path": "final", "md5": "abc", "remote": "store"}],
        "deps": [{"path": "one"}, {"path": "two"}],
    }


def test_published_results_that_are_not_here_are_not_dropped_without_a_word(tmp_path):
    """A failed job leaves results/mini/logs; `results=stored` brings scores without trainings."""
    checkout = make_checkout(tmp_path / "checkout")
    succeed("git", "add", "--all", cwd=checkout)
    for folder, message in (
        ("logs", "holds no results; run the tier first"),
        ("curves", "DROP=1 publishes without them"),
    ):
        (checkout / "results/mini" / folder).mkdir(parents=True)
        result = call("python", "workflow/scripts/publish.py", "mini", cwd=checkout)
        assert (result.returncode, len(result.stdout.splitlines())) == (2, 1)
        assert message in result.stdout
        assert succeed("git", "diff", "--name-only", cwd=checkout) == ""


def test_published_weights_replace_no_training_of_ones_own(author, tmp_path):
    clone = tmp_path / "clone"
    succeed("git", "clone", "--quiet", str(author), str(clone), cwd=tmp_path)
    own = clone / "results/cut/runs" / RUN / "final" / "provenance.json"
    own.parent.mkdir(parents=True)
    own.write_text("{}")
    options = ("--cores", "1", "--config", "tier=cut", "results=weights")
    result = call("snakemake", "adopt_weights", *options, cwd=clone)
    assert result.returncode == 1
    assert "final/provenance.json is a training of your own" in result.stdout.splitlines()[-1]
    assert own.read_text() == "{}"
    shutil.rmtree(clone / "results/cut")
    succeed("snakemake", "adopt_weights", *options, cwd=clone)
    assert "Nothing to be done" in succeed("snakemake", "adopt_weights", *options, cwd=clone)


def test_an_unknown_remote_is_one_line(tmp_path):
    checkout = make_checkout(tmp_path / "checkout")
    (checkout / "results/mini").mkdir()
    result = call("python", "workflow/scripts/publish.py", "mini", "stor", cwd=checkout)
    assert (result.returncode, len(result.stdout.splitlines())) == (2, 1)
    assert "REMOTE=stor: no such DVC remote; known: embedded" in result.stdout


def test_what_is_published_of_tier_mini_leads_from_its_weights_to_every_verdict(tmp_path):
    """Not all seeds of every arm have their weights there, and snapshots do not fit: curves are taken as they are published."""
    published = ROOT / "results/published/mini"
    tier = with_published_weights(load_config(ROOT / "config/mini.yaml"), published)
    plan = Plan(tier, Code(ROOT / "code"), curves=stored_curves(tier, published))
    assert f"results/mini/curves/{RUN}.npz" in plan.learning_curve_files()
    arms = [plan.study_weights(arm) for arm in ("full", "uniform", "ovf")]
    assert len({len(arm) for arm in arms}) == 1 <= len(arms[0])
    for path in itertools.chain(*arms):
        assert (published / "runs" / Path(path).parts[-3] / "final.dvc").is_file()
    checkout, curve = make_checkout(tmp_path / "checkout"), f"results/mini/curves/{RUN}.npz"
    options = ("--cores", "1", "--config", "tier=mini", "results=weights")
    log = succeed("snakemake", curve, *options, cwd=checkout)
    assert "learning curve" not in log
    assert (checkout / curve).read_bytes() == (checkout / "results/published/mini/curves" / f"{RUN}.npz").read_bytes()
