"""The files that stand for weights and prompts: a job depends on them as inputs.

Fetched ones have a source in the manifest; the others are the miniature world, as the workflow makes it and as DVC stores it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from progrpo.benchmarks.compbench import CATEGORIES
from progrpo.config import Config
from progrpo.paper_runs import SD14, SD35M
from progrpo.plugins import SCORER_FILES, SCORERS, own_file

MINIATURE = "results/miniature"
DENOISER_FILES = {  # family -> the file of a base model's folder that its users depend on
    "flow": "transformer/diffusion_pytorch_model.safetensors",
    "diffusion": "unet/diffusion_pytorch_model.safetensors",
}
PROMPT_SETS = ("train", "test", "drawbench", "hpsv2", "geneval")
MINIATURE_PROMPTS = [
    f"{MINIATURE}/prompts/{name}.jsonl"
    for name in (*PROMPT_SETS, *(f"t2i_compbench_{category}" for category in CATEGORIES))
]
MINIATURE_MODELS = {SD35M: "flow", SD14: "diffusion"}
MINIATURE_BENCHMARKS = ("detector", "blip_vqa")
MINIATURE_FILES = [
    *MINIATURE_PROMPTS,
    *(f"{MINIATURE}/{model}/{DENOISER_FILES[family]}" for model, family in MINIATURE_MODELS.items()),
    *(f"{MINIATURE}/scorers/{kind}/{file}" for kind, files in SCORER_FILES.items() for file in files),
    *(f"{MINIATURE}/{benchmark}/report.json" for benchmark in MINIATURE_BENCHMARKS),
]


def fetched(source: str) -> str:
    """The record that `progrpo fetch` writes last, after it has verified what it downloaded."""
    return f"data/{source}/fetched.json"


def model_file(config: Config, name: str) -> str:
    """The file that a base model's users depend on."""
    model = config.models[name]
    return fetched(model.source) if model.source else f"{model.path}/{DENOISER_FILES[model.family]}"


def prompt_file(config: Config, name: str) -> str:
    """The file that a prompt set's users depend on."""
    prompts = config.prompt_sets[name]
    return fetched(prompts.source) if prompts.source else prompts.path


def scorer_files(config: Config, names: Iterable[str]) -> list[str]:
    """The files that the users of scorers depend on: weights, fetched or made, and code of one's own."""
    files = []
    for scorer in (config.scorers[name] for name in names):
        files += own_code(scorer.kind, SCORERS)
        files += [fetched(source) for source in scorer.sources]
        if scorer.path and not scorer.sources:
            files += [f"{scorer.path}/{file}" for file in _declared_files(scorer.kind)]
    return files


def _declared_files(kind: str) -> tuple[str, ...]:
    """The files of a scorer's folder; the class is loaded, and torch with it, only where it is one's own."""
    if kind in SCORER_FILES:
        return SCORER_FILES[kind]
    from progrpo.rewards.registry import declared_files

    return declared_files(kind)


def own_code(name: str, table: Mapping[str, str]) -> list[str]:
    """The module of a `package.module:name` outside this package; what lies inside is in the code's fingerprint."""
    file = own_file(name, table)
    if file is None:
        return []
    return [str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)]


def benchmark_files(config: Config, names: Iterable[str]) -> list[str]:
    """The files that the users of benchmark models depend on."""
    files = []
    for name in names:
        settings: dict[str, Any] = dict(config.benchmarks).get(name, {})  # type: ignore[assignment]
        files += [fetched(source) for source in settings.get("sources", [])]
        paths = [Path(value) for value in settings.values() if isinstance(value, str)]
        kinds = {path.parts[2] for path in paths if path.is_relative_to(MINIATURE)}
        files += [f"{MINIATURE}/{kind}/report.json" for kind in sorted(kinds)]
    return files
