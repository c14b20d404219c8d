# The tier's configuration, and what the rules ask about it. No rule stands here.
import hashlib
import json
import re
import sys
from pathlib import Path

from progrpo.config import load_config
from progrpo.errors import UserError
from progrpo.workflow.code_inputs import PACKAGE, Code

OPTIONS = {
    "tier": "paper",  # config/<tier>.yaml
    "miniature": "stored",  # "stored": from the DVC remote in this repository; "trained": made anew
    "results": "made",  # "made": trained and evaluated here; "stored": the published ones
}
MINIATURE = "results/miniature"
RUN_LABELS = {"method", "evaluations", "save_every", "seeds"}  # decide no weight
GRID_MODELS = ("base_sd35m", "flowgrpo_sd35m", "progrpo_sd35m")  # Figs. 4 and 8 to 11
SOURCE = Code(Path("code"))


def option_of(name):
    """A value given with --config, or its default."""
    return config.get(name, OPTIONS[name])


def load_tier():
    """The tier's validated configuration; one clear line for a wrong option, tier or key."""
    tiers = sorted(path.stem for path in Path("config").glob("*.yaml"))
    choices = {
        "tier": tiers,
        "miniature": ["stored", "trained"],
        "results": ["made", "stored"],
    }
    for option in config:
        if option not in OPTIONS:
            known = ", ".join(OPTIONS)
            sys.exit(f"Snakefile: --config {option}: no such option; known: {known}")
    for option, known in choices.items():
        if option_of(option) not in known:
            sys.exit(
                f"Snakefile: --config {option}={option_of(option)}: use one of {', '.join(known)}"
            )
    try:
        tier = load_config(CONFIG_FILE)
    except UserError as error:
        sys.exit(f"Snakefile: {error}")
    return tier


CONFIG_FILE = f"config/{option_of('tier')}.yaml"
TIER = load_tier()


def code_of(*entries, scorers=()):
    """Fingerprint of the code that decides a job's result, that of the scorers it loads included."""
    kinds = [TIER.scorers[name].kind for name in scorers]
    modules = {SCORERS.get(kind, kind).partition(":")[0] for kind in kinds}
    ours = {module for module in modules if module.split(".")[0] == PACKAGE}
    return SOURCE.fingerprint(
        *entries, *ours
    )  # code of one's own is an input file: own_code


def digest(*sections, without=frozenset()):
    """Hash of parts of the configuration: a job runs again when its part changes, not when the file does.

    Where a job runs and how fast is left out, because its result does not depend on it, and the keys in `without`.
    """
    dumped = [
        section.model_dump(mode="json", exclude={"hardware", "speed", *without})
        for section in sections
    ]
    return hashlib.sha256(json.dumps(dumped, sort_keys=True).encode()).hexdigest()[:16]


# Models, seeds and prompt sets


def base_models():
    """Names `base_<model>` of the models that runs start from, as they are evaluated beside the runs."""
    return [
        f"base_{model}" for model in sorted({run.model for run in TIER.runs.values()})
    ]


def base_model(name):
    """The base model of a run or of a `base_<model>`."""
    return TIER.runs[name].model if name in TIER.runs else name.removeprefix("base_")


def seeds_of(name):
    """Seeds of a run; a base model is sampled once."""
    return TIER.run_seeds(name) if name in TIER.runs else (0,)


def prompt_sets_of(name):
    """Prompt sets that a model is evaluated on; a base model's are those of the runs that start from it."""
    if name in TIER.runs:
        chosen = TIER.runs[name].evaluations
        return list(TIER.evaluations if chosen is None else chosen)
    runs = [
        run for run, values in TIER.runs.items() if values.model == base_model(name)
    ]
    wanted = {prompts for run in runs for prompts in prompt_sets_of(run)}
    return [prompts for prompts in TIER.evaluations if prompts in wanted]


def run_files(runs):
    """The provenance of the trained weights of runs, for all their seeds."""
    return [
        f"{TIER.results}/runs/{run}-seed{seed}/final/provenance.json"
        for run in runs
        for seed in seeds_of(run)
    ]


def evaluated_models():
    """Everything that is evaluated: the runs, and the models they start from."""
    return [*base_models(), *TIER.runs]


def evaluation_jobs():
    """{name: prompt sets} of the jobs that evaluations are cut into: each set of its own, or a model's sets together."""
    if TIER.evaluation_jobs == "per_prompt_set":
        return {prompts: [prompts] for prompts in TIER.evaluations}
    together = {tuple(prompt_sets_of(model)) for model in evaluated_models()}
    return {
        "_and_".join([sets[0], f"{len(sets) - 1}_more"][: len(sets)]): list(sets)
        for sets in sorted(together)
    }


def models_of(sets):
    """Models whose evaluation consists of, or contains, a job's prompt sets."""
    exact = TIER.evaluation_jobs == "per_model"
    return [
        model
        for model in evaluated_models()
        if (
            prompt_sets_of(model) == sets
            if exact
            else set(sets) <= set(prompt_sets_of(model))
        )
    ]


def scored(sets):
    """Those of some prompt sets whose images are scored; the others are only looked at."""
    return [
        name
        for name in sets
        if TIER.evaluations[name].scorers or TIER.evaluations[name].benchmarks
    ]


def evaluation_files():
    """Every evaluation of the tier: models x their seeds x their prompt sets."""
    return [
        f"{TIER.results}/evaluations/{model}-seed{seed}/{prompts}.json"
        for model in evaluated_models()
        for seed in seeds_of(model)
        for prompts in scored(prompt_sets_of(model))
    ]


def regex(names):
    """A wildcard constraint for a list of names; one that fits nothing for an empty list."""
    return "|".join(names) or "(?!)"


# Input, parameters and resources of rules


def run_inputs(wildcards):
    """What a training reads: its base model, prompts and reward scorers."""
    run = TIER.runs[wildcards.run]
    files = [model_file(run.model), prompt_file(run.prompts)]
    return [
        *files,
        *scorer_files(run.reward),
        *own_code(run.group.rule, SELECTION_RULES),
    ]


def run_code(wildcards):
    """Fingerprint of the code that decides a training."""
    return code_of("progrpo.jobs.train", scorers=TIER.runs[wildcards.run].reward)


def run_digest(wildcards):
    """Hash of the configuration that decides a training."""
    run = TIER.runs[wildcards.run]
    scorers = [TIER.scorers[name] for name in sorted(run.reward)]
    sections = [run, TIER.models[run.model], TIER.prompt_sets[run.prompts], *scorers]
    return digest(*sections, without=RUN_LABELS)


def launched(quantity):
    """A parameter function: `quantity` of the hardware of a training, for the launcher.

    It takes `output`, without need, because Snakemake runs a job again when a parameter changes, but not for one that follows from
    the output: on how many GPUs a run is trained is no reason to train it again.
    """
    return lambda wildcards, output: quantity(of_run(wildcards).hardware)


def model_weights(wildcards):
    """The trained weights that a run's images are made with; a base model has none."""
    if wildcards.model not in TIER.runs:
        return []
    folder = f"{TIER.results}/runs/{wildcards.model}-seed{wildcards.seed}"
    return f"{folder}/final/provenance.json"


def weights_option(wildcards, input):
    """The words `--weights FOLDER` of a run, none for a base model."""
    return ["--weights", Path(input.weights).parent] if input.weights else []


def generate_inputs(sets):
    """An input function: base model and prompts of a generation."""
    return lambda wildcards: [
        model_file(base_model(wildcards.model)),
        *map(prompt_file, sets),
    ]


GENERATE_CODE = code_of("progrpo.jobs.generate")


def generate_digest(sets):
    """A parameter function: hash of the configuration that decides a generation."""
    decisive = [TIER.evaluations[name] for name in sets] + [
        TIER.prompt_sets[name] for name in sets
    ]
    return lambda wildcards: digest(
        TIER.models[base_model(wildcards.model)],
        *decisive,
        without={"scorers", "benchmarks"},
    )


def evaluate_inputs(sets):
    """Scorers and benchmark models of an evaluation."""
    scorers = {name for prompts in sets for name in TIER.evaluations[prompts].scorers}
    benchmarks = {
        name for prompts in sets for name in TIER.evaluations[prompts].benchmarks
    }
    return sorted({*scorer_files(scorers), *benchmark_files(benchmarks)})


def evaluate_code(sets):
    """Fingerprint of the code that decides an evaluation."""
    scorers = {name for prompts in sets for name in TIER.evaluations[prompts].scorers}
    benchmarks = {
        name for prompts in sets for name in TIER.evaluations[prompts].benchmarks
    }
    entries = [
        f"progrpo.jobs.evaluate:{function}"
        for function in (
            "evaluate_images",
            *(f"run_{name}" for name in sorted(benchmarks)),
        )
    ]
    return code_of(*entries, scorers=scorers)


def evaluate_digest(sets):
    """Hash of the configuration that decides an evaluation beside the images."""
    evaluations = [TIER.evaluations[name] for name in sets]
    scorers = sorted(
        {name for evaluation in evaluations for name in evaluation.scorers}
    )
    benchmarks = {name for evaluation in evaluations for name in evaluation.benchmarks}
    settings = json.dumps({name: TIER.benchmarks[name] for name in sorted(benchmarks)})
    sections = [*evaluations, *(TIER.scorers[name] for name in scorers)]
    return digest(*sections, without={"sampling"}) + settings


def evaluation_resources(sets):
    """What a job asks of a cluster: the largest of its prompt sets, and the time of all."""
    asked = [TIER.evaluations[name].hardware for name in sets]
    return {
        "gpu": max(map(gpus, asked)),
        "mem_mb": max(map(megabytes, asked)),
        "runtime": sum(map(minutes, asked)),
    }


def analysis_inputs(wildcards):
    """Base model, prompts and scorer of an analysis."""
    analysis = TIER.analyses[wildcards.analysis]
    files = [model_file(analysis.model), prompt_file(analysis.prompts)]
    return files + scorer_files([analysis.scorer])


def analysis_code(wildcards):
    """Fingerprint of the code that decides the samples of an analysis."""
    analysis = TIER.analyses[wildcards.analysis]
    return code_of("progrpo.jobs.sample_rewards", scorers=[analysis.scorer])


def analysis_digest(wildcards):
    """Hash of the configuration that decides an analysis."""
    analysis = TIER.analyses[wildcards.analysis]
    return digest(analysis, TIER.models[analysis.model], TIER.scorers[analysis.scorer])


def hardware(section_of, quantity):
    """A resource function: `quantity` of the hardware that the configuration gives to a job."""
    return lambda wildcards: quantity(section_of(wildcards).hardware)


def of_run(wildcards):
    return TIER.runs[wildcards.run]


def of_analysis(wildcards):
    return TIER.analyses[wildcards.analysis]


def gpus(asked):
    return asked.gpus * asked.nodes


def megabytes(asked):
    return 1000 * asked.memory_gb


def minutes(asked):
    return max(1, round(60 * asked.hours))


# Analyses and figures

OVF_STUDY = {  # Figs. 1 and 2: what a static filter of a finished group does
    "full": "flowgrpo_sd35m",
    "uniform": "uniform_sd35m",
    "ovf": "ovf_sd35m",
}
CURVES = {  # Fig. 5: training curves per model and reward
    "curves_flow": ("flowgrpo_sd35m", "progrpo_flash_sd35m", "progrpo_sd35m"),
    "curves_diffusion": ("dancegrpo_sd14", "progrpo_sd14"),
    "curves_diffusion_multi": ("dancegrpo_sd14_multi", "progrpo_sd14_multi"),
}
PILOT = "pruning_pilot"  # the analysis that also stores images: Fig. 7
QUALITATIVE = (
    "qualitative"  # the prompt set whose images are only looked at: Figs. 4 and 8 to 11
)
CURVE_KEYS = "reward_mean"
ANALYSIS_FIGURES = {  # analysis -> figure of `progrpo figures`
    "ovf_study": "fig2",
    "reward_clustering": "fig6",
    "pruning_pilot": "pilot",
}


def analyses():
    """Names of the tier's analyses, as far as their runs and settings are in its configuration."""
    static = ["ovf_study"] if set(OVF_STUDY.values()) <= set(TIER.runs) else []
    return [*TIER.analyses, *static]


def analysis_files():
    """Every analysis of the tier, and the cost model."""
    return [f"{TIER.results}/analysis/{name}.json" for name in ["flops", *analyses()]]


def figure_files():
    """Every figure of the tier; training curves only where the runs are."""
    made = option_of("results") == "made"
    curves = [
        name for name, runs in CURVES.items() if made and set(runs) <= set(TIER.runs)
    ]
    drawn = [name for name in analyses() if name in ANALYSIS_FIGURES]
    return [
        f"{TIER.results}/figures/{name}.pdf" for name in [*curves, *drawn, *grids()]
    ]


def grids():
    """Figures made of images: previews over steps, and models side by side."""
    previews = ["previews"] if PILOT in TIER.analyses else []
    compared = set(GRID_MODELS[1:]) <= set(TIER.runs)
    return [
        *previews,
        *([QUALITATIVE] if QUALITATIVE in TIER.evaluations and compared else []),
    ]


def stored_samples():
    """The images that grids are drawn from."""
    names = {"previews": PILOT, QUALITATIVE: QUALITATIVE}
    return [f"{TIER.results}/analysis/samples/{names[grid]}.npz" for grid in grids()]


def run_folders(weights):
    """Run folders, seen from the provenance files of their trained weights."""
    return [str(Path(file).parents[1]) for file in weights]


def study_weights(arm):
    """An input function: the trained weights of one arm of the static study."""
    return lambda wildcards: run_files([OVF_STUDY[arm]])
