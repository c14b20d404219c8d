"""From a tier's configuration to the images of a model on disk."""

from contextlib import ExitStack
from pathlib import Path

import torch

from progrpo.benchmarks.prompt_sets import PromptRecord
from progrpo.config import Config
from progrpo.devices import choose_device
from progrpo.errors import UserError
from progrpo.grpo.backbone import Backbone, load_backbone
from progrpo.grpo.tuning import load_trained
from progrpo.identity import REFUSE, Folder, Start
from progrpo.jobs.image_folder import ImageTask, image_tasks
from progrpo.jobs.images import generate_set, sample_images, save_image
from progrpo.jobs.ingredients import of_images, trained_weights
from progrpo.jobs.loading import prompts_of, require_sets
from progrpo.names import is_base, model_of, prompt_sets_of


def generate_images(
    config: Config,
    name: str,
    sets: list[str] | None,
    seed: int,
    weights: Path | None,
    out: Path,
    device_name: str,
    start: Start = REFUSE,
) -> None:
    """Make the missing images of a run (with `weights`) or of a base model (without) in `out/<prompt set>/`."""
    model = checked_model(config, name, weights, out)
    chosen = sets or prompt_sets_of(config, name)
    require_sets(config, chosen)
    tasks = {
        prompts: image_tasks(prompts_of(config.prompt_sets[prompts]), config.prompt_sets[prompts]) for prompts in chosen
    }
    identities = {prompts: of_images(config, model, prompts, seed, weights) for prompts in chosen}
    with ExitStack() as held:
        for prompts, identity in identities.items():
            folder = Folder(out / prompts, ("*",))
            held.enter_context(folder.held(start.wait_for_lock))
            folder.claim(identity, start)
        backbone = load_model(config, model, weights, choose_device(device_name))
        for prompts in chosen:
            _generate_prompt_set(config, backbone, prompts, tasks[prompts], seed, out / prompts)


def generate_image(
    config: Config, name: str, prompt: str, seed: int, weights: Path | None, out: Path, device_name: str
) -> None:
    """Make one image of a text, as the first image of a set of that one prompt would be, sampled as for the first set of the run's.

    The file is written anew at each call: it is for looking at, and no evaluation reads it. UserError: a file of another kind, a text
    that is not Unicode, weights that are not those a training published.
    """
    model = checked_model(config, name, weights, out)
    if out.suffix not in (".png", ".jpg"):
        raise UserError(f"--out {out}: name a .png or .jpg for the image of --prompt")
    if any("\ud800" <= character <= "\udfff" for character in prompt):  # bytes of another encoding arrive as these
        raise UserError(f"--prompt {prompt!r}: not UTF-8 text: it holds a lone surrogate, half of a character")
    sets = prompt_sets_of(config, name)
    if not sets:
        raise UserError(
            f"--run {name}: is evaluated on no prompt set, so that no sampling is configured for its images"
        )
    if weights is not None:
        trained_weights(weights)
    backbone = load_model(config, model, weights, choose_device(device_name))
    sampling = config.evaluations[sets[0]].sampling[backbone.model.family]
    tasks = [ImageTask(out.name, PromptRecord(prompt), 0, 0)]
    save_image(out, sample_images(backbone, backbone.table(sampling), tasks, sampling, seed, batch=1)[0])
    print(out)


def checked_model(config: Config, name: str, weights: Path | None, out: Path) -> str:
    """Name of the model of a run or base model; UserError when a run comes without weights, or a base model with some, or when `out`
    lies among the weights, which would no longer be those that were published."""
    model = model_of(config, name)
    if (weights is None) != is_base(name):
        raise UserError(
            f"--run {name}: " + ("give --weights RUN/final" if weights is None else "a base model takes no --weights")
        )
    if weights is not None and out.resolve().is_relative_to(weights.resolve()):
        raise UserError(f"--out {out}: lies in the folder of the weights, {weights}; name another place")
    return model


def load_model(config: Config, model: str, weights: Path | None, device: torch.device) -> Backbone:
    """A model on a device, with the trained weights of a folder or without."""
    backbone = load_backbone(config.models[model], device)
    if weights is not None:
        load_trained(backbone, weights)
    return backbone


def _generate_prompt_set(
    config: Config, backbone: Backbone, prompts: str, tasks: list[ImageTask], seed: int, folder: Path
) -> None:
    evaluation = config.evaluations[prompts]
    sampling = evaluation.sampling[backbone.model.family]
    generate_set(backbone, tasks, sampling, seed, evaluation.batch, folder, lambda line: print(line, flush=True))
