"""A training of a loaded pipeline with a reward function: no configuration file, the same folder in the end."""

import hashlib
import json
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from peft.tuners.tuners_utils import BaseTunerLayer

from progrpo.config import Run
from progrpo.errors import UserError
from progrpo.grpo.backbone import Backbone
from progrpo.grpo.trainer import Trainer
from progrpo.identity import REFUSE, Folder
from progrpo.jobs.publication import OWNS, is_complete, publish
from progrpo.pieces.function_scorer import FunctionScorer, RewardFunction
from progrpo.pieces.pruned_sampling import require_prompts_and_seed, taken_apart
from progrpo.provenance import decisive


def train_pipeline(
    pipeline: DiffusionPipeline, reward: RewardFunction, prompts: list[str], run: Run, out: Path | str, seed: int = 0
) -> Path:
    """Train a pipeline, just loaded, by GRPO on a reward as in `sample_pruned`; the folder `final/` of the trained weights in `out`.

    The pipeline itself holds them too, when it was trained to the end in this call. `run` has the settings; its model, prompts and
    reward are not read, nor its text cache and `deterministic`. In one process; a stopped training (`Stopped`) goes on with the same
    call, of a pipeline loaded anew. UserError: a pipeline, prompts or a seed that `sample_pruned` refuses; a pipeline that holds
    adapters; a folder begun with other settings, prompts or seed, or another name of reward or pipeline.
    """
    require_prompts_and_seed(prompts, seed)
    folder = Folder(Path(out), OWNS)
    speed = run.speed.model_copy(update={"text_cache": None})  # it would empty the pipeline
    run = run.model_copy(update={"speed": speed})
    trained = False
    with taken_apart(pipeline) as backbone:
        if run.lora is None and backbone.dtype != torch.float32:
            raise UserError(
                "a pipeline whose weights are all trained must be loaded in float32; or give the run a `lora`"
            )
        scorer = FunctionScorer(reward, backbone.device)
        with folder.held(wait=False):
            if not is_complete(folder, run, _identity(run, seed, backbone, scorer.name, prompts), REFUSE):
                _require_no_adapters(backbone)
                trainer = Trainer(run, seed, backbone, scorer, prompts, folder.path)
                trainer.train()
                publish(trainer, run, seed, folder.path)
                trained = True
    if trained:
        pipeline.vae.float()  # the denoiser now returns float32, whatever it computes in
    return folder.path / "final"


def _require_no_adapters(backbone: Backbone) -> None:
    """UserError where the denoiser carries adapters: a training would switch them off, or write weights that nothing loads."""
    names = {name for module in backbone.denoiser.modules() if isinstance(module, BaseTunerLayer) for name in module.r}
    if names:
        raise UserError(
            f"the pipeline holds adapters ({', '.join(sorted(names))}); fuse them (`fuse_lora()`, then `unload_lora_weights()`),"
            " or load the pipeline anew"
        )


def _identity(run: Run, seed: int, backbone: Backbone, reward: str, prompts: list[str]) -> dict:
    return {
        **decisive(run),
        "seed": seed,
        "pipeline": backbone.model.model_dump(mode="json"),
        "prompts": hashlib.sha256(json.dumps(prompts).encode()).hexdigest(),
        "reward": reward,  # in the place of the run's, whose scorers are not read
    }
