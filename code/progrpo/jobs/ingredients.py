"""What decides a training, a set of images, an evaluation: sections of the configuration and hashes of the files they name.

Left out is what decides nothing: labels, paths (the content counts), sources, how often states are saved, which seeds or prompt
sets there are besides, and how the same work is cut into processes and batches, where only the rounding of sums differs.
"""

import hashlib
import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from progrpo.benchmarks.images import list_images
from progrpo.config import Config, Model, PromptSet
from progrpo.errors import UserError
from progrpo.files import sha256
from progrpo.identity import hash_files, hash_results, spoilt_file
from progrpo.plugins import SCORERS, SELECTION_RULES, own_file
from progrpo.provenance import decisive


def of_training(config: Config, name: str, seed: int) -> dict[str, Any]:
    """What decides the weights of a run; UserError for a file that is not there."""
    run = config.get_run(name)
    previews = {}
    if run.previews.decoder:
        previews = {"preview_decoder": hash_files(run.previews.decoder, "such folder")}
    return {
        **decisive(run),
        **previews,
        **_own_code("rule_code", run.group.rule, SELECTION_RULES),
        "seed": seed,
        "model": _model(config.models[run.model]),
        "prompts": _prompts(config.prompt_sets[run.prompts], unused={"images_per_prompt", "layout"}),
        "scorers": {scorer: _scorer(config, scorer) for scorer in run.reward},
    }


def of_images(config: Config, model: str, prompts: str, seed: int, weights: Path | None) -> dict[str, Any]:
    """What decides the images of a model, with trained `weights` or without, for a prompt set.

    UserError: weights that are not those a training published, named.
    """
    evaluation, section = config.evaluations[prompts], config.models[model]
    return {
        "seed": seed,
        "model": _model(section),
        "weights": None if weights is None else trained_weights(weights),
        "prompts": _prompts(config.prompt_sets[prompts]),
        "sampling": evaluation.sampling[section.family].model_dump(mode="json"),
    }


def of_learning_curve(config: Config, model: str, seed: int, stages: dict[str, Any]) -> dict[str, Any]:
    """What decides the held-out scores of weights {iteration: {file: SHA-256}}, None for the base model's own."""
    name = str(config.learning_curve)
    evaluation, section = config.evaluations[name], config.models[model]
    return {
        "seed": seed,
        "model": _model(section),
        "weights": stages,
        "prompts": _prompts(config.prompt_sets[name], unused={"layout"}),
        "sampling": evaluation.sampling[section.family].model_dump(mode="json"),
        "scorers": {scorer: _scorer(config, scorer) for scorer in evaluation.scorers},
    }


def of_evaluation(config: Config, prompts: str, images: Path) -> dict[str, Any]:
    """What decides the evaluation of a folder of images: scorers, benchmark models, and the images themselves."""
    evaluation = config.evaluations[prompts]
    settings: dict[str, dict] = {name: {**config.benchmarks.get(name, {})} for name in evaluation.benchmarks}
    return {
        "scorers": {scorer: _scorer(config, scorer) for scorer in evaluation.scorers},
        "benchmarks": {name: _with_files(values, {"sources"}) for name, values in settings.items()},
        "images": _digest_of_images(images),
    }


def trained_weights(folder: Path) -> dict[str, str]:
    """{file: SHA-256} of the weights in a run's `final/` or in a snapshot; UserError names a file that is not the published one."""
    if spoilt := spoilt_file(folder):
        again = "train the run first, or again: progrpo train publishes its weights anew"
        gone = f"a snapshot is published once, on the way: delete {folder.parent.parent} and train the run anew"
        raise UserError(f"{spoilt}; {gone if folder.parent.name == 'snapshots' else again}")
    return hash_results(folder)


def _digest_of_images(folder: Path) -> str:
    """One SHA-256 over names, prompts, records and bytes of the images of a folder."""
    digest = hashlib.sha256()
    for item in list_images(folder, allow_partial=True):  # whether part of them will do is asked before
        digest.update(json.dumps([item.name, item.prompt, item.metadata, sha256(item.path)]).encode())
    return digest.hexdigest()


def _model(section: Model) -> dict[str, Any]:
    kept = section.model_dump(mode="json", exclude={"path", "source"})
    return {**kept, "files": hash_files(section.path, "model folder")}


def _prompts(section: PromptSet, unused: Set[str] = frozenset()) -> dict[str, Any]:
    kept = section.model_dump(mode="json", exclude={"path", "source", *unused})
    if section.limit_per_style is None:
        kept.pop("limit_per_style")  # so that what was begun before it counted goes on
    return {**kept, "file": hash_files(section.path, "such file")}


def _scorer(config: Config, name: str) -> dict[str, Any]:
    section = config.scorers[name]
    kept = section.model_dump(mode="json", exclude={"path", "options", "sources", "batch_size"})
    files = hash_files(section.path, "such folder") if section.path else None
    kept |= _own_code("code", section.kind, SCORERS)
    return {**kept, "options": _with_files(section.options, set()), "files": files}


def _own_code(key: str, name: str, table: Mapping[str, str]) -> dict[str, str]:
    """{key: SHA-256 of the module} of a scorer or rule of one's own; of the package's, nothing: its version decides."""
    file = own_file(name, table)
    return {key: sha256(file)} if file else {}


def _with_files(settings: dict[str, Any], excluded: set[str]) -> dict[str, Any]:
    """Settings with the hashes of files in the place of the paths among them."""
    return {
        key: hash_files(value, "such file") if isinstance(value, str) and Path(value).exists() else value
        for key, value in settings.items()
        if key not in excluded
    }
