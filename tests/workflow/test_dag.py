"""The DAG: complete at every tier from a fresh clone, clean in style, and one clear line for every wrong word."""

import json
import os
import re
import resource
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml

from checkout import ROOT, call, make_checkout
from progrpo.cli import build_parser
from progrpo.config import Hardware, load_config, tier_files
from progrpo.errors import UserError
from progrpo.workflow.estimate import report
from progrpo.workflow.site import Site, load_site

TIERS = [path.stem for path in tier_files(ROOT / "config")]
pytestmark = pytest.mark.xdist_group("dag")


def dry_run(checkout: Path, *options: str) -> str:
    result = call("snakemake", "-n", *options, cwd=checkout)
    assert result.returncode == 0, result.stdout[-3000:]
    return result.stdout


def job_counts(output: str) -> dict[str, int]:
    """{rule: number of jobs} from the summary of the profiles' logger, or from the table that Snakemake prints without a profile."""
    if "Job stats:" in output:
        table = output.split("Job stats:")[1].split("\n\n")[0]
        return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)}
    (total,) = re.findall(r"^(\d+) jobs:$", output, flags=re.MULTILINE)
    counted = re.findall(r"^ +(\d+)  ([\w ]+)$", output, flags=re.MULTILINE)
    return {name.replace(" ", "_"): int(count) for count, name in counted} | {"total": int(total)}


def processor_seconds() -> float:
    """Processor time of finished child processes, which a busy machine does not stretch as it does the wall clock."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_the_full_paper_dag_is_planned_in_seconds(checkout):
    """Hardly more than a tier of few jobs takes, a fast or a slow machine."""
    plan = (
        "python",
        "-m",
        "snakemake",
        "-n",
        "--profile",
        "slurm",
        "all",
    )  # processes of this one, whose time is counted
    before = processor_seconds()
    assert call(*plan, "--config", "tier=smoke", cwd=checkout).returncode == 0
    between = processor_seconds()
    paper = call(*plan, cwd=checkout)
    assert processor_seconds() - between < 3 * (between - before)
    assert paper.returncode == 0, paper.stdout[-3000:]
    counts = job_counts(paper.stdout)
    config = load_config(ROOT / "config" / "paper.yaml")
    trainings = sum(len(config.run_seeds(run)) for run in config.runs)
    assert counts.get("train", 0) + counts.get("train_on_several_nodes", 0) == trainings
    rules = {"fetch", "generate_geneval", "evaluate_geneval", "sample_rewards", "count_flops", "summarise", "draw_grid"}
    assert rules <= set(counts)
    assert report(config, 495, 0.35, judged=True)["jobs"]["total"] == counts["total"]  # what `progrpo plan` says


@pytest.mark.parametrize("options", [("--profile", "slurm"), ("--profile", "local", "--config", "tier=mini")])
def test_a_dry_run_is_a_screen_of_jobs_by_kind(checkout, options):
    output = dry_run(checkout, "all", *options)
    counts = job_counts(output)
    assert counts["total"] == sum(counts.values()) - counts["total"]
    assert len(output) < 2500


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("miniature", ["stored", "trained"])
def test_every_tier_is_planned_from_the_same_rules(checkout, tier, miniature):
    counts = job_counts(
        dry_run(checkout, "all", "--profile", "local", "--config", f"tier={tier}", f"miniature={miniature}")
    )
    config = load_config(ROOT / "config" / f"{tier}.yaml")
    assert counts["summarise"] == 1
    trained = {name: len(config.run_seeds(name)) for name, run in config.runs.items() if run.evaluations != ()}
    if config.evaluation_jobs == "per_prompt_set":
        chosen = {name: run.evaluations or tuple(config.evaluations) for name, run in config.runs.items()}
        trained = {name: count * len(chosen[name]) for name, count in trained.items()}
    generations = sum(count for name, count in counts.items() if name.startswith("generate_"))
    assert generations > sum(trained.values())  # the base models come on top


def test_claims_about_base_models_alone_are_judged_without_a_figure_of_trainings(checkout):
    planned = dry_run(checkout, "results/paper/claims.json", "--config", "tier=paper")
    assert "judge_claims" in planned
    assert "claims_forest" not in planned


@pytest.mark.parametrize("asked", [("SEEDS=0",), ("SEEDS=two",), ("TIER=paper",)])
def test_a_cut_without_a_list_of_runs_starts_nothing(checkout, asked):
    """Snakemake without a target would make the whole tier."""
    refused = call("make", "claims", "RERUN=1", *asked, "INSTALLED=", cwd=checkout)
    assert refused.returncode != 0
    assert "rule" not in refused.stdout.replace("rules", "")
    assert "jobs" not in refused.stdout


def test_the_command_line_accepts_every_command_of_the_dag(checkout):
    planned = dry_run(checkout, "-p", "all", "--profile", "local", "--config", "tier=smoke", "miniature=trained")
    commands = {command.strip() for command in re.findall(r"\bprogrpo ([a-z][^>&\n]*) >", planned)}
    assert len(commands) > 40
    for command in sorted(commands):
        build_parser().parse_args(shlex.split(command))  # exits with status 2 for what it does not know


def test_code_of_ones_own_is_an_input_of_what_it_decides(own_checkout):
    config = yaml.safe_load((own_checkout / "config" / "smoke.yaml").read_text())
    config["scorers"]["mine"] = {"kind": "own_code:Brightness"}
    run = config["runs"]["progrpo_sd35m"]
    run["reward"], run["group"]["rule"] = {"mine": 1.0}, "own_rule:lowest"
    config |= {"tier": "own", "results": "results/own"}
    (own_checkout / "config" / "own.yaml").write_text(yaml.safe_dump(config))
    for module in ("own_code.py", "own_rule.py"):
        (own_checkout / module).touch()
    target = "results/own/runs/progrpo_sd35m-seed0/final/provenance.json"
    path = os.pathsep.join([str(own_checkout), *filter(None, [os.environ.get("PYTHONPATH")])])
    options = ("--profile", "local", "--config", "tier=own", "miniature=trained")
    planned = call("snakemake", "-n", "-p", target, *options, cwd=own_checkout, PYTHONPATH=path)
    assert planned.returncode == 0, planned.stdout
    inputs = re.search(r"rule train:\n    input: (.*)", planned.stdout)[1]
    assert {"own_code.py", "own_rule.py"} <= set(inputs.split(", "))


@pytest.mark.parametrize("tier", TIERS)
def test_snakemakes_lint_is_clean_for_every_tier(checkout, tier):
    lint = call("snakemake", "--config", f"tier={tier}", "--lint", cwd=checkout)
    assert lint.returncode == 0, lint.stdout


def test_the_format_is_clean(checkout):
    form = call("snakefmt", "--check", "Snakefile", "workflow", cwd=checkout)
    assert form.returncode == 0, form.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config", "tier=smok"], "--config tier=smok: use one of mini, paper, smoke"),
        (["--config", "teir=smoke"], "--config teir: no such option; known: tier, miniature"),
        (["--config", "tier=smoke", "miniature=new"], "--config miniature=new: use one of stored, trained"),
    ],
)
def test_a_wrong_option_is_one_clear_line(checkout, options, message):
    result = call("snakemake", "-n", "all", *options, cwd=checkout)
    assert result.returncode != 0
    assert message in result.stdout
    assert "Traceback" not in result.stdout


def test_a_wrong_key_in_a_config_is_one_clear_line(own_checkout):
    path = own_checkout / "config" / "smoke.yaml"
    path.write_text(path.read_text() + "\nspeed: high\n")
    result = call("snakemake", "-n", "all", "--config", "tier=smoke", cwd=own_checkout)
    assert result.returncode != 0
    assert "config/smoke.yaml: speed: unknown key" in result.stdout
    assert "Traceback" not in result.stdout


def test_an_unknown_target_is_one_clear_line(checkout):
    result = call("snakemake", "-n", "results/smoke/nothing.json", "--config", "tier=smoke", cwd=checkout)
    assert result.returncode != 0
    assert "results/smoke/nothing.json" in result.stdout
    assert "Traceback" not in result.stdout


def test_the_profile_resolves_from_the_root_only(checkout):
    result = call("snakemake", "--profile", "slurm", "-n", "all", cwd=checkout / "workflow")
    assert result.returncode != 0
    assert "profile" in result.stdout
    assert not (ROOT / "profiles").exists()


def profile_of(checkout: Path, **environment: str) -> tuple[int, str]:
    """Exit status and default resources of the Slurm profile as Snakemake reads it."""
    read = "import yte; print(yte.process_yaml(open('slurm/config.yaml').read())['default-resources'])"
    result = call("python", "-c", read, cwd=checkout, **environment)
    return result.returncode, result.stdout


def test_site_settings_come_from_the_environment(checkout):
    _, profile = profile_of(checkout, SLURM_ACCOUNT_NAME="bench")
    assert """'slurm_account': "'bench'\"""" in profile
    assert "slurm_partition" not in profile


@pytest.mark.parametrize("name", ["all", "1e5", "attempt"])
def test_a_partition_may_have_a_name_that_python_knows(own_checkout, name):
    """Snakemake evaluates the profile's default resources."""
    (own_checkout / "config/site.yaml").write_text(f"partition: '{name}'\naccount: '{name}'\nqos: '{name}'\n")
    target = "results/paper/runs/flowgrpo_sd35m-seed0/final/provenance.json"
    planned = dry_run(own_checkout, "--profile", "slurm", "-p", target, "--config", "tier=paper")
    for key in ("slurm_account", "slurm_partition", "qos"):
        assert f"{key}={name}" in planned, planned


@pytest.mark.parametrize(
    ("gpus_per_node", "asked", "shape"),
    [
        (16, (8, 3), (2, 12)),
        (10, (8, 3), (3, 8)),
        (6, (8, 1), (2, 4)),
        (6, (4, 2), (2, 4)),
        (4, (8, 3), (6, 4)),
        (8, (1, 1), (1, 1)),
        (None, (8, 3), (3, 8)),
    ],
)
def test_gpus_are_spread_evenly_over_as_few_nodes_as_hold_them(gpus_per_node, asked, shape):
    gpus, nodes = asked
    assert Site(gpus_per_node=gpus_per_node).shape(Hardware(gpus=gpus, nodes=nodes)) == shape


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hours: 24:00", "hours: .*valid number"),
        ("hours: 12:00:00", "hours: .*valid number"),
        ("gpus_per_node: true", "gpus_per_node: 'True' is no number"),
        ("cpus_per_gpu: yes", "cpus_per_gpu: 'True' is no number"),
        ("false", "expected a mapping of keys, found bool"),
        ("0", "expected a mapping of keys, found int"),
        ("gpu_model: a100,h100", "gpu_model: 'a100,h100' is not allowed here; it must match"),
        ("gpu_model: nvidia_a100-sxm4-80gb\ngpu_request: gres", "gpu_model: may hold no '-' with gpu_request: gres"),
    ],
)
def test_a_site_that_was_meant_otherwise_is_refused(tmp_path, text, message):
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_site(tmp_path / "site.yaml", {})


def test_the_names_that_slurm_detects_for_a_gpu_are_asked_for(tmp_path):
    (tmp_path / "site.yaml").write_text("gpu_model: nvidia_a100-sxm4-80gb")
    asked = load_site(tmp_path / "site.yaml", {}).resources(Hardware(gpus=2))
    assert asked["slurm_extra"] == "--gpus-per-node=nvidia_a100-sxm4-80gb:2"


def test_a_site_file_that_leads_nowhere_is_named(tmp_path):
    (tmp_path / "site.yaml").symlink_to(tmp_path / "gone.yaml")
    with pytest.raises(UserError, match=r"site\.yaml"):
        load_site(tmp_path / "site.yaml", {})


def test_the_shape_of_a_site_lies_in_a_file_that_git_ignores(own_checkout):
    shutil.copy(own_checkout / "config/site.yaml.example", own_checkout / "config/site.yaml")
    assert call("git", "status", "--porcelain", cwd=own_checkout).stdout == ""
    site = load_site(own_checkout / "config/site.yaml", {})
    assert set(Site.model_fields) == site.model_fields_set  # the example shows every key
    assert site.placed(gpu=True) == {"slurm_partition": "gpu", "constraint": "nvlink"}
    assert site.placed(gpu=False) == {"slurm_partition": "cpu", "constraint": ""}
    _, profile = profile_of(own_checkout, SLURM_ACCOUNT_NAME="bench")
    assert (
        """{'mem_mb': 8000, 'runtime': 60, 'slurm_account': "'bench'", 'slurm_partition': "'cpu'", 'qos': "'normal'"}"""
        in profile
    )
    planned = dry_run(
        own_checkout, "results/paper/runs/flowgrpo_sd35m-seed0/final/provenance.json", "--config", "tier=paper"
    )
    (asked,) = re.findall(r"rule train_on_several_nodes:.*?resources: (.*?)\n", planned, flags=re.DOTALL)
    assert {"nodes=6", "tasks=6", "slurm_extra=--gpus-per-node=a100:4", "mem_mb=128000", "runtime=720"} <= set(
        asked.split(", ")
    )
    (own_checkout / "config/site.yaml").write_text("gpus: 4\n")
    for result in (profile_of(own_checkout), profile_of(own_checkout, SLURM_GPU_CPUS="many")):
        assert result[0] != 0
        assert len(result[1].splitlines()) == 1, result[1]
    assert "config/site.yaml: gpus: unknown key" in profile_of(own_checkout)[1]


def adopt_results(checkout: Path, *options: str) -> None:
    """Do as a reviewer does who has pulled all results: files without Snakemake's records, then --touch."""
    planned = dry_run(checkout, "all", *options)
    for line in re.findall(r"^    output: (.*)$", planned, flags=re.MULTILINE):
        for name in line.split(", "):
            path = checkout / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("stored")
    touched = call("snakemake", "all", "--touch", "--forceall", "--cores", "1", *options, cwd=checkout)
    assert touched.returncode == 0, touched.stdout[-2000:]


SMOKE = ("--config", "tier=smoke")


@pytest.fixture(scope="module")
def adopted(tmp_path_factory) -> Path:
    """A checkout whose results were adopted; committed, so that `changed` can take its edits back."""
    checkout = make_checkout(tmp_path_factory.mktemp("adopted") / "checkout")
    adopt_results(checkout, *SMOKE)
    assert "Nothing to be done" in dry_run(checkout, "all", *SMOKE)
    return checkout


@contextmanager
def changed(checkout: Path, name: str, change: Callable[[str], str]) -> Iterator[None]:
    """A file of the checkout, edited within the block."""
    path = checkout / name
    before = path.read_text()
    assert change(before) != before
    path.write_text(change(before))
    try:
        yield
    finally:
        path.write_text(before)


def planned(checkout: Path) -> dict[str, int]:
    """What is to be run in an adopted checkout, {rule: number of jobs}."""
    output = dry_run(checkout, "all", *SMOKE)
    return {} if "Nothing to be done" in output else job_counts(output)


def with_run(**values) -> Callable[[str], str]:
    """An edit of a tier's configuration that sets keys of its run progrpo_sd35m."""

    def change(text: str) -> str:
        config = json.loads(json.dumps(yaml.safe_load(text)))  # runs that share an anchor share no object
        config["runs"]["progrpo_sd35m"].update(values)
        return yaml.safe_dump(config, sort_keys=False)

    return change


def test_what_decides_no_number_reruns_nothing(adopted):
    with ExitStack() as edits:
        for name in (
            "grpo/tuning.py",
            "jobs/train.py",
            "rewards/pickscore.py",
            "analysis/gaussian.py",
            "report/summary.py",
        ):
            edits.enter_context(
                changed(adopted, f"code/progrpo/{name}", lambda text: f"# A remark.\n{text}".replace(" = ", "  =  "))
            )
        edits.enter_context(
            changed(
                adopted,
                "config/smoke.yaml",
                with_run(method="Ours", save_every=7, hardware={"gpus": 1, "hours": 9.0, "memory_gb": 99}),
            )
        )
        assert planned(adopted) == {"show_tables": 1, "all": 1, "total": 2}  # tables print the method


def test_configuration_and_code_that_decide_a_number_rerun_what_depends_on_it(adopted):
    config = load_config(adopted / "config" / "smoke.yaml")
    with changed(adopted, "config/smoke.yaml", with_run(optimizer={"learning_rate": 0.123})):
        counts = planned(adopted)
    assert counts["train"] == len(config.run_seeds("progrpo_sd35m"))
    assert counts["summarise"] == 1
    assert "restore_miniature" not in counts

    with changed(adopted, "code/progrpo/rewards/pickscore.py", lambda text: f"{text}\nSCALE = 100\n"):
        counts = planned(adopted)
    rewarded = [name for name, run in config.runs.items() if "pickscore" in run.reward]
    assert 0 < counts["train"] == sum(len(config.run_seeds(name)) for name in rewarded) < len(config.runs)


def test_a_change_that_only_renames_is_adopted(adopted):
    def touch() -> None:
        touched = call("snakemake", "all", "--touch", "--cores", "1", *SMOKE, cwd=adopted)
        assert touched.returncode == 0, touched.stdout[-2000:]

    config = load_config(adopted / "config" / "smoke.yaml")
    with changed(adopted, "code/progrpo/grpo/tuning.py", lambda text: text.replace("LORA_FILE", "ADAPTER_FILE")):
        assert planned(adopted)["train"] == sum(len(config.run_seeds(name)) for name in config.runs)
        touch()
        assert planned(adopted) == {}
    touch()


def test_the_launcher_chooses_by_nodes_and_processes(checkout, tmp_path):
    echo = 'echo {name} "$@"'
    scripts = {"torchrun": echo, "tool": echo, "hostname": "echo first"}
    scripts["srun"] = 'echo srun "$1" "$2" "$3" "$4" "$5" "$6" "$7" "$8"; shift 8; SLURM_NODEID=2 exec "$@"'
    for name, body in scripts.items():
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\n{body.format(name=name)}\n")
        script.chmod(0o755)

    def launch(nodes: int, gpus: int, **environment: str) -> str:
        path = f"{tmp_path}:{os.environ['PATH']}"
        command = ("bash", "workflow/scripts/launch.sh", str(nodes), str(gpus), "tool", "train", "--seed", "0")
        return call(*command, cwd=checkout, PATH=path, **environment).stdout.strip()

    assert launch(1, 0) == launch(1, 1) == "tool train --seed 0"
    assert launch(1, 8) == f"torchrun --standalone --nproc-per-node 8 --no-python -- {tmp_path}/tool train --seed 0"
    several = launch(3, 8, SLURM_JOB_ID="7")
    assert several.startswith("srun --nodes 3 --ntasks 3 --ntasks-per-node 1 --cpu-bind=none --kill-on-bad-exit=1\n")
    place = re.compile(r"torchrun --node-rank 2 --master-addr (\S+) --master-port (\d+) (.*)")
    address, port, rest = place.search(several).groups()
    assert rest == f"--nproc-per-node 8 --nnodes 3 --no-python -- {tmp_path}/tool train --seed 0"
    given = launch(3, 8, SLURM_JOB_ID="7", SLURM_GPUS_ON_NODE="4")
    assert "--nproc-per-node 4 --nnodes 3" in given
    assert "--standalone --nproc-per-node 4" in launch(1, 8, SLURM_GPUS_ON_NODE="4")
    assert "--nproc-per-node 2 " in launch(1, 2, SLURM_GPUS_ON_NODE="8")  # of an interactive job that has more
    assert address == "first"
    assert int(port) >= 1024
    chosen = launch(3, 8, SLURM_JOB_ID="7", MASTER_ADDR="10.0.0.1", MASTER_PORT="29400")
    assert place.search(chosen).groups()[:2] == ("10.0.0.1", "29400")
    assert "need a Slurm allocation" in launch(3, 8, SLURM_JOB_ID="")


def test_no_resume_state_is_declared_or_tracked(checkout):
    rules = "".join(path.read_text() for path in (checkout / "workflow" / "rules").glob("*.smk"))
    assert "/state/" not in re.sub(r"#.*", "", rules)
    assert "results/*/runs/*/state" in (checkout / ".dvcignore").read_text()


def test_dvc_stages_are_tables_only(checkout):
    stages = yaml.safe_load((checkout / "dvc.yaml").read_text())["stages"]
    for stage in stages.values():
        assert "snakemake" not in stage["cmd"]
        assert all(
            path.startswith("paper_tables/") and not options["cache"]
            for out in stage["outs"]
            for path, options in out.items()
        )
