"""A run's held-out scores at its snapshots: one array over iterations, scorers, prompts and images; no image goes to the disk."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from progrpo.config import Config, Evaluation
from progrpo.devices import choose_device
from progrpo.errors import UserError
from progrpo.files import write_atomic
from progrpo.grpo.backbone import Backbone
from progrpo.identity import REFUSE, Folder, Start
from progrpo.jobs.evaluate import Tools
from progrpo.jobs.generate import checked_model, load_model
from progrpo.jobs.image_folder import ImageTask, image_tasks
from progrpo.jobs.images import sample_images
from progrpo.jobs.ingredients import of_learning_curve, trained_weights
from progrpo.jobs.loading import prompts_of
from progrpo.names import seed_folder, snapshot_folder
from progrpo.provenance import provenance, require_training_of
from progrpo.rewards.preprocess import quantise


def learning_curve(
    config: Config, name: str, seed: int, weights: Path | None, out: Path, device_name: str, start: Start = REFUSE
) -> None:
    """Score a run's snapshots and its `final/` (the folder `weights`), or a base model (None), on the learning curve's prompts.

    Writes `out/<name>-seed<seed>.npz`: iterations (I,), 0 for a base model; scorers (S,) and prompts (P,), text; scores
    (I, S, P, J) float32 of J images per prompt; provenance, JSON text. The noise of an image follows from (seed, prompt, image): runs
    and base model of one seed share it. UserError: a tier without learning curves; weights that are not those that were published, or
    of another seed or other settings.
    """
    evaluation, model, stem = _evaluation(config), checked_model(config, name, weights, out), seed_folder(name, seed)
    stages = _stages(config, name, weights)
    folder, target = Folder(out, (f"{stem}.npz",), prefix=f"{stem}."), out / f"{stem}.npz"
    with folder.held(start.wait_for_lock):
        published = {str(n): stage and trained_weights(stage) for n, stage in stages.items()}
        for trained in filter(None, stages.values()):
            require_training_of(trained, config.get_run(name), seed)
        folder.claim(of_learning_curve(config, model, seed, published), start)
        if target.is_file():
            print(f"{target}: already there")
            return
        curve, scores = _Curve(config, evaluation, model, seed, choose_device(device_name)), []
        for iteration, stage in stages.items():
            scores.append(curve.scores(stage))
            means = zip(evaluation.scorers, scores[-1].mean((1, 2)), strict=True)
            print(f"{target}: iteration {iteration} " + ", ".join(f"{s} {mean:.4f}" for s, mean in means), flush=True)
        record = json.dumps(provenance(config.runs.get(name, evaluation), seed, curve.device))
        write_atomic(
            target,
            lambda file: np.savez_compressed(
                file,
                iterations=np.array([*stages]),
                scorers=np.array(evaluation.scorers),
                prompts=np.array(curve.prompts),
                scores=np.stack(scores),
                provenance=np.array(record),
            ),
        )


def _evaluation(config: Config) -> Evaluation:
    if config.learning_curve is None:
        raise UserError(f"learning_curve: tier {config.tier} names none of its evaluations as its learning curve")
    return config.evaluations[config.learning_curve]


def _stages(config: Config, name: str, weights: Path | None) -> dict[int, Path | None]:
    """{iteration: weights} in order; a base model is its own iteration 0."""
    if weights is None:
        return {0: None}
    run = config.get_run(name)
    return {**{n: snapshot_folder(weights.parent, n) for n in run.snapshots}, run.iterations: weights}


class _Curve:
    """The prompts, scorers and noise that all stages of a curve share."""

    def __init__(self, config: Config, evaluation: Evaluation, model: str, seed: int, device: torch.device):
        self.config, self.evaluation, self.model, self.seed, self.device = config, evaluation, model, seed, device
        settings = config.prompt_sets[str(config.learning_curve)]
        records = prompts_of(settings)
        self.prompts = [record.prompt for record in records]
        self.tasks, self.shape = image_tasks(records, settings), (len(records), settings.images_per_prompt)
        self.tools = Tools(config, device)

    def scores(self, stage: Path | None) -> np.ndarray:
        """Scores (S, P, J) float32 of the images of the weights in a folder, or of the base model."""
        backbone = load_model(self.config, self.model, stage, self.device)
        parts = [self._score(tasks, images) for tasks, images in self._images(backbone)]
        return torch.cat(parts, 1).reshape(-1, *self.shape).numpy()

    def _images(self, backbone: Backbone) -> Iterator[tuple[list[ImageTask], Tensor]]:
        sampling, batch = self.evaluation.sampling[backbone.model.family], self.evaluation.batch
        table = backbone.table(sampling)
        for start in range(0, len(self.tasks), batch):
            tasks = self.tasks[start : start + batch]
            images = sample_images(backbone, table, tasks, sampling, self.seed, batch)
            yield tasks, quantise(images).cpu().float() / 255

    def _score(self, tasks: list[ImageTask], images: Tensor) -> Tensor:
        prompts = [task.record.prompt for task in tasks]
        return torch.stack([self.tools.scorer(s).score(images, prompts).cpu().float() for s in self.evaluation.scorers])
