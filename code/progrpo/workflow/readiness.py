"""Which tiers this machine can run now, and if not, why: what a configuration asks for against what `machine` found."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from progrpo.config import Config, Hardware, load_config, tier_files
from progrpo.errors import UserError
from progrpo.weights.manifest import human_size
from progrpo.workflow import machine
from progrpo.workflow.options import require_own_place

WORK = 2 * 10**8  # bytes that a run of a miniature tier writes beside its downloads, rounded up


def examine(hashes: bool = False) -> dict[str, Any]:
    """Everything that `progrpo doctor` says, in the checkout that is the current folder.

    hashes: read the miniature models and downloads and compare their content too. UserError when this is no checkout.
    """
    for path in (Path("config"), Path("requirements.txt"), Path("pyproject.toml"), machine.POINTER):
        if not path.exists():
            raise UserError(f"{path} is not here; start it from the root of the repository")
    packages = machine.packages()
    if not any((folder / ".git").exists() for folder in (Path.cwd(), *Path.cwd().parents)):
        packages["problems"] += ["this folder is no git checkout, which DVC needs: call `git init` in it once"]
    found = {
        "version": machine.installed("progrpo"),
        **packages,
        "device": machine.device(),
        "miniature": machine.miniature(hashes),
        "downloads": machine.downloads(hashes),
        "disk_free": machine.free_disk(),
        "tools": machine.tools(),
    }
    tiers = sorted(tier_files(), key=lambda path: (path.stem != "smoke", path.stem))
    return {**found, "tiers": {path.stem: judge(path, found) for path in tiers}}


def judge(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    """`can_run`, the `command`, and `why_not`, one sentence per reason, for the tier of a configuration file on a machine as found."""
    try:
        config = load_config(path)
        require_own_place(path, config)
    except UserError as error:
        return {"can_run": False, "command": None, "why_not": [str(error)]}
    reasons = [*found["problems"], *filter(None, [found["device"]["problem"]])]
    reasons += [*_missing_models(config, found), *_missing_downloads(config, found)]
    local = _missing_hardware(config, path, found)
    if local and found["tools"]["Slurm"]:  # the cluster has it, or Slurm says that it has not
        command = f"snakemake --profile slurm all --config tier={config.tier}"
    else:
        command, reasons = f"make reproduce TIER={config.tier}", [*reasons, *local]
    return {"can_run": not reasons, "command": command, "why_not": reasons}


def _asked_paths(config: Config) -> Iterator[tuple[str, str, list[str]]]:
    """(key, path, sources in the manifest) of everything that a tier reads."""
    for name, model in config.models.items():
        yield f"models.{name}", model.path, [model.source] if model.source else []
    for name, scorer in config.scorers.items():
        if scorer.path:
            yield f"scorers.{name}", scorer.path, list(scorer.sources)
    for name, prompts in config.prompt_sets.items():
        yield f"prompt_sets.{name}", prompts.path, [prompts.source] if prompts.source else []
    for benchmark, settings in config.benchmarks.items():
        values: dict[str, Any] = dict(settings)  # type: ignore[call-overload]  # a TypedDict behind a union
        sources = values.pop("sources", [])
        for key in values.keys() - {"chunker"}:
            yield f"benchmarks.{benchmark}.{key}", values[key], sources


def _missing_models(config: Config, found: dict[str, Any]) -> list[str]:
    """Paths that no download brings and that are not there; the workflow restores miniature models by itself."""
    miniature = machine.POINTER.with_suffix("")
    return [
        f"{key}: {path} is not there"
        for key, path, sources in _asked_paths(config)
        if not sources
        and not Path(path).exists()
        and not (Path(path).is_relative_to(miniature) and found["miniature"]["restorable"])
    ]


def _missing_downloads(config: Config, found: dict[str, Any]) -> list[str]:
    sources = {source for _, _, named in _asked_paths(config) for source in named}
    unknown = sorted(sources - found["downloads"].keys())
    states = {name: entry for name, entry in found["downloads"].items() if name in sources}
    absent = {name: entry["bytes"] for name, entry in states.items() if entry["state"] == "absent"}
    reasons = [f"{name} is not in the manifest" for name in unknown]
    reasons += [
        f"{name}: {entry['state']}" for name, entry in states.items() if entry["state"] not in ("absent", "present")
    ]
    if absent:
        size = human_size(sum(absent.values()))
        named = [f"{name} (gated)" if "gated" in states[name]["licence"] else name for name in absent]
        reasons.append(f"not downloaded: {', '.join(named)} ({size}; the workflow or `progrpo fetch NAME` brings them)")
    if sum(absent.values()) + WORK > found["disk_free"]:
        needed = human_size(sum(absent.values()) + WORK)
        reasons.append(f"{human_size(found['disk_free'])} of disk are free, needed are {needed}")
    return reasons


def _missing_hardware(config: Config, path: Path, found: dict[str, Any]) -> list[str]:
    """GPUs and memory that a job asks for and this machine has not."""
    jobs: list[Hardware] = [
        part.hardware for parts in (config.runs, config.evaluations, config.analyses) for part in parts.values()
    ]
    gpus = max((job.gpus * job.nodes for job in jobs), default=0)
    memory = max((job.memory_gb for job in jobs), default=0)
    here, reasons = found["device"], []
    if gpus > len(here["gpus"]):
        reasons.append(f"a job asks for {gpus} GPUs, here are {len(here['gpus'])}; `hardware` in {path} says how many")
    if memory * 10**9 > here["memory"]:
        reasons.append(f"a job asks for {memory} GB of memory, here are {human_size(here['memory'])}")
    return reasons
