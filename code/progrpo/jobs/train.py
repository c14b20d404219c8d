"""From a tier's configuration to a trained run on disk: loads the parts, guards the folder, publishes the final weights."""

import os
import shutil
import sys
from pathlib import Path

from safetensors import SafetensorError

from progrpo.config import Config, Hardware, Run, Speed
from progrpo.devices import choose_device
from progrpo.errors import UserError
from progrpo.files import CANNOT_WRITE, read_json, write_json
from progrpo.grpo.backbone import load_backbone
from progrpo.grpo.trainer import Stopped, Trainer
from progrpo.jobs.loading import prompts_of, scorer_of
from progrpo.provenance import config_hash, provenance
from progrpo.rewards.registry import WeightedSum

STOPPED_BY_SIGNAL = 143


def train_run(config: Config, name: str, seed: int, out: Path, device_name: str) -> int:
    """Train a run into `out`; 0 when complete, 143 when a signal stopped it. UserError for anything the user can mend."""
    run = config.get_run(name)
    if (out / "final" / "provenance.json").is_file():
        _check_folder(run, seed, out)
        print(f"{out}: already trained, {run.iterations} iterations; delete the folder to train anew")
        return 0
    device = choose_device(device_name)
    model = config.models[run.model]
    if device.type == "cpu" and model.precision == "fp16":
        raise UserError(f"models.{run.model}.precision: fp16 training needs a GPU; use fp32 or bf16 on a CPU")
    prompts = [record.prompt for record in prompts_of(config.prompt_sets[run.prompts])]
    backbone = load_backbone(model, device, train_all_weights=run.lora is None)
    trainer = Trainer(run, seed, backbone, load_reward(config, run, device), prompts, out)
    if trainer.accelerator.is_main_process:
        _check_folder(run, seed, out)
    trainer.accelerator.wait_for_everyone()
    try:
        trainer.train()
    except Stopped:
        print(f"{out}: stopped in iteration {trainer.iteration + 1}; the same command goes on", flush=True)
        return _leave(trainer, STOPPED_BY_SIGNAL)
    if trainer.accelerator.is_main_process:
        _publish(trainer, run, seed, out)
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    return _leave(trainer, 0)


def _leave(trainer: Trainer, status: int) -> int:
    """The status of a training alone; one of several ranks ends here, without freeing its process group.

    Freeing it can wait for ever: gloo's thread frees gathered tensors under the group's lock and needs the interpreter for it, which
    the main thread holds while it waits for that lock (torch 2.13).
    """
    if trainer.accelerator.num_processes > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def load_reward(config: Config, run: Run, device) -> WeightedSum:
    """The run's weighted sum of scorers on the device."""
    return WeightedSum({name: scorer_of(config.scorers[name], device) for name in run.reward}, run.reward)


def _identity(run: Run, seed: int) -> dict:
    """What must not change between two starts in one folder: everything but hardware, speed and how often states are saved."""
    return {
        "config": config_hash(run.model_copy(update={"hardware": Hardware(), "speed": Speed(), "save_every": 1})),
        "seed": seed,
    }


def _check_folder(run: Run, seed: int, out: Path) -> None:
    """UserError when the folder belongs to another configuration or seed; otherwise mark it as this run's."""
    marker = out / "run.json"
    if not marker.is_file():
        write_json(marker, _identity(run, seed))
    elif read_json(marker) != _identity(run, seed):
        raise UserError(
            f"{out}: holds a training with another configuration or seed; choose another --out or delete it"
        )


def _publish(trainer: Trainer, run: Run, seed: int, out: Path) -> None:
    """Write `final/` whole: into a temporary folder first, then by one rename."""
    incoming, final = out / "final.incoming", out / "final"
    shutil.rmtree(incoming, ignore_errors=True)
    shutil.rmtree(final, ignore_errors=True)
    trainer.load_average()
    try:
        trainer.tuning.save(incoming)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{incoming}: {CANNOT_WRITE.format(error)}") from error
    for file in incoming.rglob("*.safetensors"):
        file.chmod(0o644)  # safetensors writes files that only their owner can read
    write_json(incoming / "provenance.json", provenance(run, seed))
    incoming.rename(final)
    print(f"{out}: trained {run.iterations} iterations; weights in {final}", flush=True)
