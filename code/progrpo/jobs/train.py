"""From a tier's configuration to a trained run on disk: guards the folder, loads the parts, trains, publishes."""

import os
from pathlib import Path

import torch

from progrpo.config import Config, Run
from progrpo.devices import choose_device, make_deterministic
from progrpo.errors import UserError
from progrpo.grpo.backbone import load_backbone
from progrpo.grpo.trainer import Stopped, Trainer
from progrpo.identity import REFUSE, Folder, Start
from progrpo.jobs.ingredients import of_training
from progrpo.jobs.loading import prompts_of, scorer_of
from progrpo.jobs.publication import OWNS, is_complete, publish, publish_snapshot
from progrpo.jobs.ranks import Ranks, leave
from progrpo.jobs.tracking import Tracking
from progrpo.rewards.registry import WeightedSum

STOPPED_BY_SIGNAL = 143
COMPILING = "ACCELERATE_DYNAMO_BACKEND"
# By which Accelerate looks for other processes.
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
SHARDING = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM")


def train_run(
    config: Config,
    name: str,
    seed: int,
    out: Path,
    device_name: str,
    start: Start = REFUSE,
) -> int:
    """Train a run into `out`; 0 when complete, 143 when a signal stopped it. UserError for anything the user can mend."""
    run, model = config.get_run(name), config.models[config.get_run(name).model]
    _refuse_environment()
    if run.speed.deterministic:
        make_deterministic()
    device = choose_device(device_name)
    if device.type == "cpu" and model.precision == "fp16":
        raise UserError(f"models.{run.model}.precision: fp16 training needs a GPU; use fp32 or bf16 on a CPU")
    if run.speed.shard and model.precision == "fp16":
        raise UserError(
            f"models.{run.model}.precision: fp16 gradients are not scaled where weights are sharded; use bf16"
        )
    ranks = Ranks(device, out / "told")
    with ranks.failing_once():
        folder = Folder(out, OWNS)
        identity = ranks.first(lambda: of_training(config, name, seed))  # before anything is written
        ranks.enter(folder, start.wait_for_lock)
        try:
            if ranks.first(lambda: is_complete(folder, run, identity, start)):
                return leave(ranks.several, 0)
            return _train(config, name, seed, out, device)
        finally:
            folder.release()


def _refuse_environment() -> None:
    """UserError under a launcher that would shard or compile the model in its own way, or whose group of processes has no address."""
    asked = [name for name in SHARDING if os.environ.get(name, "false").lower() in ("true", "1", "yes", "on")]
    if asked:
        raise UserError(
            f"{asked[0]}: a training shards its own weights and no launcher does; unset it, and set speed.shard: true in the run"
        )
    if os.environ.get(COMPILING, "no").lower() not in ("no", ""):
        raise UserError(f"{COMPILING}: unset it; what a training compiles is set in the run: speed.compile: true")
    sizes = {name: os.environ.get(name, "1") for name in SIZES}
    for name, size in sizes.items():
        if not size.isdecimal() or int(size) < 1:
            raise UserError(f"{name}={size}: must be a number of processes; start with torchrun, or unset it")
    alone = os.environ.get("LOCAL_RANK", "-1") == "-1"
    asked = [name for name, size in sizes.items() if int(size) > 1] + ([] if alone else ["LOCAL_RANK"])
    if asked and "MASTER_ADDR" not in os.environ:
        raise UserError(f"{asked[0]}: set without MASTER_ADDR, which a launcher sets; start with torchrun, or unset it")


def _train(config: Config, name: str, seed: int, out: Path, device: torch.device) -> int:
    run = config.get_run(name)
    tracking = Tracking(config.tracking, name, run, seed, out)  # before anything is loaded: it may lack a package
    prompts = [record.prompt for record in prompts_of(config.prompt_sets[run.prompts])]
    backbone = load_backbone(config.models[run.model], device, train_all_weights=run.lora is None)
    trainer = Trainer(run, seed, backbone, load_reward(config, run, device), prompts, out)
    try:
        with tracking:
            trainer.train(lambda: publish_snapshot(trainer, run, seed, out), tracking.log)
    except Stopped:
        print(f"{out}: stopped in iteration {trainer.iteration + 1}; the same command goes on", flush=True)
        return leave(trainer.accelerator.num_processes > 1, STOPPED_BY_SIGNAL)
    publish(trainer, run, seed, out)
    if trainer.accelerator.is_main_process:
        print(f"{out}: trained {run.iterations} iterations; weights in {out / 'final'}", flush=True)
    trainer.accelerator.wait_for_everyone()
    return leave(trainer.accelerator.num_processes > 1, 0)


def load_reward(config: Config, run: Run, device) -> WeightedSum:
    """The run's weighted sum of scorers on the device."""
    return WeightedSum({name: scorer_of(config.scorers[name], device) for name in run.reward}, run.reward)
