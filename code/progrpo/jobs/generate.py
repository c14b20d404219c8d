"""From a tier's configuration to the images of a model on disk."""

import progrpo.torchvision_schemas  # noqa: F401, I001  (before transformers)
from contextlib import ExitStack
from pathlib import Path

from progrpo.config import Config
from progrpo.devices import choose_device
from progrpo.errors import UserError
from progrpo.grpo.backbone import Backbone, load_backbone
from progrpo.grpo.tuning import load_trained
from progrpo.identity import REFUSE, Folder, Start
from progrpo.jobs.images import generate_set, image_tasks
from progrpo.jobs.ingredients import of_images
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
    model = model_of(config, name)
    if (weights is None) != is_base(name):
        raise UserError(
            f"--run {name}: " + ("give --weights RUN/final" if weights is None else "a base model takes no --weights")
        )
    chosen = sets or prompt_sets_of(config, name)
    require_sets(config, chosen)
    identities = {prompts: of_images(config, model, prompts, seed, weights) for prompts in chosen}
    with ExitStack() as held:
        for prompts, identity in identities.items():
            folder = Folder(out / prompts, ("*",))
            held.enter_context(folder.held(start.wait_for_lock))
            folder.claim(identity, start)
        backbone = load_backbone(config.models[model], choose_device(device_name))
        if weights is not None:
            load_trained(backbone, weights)
        for prompts in chosen:
            _generate_prompt_set(config, backbone, prompts, seed, out / prompts)


def _generate_prompt_set(config: Config, backbone: Backbone, prompts: str, seed: int, folder: Path) -> None:
    settings, evaluation = config.prompt_sets[prompts], config.evaluations[prompts]
    tasks = image_tasks(prompts_of(settings), settings)
    sampling = evaluation.sampling[backbone.model.family]
    generate_set(backbone, tasks, sampling, seed, evaluation.batch, folder, lambda line: print(line, flush=True))
