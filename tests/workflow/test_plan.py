"""The plan of a tier, from its configuration: jobs that cover what is wanted once, and digests that say what decides a result."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from checkout import ROOT
from progrpo.config import Config, load_config, tier_files
from progrpo.errors import UserError
from progrpo.names import evaluated_names, prompt_sets_of, seeds_of
from progrpo.workflow import options
from progrpo.workflow.code_inputs import Code
from progrpo.workflow.plan import CURVES, Plan
from progrpo.workflow.site import Site

TIERS = [path.stem for path in tier_files(ROOT / "config")]
SOURCE = Code(ROOT / "code")
RUN = "progrpo_sd35m"


def tier(name: str, change=None) -> Config:
    """A tier's configuration, after `change` has edited its parsed YAML."""
    data = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text())
    data = json.loads(json.dumps(data))  # sections that share an anchor share no object
    data.pop("templates", None)
    if change:
        change(data)
    return Config.model_validate(data)


def plan(name: str = "smoke", change=None) -> Plan:
    return Plan(tier(name, change), SOURCE)


def job(**wildcards) -> SimpleNamespace:
    return SimpleNamespace(**wildcards)


# ---------------------------------------------------------------- jobs


@pytest.mark.parametrize("name", TIERS)
def test_every_evaluation_is_made_by_one_job(name):
    made = plan(name)
    pairs = [
        (model, prompts)
        for sets in made.evaluation_jobs().values()
        for model in made.models_of(sets)
        for prompts in sets
    ]
    wanted = {
        (model, prompts) for model in evaluated_names(made.config) for prompts in prompt_sets_of(made.config, model)
    }
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == wanted
    scored = sum(len(seeds_of(made.config, model)) for model, prompts in wanted if made.scored([prompts]))
    assert len(set(made.evaluation_files())) == scored


def test_lists_of_prompt_sets_with_the_same_first_and_length_are_two_jobs():
    config = load_config(ROOT / "config" / "smoke.yaml")
    runs = {name: run.model_copy(update={"evaluations": None}) for name, run in config.runs.items()}
    sets = prompt_sets_of(config, "progrpo_sd35m")
    first, second, *_ = runs
    for name, other in ((first, sets[1]), (second, sets[2])):
        runs[name] = runs[name].model_copy(update={"evaluations": (sets[0], other)})
    made = Plan(config.model_copy(update={"runs": runs}), Code(ROOT / "code"))
    jobs = made.evaluation_jobs()
    assert [sets[0], sets[1]] in jobs.values()
    assert [sets[0], sets[2]] in jobs.values()
    pairs = {(model, name) for own in jobs.values() for model in made.models_of(own) for name in own}
    assert {(first, sets[0]), (first, sets[1]), (second, sets[0]), (second, sets[2])} <= pairs


def test_a_copied_tier_that_kept_its_name_or_its_results_is_refused(tmp_path):
    """One of the two would lose its results to the other."""
    own = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    shutil.copy(ROOT / "config" / "smoke.yaml", tmp_path)
    path = tmp_path / "mine.yaml"

    def refused(**changes: str) -> str:
        path.write_text(yaml.safe_dump(own | changes))
        try:
            options.require_own_place(path, load_config(path))
        except UserError as error:
            return str(error)
        return ""

    assert "is of tier smoke; give it its own `tier: mine`, and its own `results`" in refused()
    assert "its results are those of smoke.yaml" in refused(tier="mine")
    assert "its results are those of smoke.yaml" in refused(tier="mine", results="results/./smoke")
    assert refused(tier="mine", results="results/mine") == ""


@pytest.mark.parametrize("name", TIERS)
def test_curves_are_drawn_only_where_all_their_runs_were_trained(name):
    config = tier(name)
    drawn = {Path(file).stem for file in Plan(config, SOURCE).figure_files()} & set(CURVES)
    assert drawn == {curves for curves, runs in CURVES.items() if set(runs) <= set(config.runs)}
    assert not {Path(file).stem for file in Plan(config, SOURCE, stored=[]).figure_files()} & set(CURVES)


def test_of_stored_results_that_are_wanted_which_is_published():
    whole = plan("mini")
    evaluation, curve, analysis = (
        getattr(whole, kind)()[0] for kind in ("evaluation_files", "learning_curve_files", "analysis_files")
    )
    names = [
        file.removeprefix("results/mini/") for file in (evaluation, curve, "results/mini/analysis/pruning_pilot.json")
    ]
    part = Plan(tier("mini"), SOURCE, stored=[*names, "analysis/another.json"])
    assert (part.evaluation_files(), part.learning_curve_files()) == ([evaluation], [curve])
    assert part.analysis_files() == ["results/mini/analysis/pruning_pilot.json"]
    assert part.figure_files() == ["results/mini/figures/pruning_pilot.pdf"]
    everything = [Path(file).relative_to("results/mini") for file in whole.analysis_files() + whole.stored_samples()]
    assert set(Plan(tier("mini"), SOURCE, stored=map(str, everything)).figure_files()) == {
        file for file in whole.figure_files() if Path(file).stem not in CURVES
    }
    assert analysis in whole.analysis_files()


def test_the_files_of_a_tier_lie_in_its_results_folder():
    made = plan("mini")
    files = [
        *made.evaluation_files(),
        *made.analysis_files(),
        *made.figure_files(),
        *made.weights_files(made.config.runs),
    ]
    assert all(file.startswith("results/mini/") for file in files)
    assert "results/mini/runs/progrpo_sd35m-seed0/final/provenance.json" in files
    assert made.weights_of(job(model=RUN, seed="0")) == ["results/mini/runs/progrpo_sd35m-seed0/final/provenance.json"]
    assert made.weights_of(job(model="base_sd35m", seed="0")) == []


@pytest.mark.parametrize("name", TIERS)
def test_a_training_reads_its_model_its_prompts_and_its_rewards(name):
    made = plan(name)
    for run, section in made.config.runs.items():
        inputs = made.train_inputs(job(run=run))
        assert len(inputs) == len(set(inputs)) >= 2 + len(section.reward)
        if name != "paper":
            assert inputs[0].startswith(made.config.models[section.model].path)
            assert made.config.prompt_sets[section.prompts].path in inputs


def test_resources_are_the_largest_of_a_job_and_the_time_of_all():
    hardware = tier("paper").runs["flowgrpo_sd35m"].hardware
    small = hardware.model_copy(update={"gpus": 1, "nodes": 1, "memory_gb": 5, "hours": 0.001})
    large = hardware.model_copy(update={"gpus": 4, "nodes": 2, "memory_gb": 3, "hours": 1.5})
    asked = Site().resources(small)
    assert (asked["accelerator"], asked["nodes"], asked["mem_mb"], asked["runtime"]) == (1, 1, 5000, 1)
    asked = Site().resources(small, large)
    assert (asked["accelerator"], asked["nodes"], asked["mem_mb"], asked["runtime"]) == (8, 2, 5000, 91)


# ---------------------------------------------------------------- configuration that decides a result


def settings(made: Plan) -> dict[str, str]:
    """The digests of a run's training, of images and scores of its prompt sets, and of an analysis."""
    sets = ["test_flow"]
    return {
        "train": made.train_settings(job(run=RUN)),
        "generate": made.generate_settings(sets)(job(model=RUN, seed="0")),
        "evaluate": made.evaluate_settings(sets),
        "benchmark": made.evaluate_settings(["geneval"]),
        "analyse": made.analysis_settings(job(analysis="reward_clustering")),
    }


def set_key(path: str, value):
    """An edit that sets `a.b.c` of a parsed configuration."""

    def change(data: dict) -> None:
        *parents, key = path.split(".")
        for parent in parents:
            data = data.setdefault(parent, {})
        data[key] = value

    return change


@pytest.mark.parametrize(
    ("key", "value", "reruns"),
    [
        (f"runs.{RUN}.method", "Ours", set()),
        (f"runs.{RUN}.evaluations", ["test_flow"], set()),
        (f"runs.{RUN}.save_every", 3, set()),
        (f"runs.{RUN}.seeds", [0, 1, 2], set()),
        (f"runs.{RUN}.micro_batch", 4, set()),
        (f"runs.{RUN}.hardware.gpus", 1, set()),
        ("evaluations.test_flow.hardware.hours", 9.0, set()),
        ("evaluations.test_flow.batch", 3, set()),
        ("analyses.reward_clustering.hardware.hours", 9.0, set()),
        (f"runs.{RUN}.iterations", 5, {"train"}),
        (f"runs.{RUN}.group.rule", "uniform", {"train"}),
        ("runs.progrpo_flash_sd35m.iterations", 5, set()),
        ("prompt_sets.train.limit", 7, {"train"}),
        ("prompt_sets.train.images_per_prompt", 7, set()),
        ("prompt_sets.test_flow.limit", 7, {"generate"}),
        ("prompt_sets.hpsv2.limit", 21, set()),  # as it is
        ("evaluations.test_flow.sampling.flow.steps", 4, {"generate"}),
        ("evaluations.test_flow.sampling.diffusion.steps", 4, set()),
        ("evaluations.test_flow.scorers", ["pickscore"], {"evaluate"}),
        ("scorers.pickscore.precision", "bf16", {"train", "evaluate", "analyse"}),
        ("scorers.hpsv2.precision", "bf16", {"evaluate"}),
        ("models.sd35m.precision", "bf16", {"train", "generate", "analyse"}),
        ("models.sd14.precision", "bf16", set()),
        ("benchmarks.geneval.detector", "elsewhere", {"benchmark"}),
        ("analyses.reward_clustering.group", 14, {"analyse"}),
    ],
)
def test_a_key_reruns_what_it_decides_and_nothing_else(key, value, reruns):
    before, after = settings(plan()), settings(plan(change=set_key(key, value)))
    assert {name for name in before if before[name] != after[name]} == reruns


# ---------------------------------------------------------------- code that decides a result


def codes(folder: Path) -> dict[str, str]:
    """The code fingerprints of the jobs of tier smoke whose code lies in a folder."""
    made = Plan(tier("smoke"), Code(folder))
    return {
        "train": made.train_code(job(run=RUN)),
        "train_hpsv2": made.train_code(job(run="dancegrpo_sd14")),
        "generate": made.generate_code()(job()),
        "evaluate": made.evaluate_code(["test_flow"])(job()),
        "geneval": made.evaluate_code(["geneval"])(job()),
        "sample": made.analysis_code(job(analysis="reward_clustering")),
        "miniature": made.miniature_code("world")(job()),
    }


TRAIN, REWARDS = {"train", "train_hpsv2"}, {"train", "evaluate", "sample"}
EVERYTHING = {"train", "train_hpsv2", "generate", "evaluate", "geneval", "sample", "miniature"}


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    return shutil.copytree(ROOT / "code" / "progrpo", tmp_path_factory.mktemp("code") / "progrpo").parent


@pytest.fixture(scope="module")
def before(copied) -> dict[str, str]:
    """The fingerprints of the copied code as it is; each test that edits it takes its edit back."""
    return codes(copied)


@pytest.mark.parametrize(
    ("module", "reruns"),
    [
        ("grpo/prompt_stream.py", TRAIN),
        ("grpo/objective.py", TRAIN),
        ("jobs/train.py", TRAIN),
        ("rewards/pickscore.py", REWARDS),
        ("rewards/hpsv2.py", {"train_hpsv2", "evaluate"}),
        ("benchmarks/geneval/verdict.py", {"geneval"}),
        ("benchmarks/compbench/vqa.py", set()),
        ("miniature/pretrain.py", {"miniature"}),
        ("errors.py", EVERYTHING),
        ("commands/train.py", set()),
        ("commands/miniature.py", {"miniature"}),
        ("cli.py", set()),
        ("report/summary.py", set()),
        ("weights/fetch.py", set()),
    ],
)
def test_code_reruns_what_runs_it_and_a_comment_nothing(copied, before, module, reruns):
    path = copied / "progrpo" / module
    text = path.read_text()
    try:
        path.write_text(f"# A remark.\n{text}\n\n\n# Another.\n")
        assert codes(copied) == before
        path.write_text(f"{text}\nNEW = 1\n")
        after = codes(copied)
    finally:
        path.write_text(text)
    assert {name for name in before if before[name] != after[name]} == reruns


def test_weights_are_loaded_by_the_code_that_trains_and_generates(copied, before):
    path = copied / "progrpo" / "grpo" / "tuning.py"
    text = path.read_text()
    path.write_text(f"{text}\nNEW = 1\n")
    after = codes(copied)
    path.write_text(text)
    assert {"train", "train_hpsv2", "generate"} <= {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("hardware", "complaint"),
    [
        (
            {"gpus": 8, "nodes": 4},
            "prompts_per_iteration (96) must be a multiple of ranks x updates_per_iteration (32 x 2)",
        ),
        ({"gpus": 5, "nodes": 1}, "(5 x 2); use fewer GPUs or another number of prompts"),
        ({"gpus": 0, "nodes": 3}, "nodes (3) of no GPU: a job on the CPU is one process; use nodes: 1"),
    ],
)
def test_gpus_that_cannot_share_the_prompts_are_refused_before_any_job(hardware, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        tier("paper", lambda data: data["runs"][RUN]["hardware"].update(hardware))


def test_tables_are_set_again_where_they_print_another_number_of_gpus():
    def other(**hardware) -> str:
        return plan("paper", lambda data: data["runs"][RUN]["hardware"].update(hardware)).tables_settings()

    assert other(gpus=4) != other() == other(hours=3)


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tear": "smoke"}, "--config tear: no such option; known: tier, miniature, results"),
        ({"tier": "smok"}, "--config tier=smok: use one of mini, paper, smoke"),
        ({"results": "made up"}, "--config results=made up: use one of made, weights, stored"),
    ],
)
def test_a_wrong_option_is_one_line(monkeypatch, given, message):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=re.escape(message)):
        options.choose(given)


def test_a_folder_without_tiers_is_told_apart_from_a_wrong_tier(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="config/: no tiers in it; call Snakemake in the repository's root"):
        options.choose({"tier": "smoke"})


def test_options_have_defaults(monkeypatch):
    monkeypatch.chdir(ROOT)
    chosen = options.choose({"miniature": "trained"})
    assert chosen == {"tier": "paper", "miniature": "trained", "results": "made"}
    assert options.config_file(chosen) == "config/paper.yaml"
