"""What a tier costs before its first job is started: GPU-hours, memory, disk, jobs, by arithmetic on counted operations."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from progrpo.config import Analysis, Config, PromptSet
from progrpo.cost import budget
from progrpo.errors import UserError
from progrpo.jobs.loading import prompts_of
from progrpo.names import evaluated_names, model_of, prompt_sets_of, seed_folder, seeds_of
from progrpo.weights.manifest import Entry, packaged_manifest
from progrpo.workflow.code_inputs import Code
from progrpo.workflow.plan import Plan
from progrpo.workflow.site import Site
from progrpo.workflow.sources import fetched

ATTEMPTS = 3  # of a Slurm job: `retries` in slurm/config.yaml and the first
Hours = Callable[[float], float]  # GPU-hours of so many TFLOP


def require_fit(config: Config, gpu_memory: float) -> None:
    """UserError when a job does not fit in `gpu_memory` GB: how much each needs, and with which settings it would fit."""
    told = [*_training_advice(config, gpu_memory), *_sampling_advice(config, gpu_memory)]
    if told:
        raise UserError(f"--gpu-memory {gpu_memory:g}: too small (estimated) for {'; '.join(told)}")


def _training_advice(config: Config, gpu_memory: float) -> list[str]:
    """Trainings that do not fit, those together that the same settings help."""
    cases: dict[str, list[tuple[str, float, float]]] = {}
    for name, run in config.runs.items():
        model, scorers = config.models[run.model], [config.scorers[scorer] for scorer in run.reward]
        network = budget.network_of(run.model, model)
        need = budget.memory(run, model, scorers, network)["total"]
        if need > gpu_memory:
            settings, less = budget.remedy(run, model, scorers, network, gpu_memory)
            advice = f"with {' and '.join(settings)}" if settings else "and no setting makes it smaller"
            cases.setdefault(advice if less <= gpu_memory else f"{advice}, still too much", []).append(
                (name, need, less)
            )
    told = []
    for advice, runs in cases.items():
        names, needs, smaller = zip(*runs, strict=True)
        listed = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
        better = f"{_span(smaller)} {advice}" if smaller != needs else advice
        told.append(f"{listed}: {_span(needs)} GB, {better}")
    return told


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"


def _sampling_advice(config: Config, gpu_memory: float) -> list[str]:
    """Evaluations and analyses whose images do not fit, and the batch that would."""
    jobs: dict[tuple[str, str, int, int, bool], None] = {}  # without repetition, in order
    for name in evaluated_names(config):
        model, full = model_of(config, name), name in config.runs and config.runs[name].lora is None
        for prompts in prompt_sets_of(config, name):
            jobs[f"images of {model}", model, config.evaluations[prompts].batch, 0, full] = None
    for name, analysis in config.analyses.items():
        jobs[name, analysis.model, analysis.batch, 1, False] = None
    told = []
    for job, model, batch, scorers, full in jobs:
        section = config.models[model]
        need = budget.sampling_memory(section, budget.network_of(model, section), batch, scorers, full)
        if need > gpu_memory:
            fits = budget.largest_batch(gpu_memory, need, batch)
            told.append(f"{job}: {need:.0f} GB, {f'fits with batch: {fits}' if fits else 'too much with any batch'}")
    return told


def report(
    config: Config, gpu_tflops: float, utilisation: float, judged: bool = False, site: Site | None = None
) -> dict[str, Any]:
    """Everything that is printed; hours, GB and TFLOP are estimates. judged: whether claims are judged of the tier."""
    plan, manifest = Plan(config, Code(Path(__file__).parents[2])), packaged_manifest()
    networks = {name: budget.network_of(name, config.models[name]) for name in {r.model for r in config.runs.values()}}
    counts = {name: _count(section, manifest) for name, section in config.prompt_sets.items()}
    read = _inputs(plan)
    sources = {source for source in manifest if fetched(source) in read}

    def hours(tflop: float) -> float:
        return budget.gpu_hours(tflop, gpu_tflops, utilisation)

    longest = site.hours if site and site.hours else float("inf")
    runs = {name: _run(config, name, networks, hours, longest) for name in config.runs}
    evaluations = _evaluations(plan, networks, counts, hours)
    analyses = {name: hours(_analysis_tflop(config, section)) for name, section in config.analyses.items()}
    images = sum(entry["images"] for entry in evaluations.values())
    disk = {
        "downloads": sum(manifest[source].size for source in sources) / budget.GB,
        "states": sum(entry["seeds"] * entry["disk_gb"]["states"] for entry in runs.values()),
        "final weights": sum(entry["seeds"] * entry["disk_gb"]["final"] for entry in runs.values()),
        "cached texts": budget.text_cache_gb(config, counts),
        "images": images * budget.IMAGE_BYTES / budget.GB,
    }
    return {
        "tier": config.tier,
        "estimated": "all of it: computed from counted operations and parameters, not measured",
        "gpu_tflops": gpu_tflops,
        "utilisation": utilisation,
        "runs": runs,
        "evaluation_gpu_hours": sum(entry["gpu_hours"] for entry in evaluations.values()),
        "analysis_gpu_hours": sum(analyses.values()),
        "images": images,
        "downloads_bytes": {source: manifest[source].size for source in sorted(sources)},
        "disk_gb": {**disk, "total": sum(disk.values())},
        "jobs": _jobs(plan, sources, judged),
        "critical_path": _critical_path(config, runs, evaluations, analyses),
    }


def _analysis_tflop(config: Config, analysis: Analysis) -> float:
    network = budget.network_of(analysis.model, config.models[analysis.model])
    studied = config.runs[analysis.gradients_of] if analysis.gradients_of else None
    return budget.analysis_tflop(analysis, network, studied)


def _count(section: PromptSet, manifest: Mapping[str, Entry]) -> int | None:
    """Prompts of a set: those that are read where a file or folder of one's own is there, else by the manifest; None when unknown."""
    if section.source is None:
        return len(prompts_of(section)) if Path(section.path).exists() else budget.prompt_count(section, None)
    entry = manifest.get(section.source)
    return budget.prompt_count(section, entry.count if entry else None)


def _inputs(plan: Plan) -> set[str]:
    """The files that trainings, generations, evaluations and analyses read."""
    named = SimpleNamespace  # as Snakemake's wildcards
    files = [file for name in plan.config.runs for file in plan.train_inputs(named(run=name))]
    for sets in plan.evaluation_jobs().values():
        for model in plan.models_of(sets):
            files += plan.generate_inputs(sets)(named(model=model))
        if plan.models_of(sets):
            files += plan.evaluate_inputs(plan.scored(sets))
    files += [file for name in plan.config.analyses for file in plan.analysis_inputs(named(analysis=name))]
    return set(files)


def _run(
    config: Config, name: str, networks: dict[str, budget.Network], hours: Hours, longest: float
) -> dict[str, Any]:
    run, network = config.runs[name], networks[config.runs[name].model]
    iteration = budget.iteration_tflop(run, network)
    gpus = run.hardware.ranks
    gpu_hours = hours(run.iterations * iteration["total"])
    scorers = [config.scorers[scorer] for scorer in run.reward]
    return {
        "iterations": run.iterations,
        "trajectories_per_iteration": run.prompts_per_iteration * run.group.size,
        "tflop_per_iteration": iteration,
        "seeds": len(config.run_seeds(name)),
        "gpus": gpus,
        "gpu_hours": gpu_hours,  # of one seed
        "hours": gpu_hours / gpus,
        "hours_asked": min(run.hardware.hours, longest),
        "memory_gb": budget.memory(run, config.models[run.model], scorers, network),
        "disk_gb": budget.training_disk(run, network),
    }


def _sampled_seeds(plan: Plan, name: str, prompts: str) -> int:
    """How many of a model's seeds are sampled on a prompt set: all where images are scored, else those that a figure shows."""
    if plan.scored([prompts]):
        return len(seeds_of(plan.config, name))
    folders = [f"/{seed_folder(name, seed)}/{prompts}/" for seed in seeds_of(plan.config, name)]
    return sum(folder in listing for folder in folders for listing in plan.grid_listings())


def _evaluations(plan: Plan, networks: dict, counts: dict, hours: Hours) -> dict[tuple[str, str], dict[str, float]]:
    """{(model or run, prompt set): images and GPU-hours of all its seeds, hours of one}."""
    config, made = plan.config, {}
    for name in evaluated_names(config):
        model = model_of(config, name)
        for prompts in prompt_sets_of(config, name):
            seeds = _sampled_seeds(plan, name, prompts)
            if (count := counts[prompts]) is None:
                raise UserError(f"prompt_sets.{prompts}: neither the manifest nor a file says how many prompts it has")
            images = count * config.prompt_sets[prompts].images_per_prompt
            evaluation = config.evaluations[prompts]
            one = hours(budget.evaluation_tflop(evaluation, config.models[model], networks[model], images))
            made[name, prompts] = {
                "images": images * seeds,
                "gpu_hours": one * seeds,
                "hours": one,  # one process, on one GPU
            }
    return made


def _jobs(plan: Plan, sources: set[str], judged: bool) -> dict[str, int]:
    """Number of jobs by kind, as the rules of workflow/rules cut them."""
    jobs = [(sets, model) for sets in plan.evaluation_jobs().values() for model in plan.models_of(sets)]
    made = {
        "fetch": len(sources),
        "train": len(plan.weights_files(plan.config.runs)),
        "generate": sum(max(_sampled_seeds(plan, model, prompts) for prompts in sets) for sets, model in jobs),
        "evaluate": sum(_sampled_seeds(plan, model, sets[0]) for sets, model in jobs if plan.scored(sets)),
        "analyse": len(plan.config.analyses) + len(plan.analysis_files()),
        "figures": len(plan.figure_files()) + bool(plan.grid_listings()),
        "curves, claims": len(plan.learning_curve_files()) + judged,
        "summary, tables, target": 3,
    }
    return {**made, "total": sum(made.values())}


def _critical_path(config: Config, runs: dict, evaluations: dict, analyses: dict) -> dict[str, Any]:
    """The longest way through the jobs when every job starts as soon as it may, in hours; downloads and queues are left out.

    An analysis and a base model's images wait for no training.
    """
    ways = {("sample", name): [hours] for name, hours in analyses.items()}
    for (name, prompts), entry in evaluations.items():
        trained = [runs[name]["hours"]] if name in runs else []
        ways[name, prompts] = [*trained, entry["hours"]]
    longest = max(ways, key=lambda way: sum(ways[way]))
    return {"hours": sum(ways[longest]), "through": list(longest), "parts": ways[longest]}


def table(made: dict[str, Any]) -> list[str]:
    """The readable page of `report`, line by line."""
    disk, path, jobs = made["disk_gb"], made["critical_path"], made["jobs"]
    training = sum(entry["seeds"] * entry["gpu_hours"] for entry in made["runs"].values())
    total = training + made["evaluation_gpu_hours"] + made["analysis_gpu_hours"]
    return [
        f"Tier {made['tier']}, estimated: {made['gpu_tflops']:g} TFLOP/s per GPU at {100 * made['utilisation']:g} % utilisation",
        *run_lines(made),
        *_too_long(made),
        f"GPU-hours: {total:.0f} = training {training:.0f} + images and scores {made['evaluation_gpu_hours']:.0f}"
        f" ({made['images']:,} images) + analyses {made['analysis_gpu_hours']:.0f}",
        f"Disk: {disk['total']:.0f} GB = " + " + ".join(f"{k} {v:.1f}" for k, v in disk.items() if k != "total"),
        f"Jobs: {jobs['total']} = " + " + ".join(f"{k} {v}" for k, v in jobs.items() if k != "total"),
        f"Critical path, every job starting at once: {path['hours']:.0f} h through {' on '.join(path['through'])}",
        "Left out: queues, downloads' time, loading, communication between GPUs, detectors of GenEval and T2I-CompBench++.",
    ]


def _too_long(made: dict[str, Any]) -> list[str]:
    """What one command does not train to its end: a job is tried so often, and then fails."""
    long = [name for name, entry in made["runs"].items() if entry["hours"] > ATTEMPTS * entry["hours_asked"]]
    if not long:
        return []
    return [
        f"Longer than {ATTEMPTS} jobs of the hours asked for: {', '.join(long)}. Raise `retries` in slurm/config.yaml, or give the"
        " command again when they have failed: they go on"
    ]


def run_lines(made: dict[str, Any]) -> list[str]:
    """The trainings, one a line, under a header."""
    lines = [
        f"{'run':24}{'iterations':>11}{'TFLOP each':>12}{'GPU-hours':>11}{'GPUs':>6}{'hours':>8}{'asked':>7}{'GB per GPU':>12}"
        f"{'GB on disk':>12}"
    ]
    for name, entry in made["runs"].items():
        lines.append(
            f"{name:24}{entry['iterations']:11}{entry['tflop_per_iteration']['total']:12,.0f}{entry['gpu_hours']:11,.0f}"
            f"{entry['gpus']:6}{entry['hours']:8.1f}{entry['hours_asked']:7g}{entry['memory_gb']['total']:12.0f}"
            f"{sum(entry['disk_gb'].values()):12.1f}"
        )
    return lines
