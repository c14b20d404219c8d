"""A training of a loaded pipeline with a reward function: no configuration file, the same folder in the end."""

import hashlib
import inspect
import json
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from progrpo.config import Run
from progrpo.errors import UserError
from progrpo.files import write_text
from progrpo.grpo.backbone import Backbone
from progrpo.grpo.trainer import Trainer
from progrpo.grpo.tuning import peft_adapters
from progrpo.identity import REFUSE, Folder
from progrpo.jobs.publication import OWNS, is_complete, publish, publish_snapshot
from progrpo.pieces.callers_state import apart_from_the_caller
from progrpo.pieces.function_scorer import FunctionScorer, RewardFunction
from progrpo.pieces.pruned_sampling import require_prompts_and_seed, taken_apart
from progrpo.provenance import decisive

WEIGHTS = "pipeline.sha256"  # of the denoiser that a training was begun with


def train_pipeline(
    pipeline: DiffusionPipeline, reward: RewardFunction, prompts: list[str], run: Run, out: Path | str, seed: int = 0
) -> Path:
    """Train a pipeline, just loaded, by GRPO on a reward as in `sample_pruned`; the folder `final/` of the trained weights in `out`.

    The pipeline itself holds them too, when it was trained to the end in this call. `run` has the settings; its model, prompts and
    reward are not read, nor its text cache and `deterministic`. In one process; a stopped training (`Stopped`) goes on with the same
    call, of a pipeline loaded anew. UserError: a pipeline, prompts or a seed that `sample_pruned` refuses; a pipeline that holds
    adapters, or in fp16 on a CPU; a folder begun with other settings, prompts or seed, another pipeline or reward function (by its
    name and, where Python has it, its source), or, where its training is not finished, with other weights.
    """
    seed = require_prompts_and_seed(prompts, seed)
    folder = Folder(Path(out), (*OWNS, WEIGHTS))
    speed = run.speed.model_copy(update={"text_cache": None})  # it would empty the pipeline
    run = run.model_copy(update={"speed": speed})
    trained = False
    with taken_apart(pipeline) as backbone, apart_from_the_caller(backbone.device):
        _require_precision(run, backbone)
        scorer = FunctionScorer(reward, backbone.device)
        with folder.held(wait=False):
            if not is_complete(
                folder, run, _identity(run, seed, backbone, _known(reward, scorer.name), prompts), REFUSE
            ):
                _require_untrained(backbone, folder.path / WEIGHTS)
                _train(run, seed, backbone, scorer, prompts, folder.path)
                trained = True
    if trained:
        pipeline.vae.float()  # the denoiser now returns float32, whatever it computes in
    return folder.path / "final"


def _train(run: Run, seed: int, backbone: Backbone, scorer: FunctionScorer, prompts: list[str], out: Path) -> None:
    """Train and publish; whatever happens, the denoiser's layers are then the libraries' own again."""
    recomputed = backbone.denoiser.is_gradient_checkpointing
    try:
        trainer = Trainer(run, seed, backbone, scorer, prompts, out)
        trainer.train(lambda: publish_snapshot(trainer, run, seed, out))
        publish(trainer, run, seed, out)
    finally:
        peft_adapters(backbone.denoiser)
        if run.gradient_checkpointing and not recomputed:
            backbone.denoiser.disable_gradient_checkpointing()


def _require_precision(run: Run, backbone: Backbone) -> None:
    if run.lora is None and backbone.dtype != torch.float32:
        raise UserError("a pipeline whose weights are all trained must be loaded in float32; or give the run a `lora`")
    if backbone.dtype == torch.float16 and backbone.device.type == "cpu":
        raise UserError("fp16 training needs a GPU; load the pipeline in float32 or bfloat16")


def _require_untrained(backbone: Backbone, record: Path) -> None:
    """UserError where the denoiser carries adapters, which a training would switch off, or write weights that nothing loads; or where
    it is not the one that the training in this folder was begun with, as a half-trained one is not."""
    again = "load the pipeline anew"
    names = {name for module in backbone.denoiser.modules() if isinstance(module, BaseTunerLayer) for name in module.r}
    if names:
        fuse = "" if record.is_file() else "fuse them (`fuse_lora()`, then `unload_lora_weights()`), or "
        raise UserError(f"the pipeline holds adapters ({', '.join(sorted(names))}); {fuse}{again}")
    found = weights_hash(backbone.denoiser)
    if record.is_file() and record.read_text() != found:
        raise UserError(
            f"{record}: the pipeline's {backbone.denoiser_name} is not the one that this training was begun with, as one that was"
            f" trained is not; {again}, or choose another folder"
        )
    write_text(record, found)


def weights_hash(network: nn.Module) -> str:
    """SHA-256 of a network's parameters, their names, types and bytes."""
    digest = hashlib.sha256()
    for name, value in network.named_parameters():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _known(reward: RewardFunction, name: str) -> str:
    """What tells a reward from another: its name, and a hash of its source where Python has one (none of an object or in a shell)."""
    try:
        return f"{name} {hashlib.sha256(inspect.getsource(reward).encode()).hexdigest()[:16]}"
    except (OSError, TypeError):
        return name


def _identity(run: Run, seed: int, backbone: Backbone, reward: str, prompts: list[str]) -> dict:
    return {
        **decisive(run),
        "seed": seed,
        "pipeline": backbone.model.model_dump(mode="json"),
        "prompts": hashlib.sha256(json.dumps(prompts).encode()).hexdigest(),
        "reward": reward,  # in the place of the run's, whose scorers are not read
    }
