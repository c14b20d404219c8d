"""From a tier's configuration to a trained run on disk: loads the parts, guards the folder, publishes the final weights."""

import atexit
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from torch import Tensor

from progrpo.config import Config, Run
from progrpo.devices import choose_device, make_deterministic
from progrpo.errors import UserError
from progrpo.files import CANNOT_WRITE, read_json, sha256, write_json, write_text
from progrpo.grpo.backbone import load_backbone
from progrpo.grpo.trainer import Stopped, Trainer
from progrpo.identity import REFUSE, Folder, Start, hash_results, spoilt_file
from progrpo.jobs.ingredients import of_training
from progrpo.jobs.loading import prompts_of, scorer_of
from progrpo.jobs.model_card import model_card
from progrpo.jobs.tracking import Tracking
from progrpo.names import snapshot_folder
from progrpo.provenance import provenance
from progrpo.rewards.registry import WeightedSum

STOPPED_BY_SIGNAL = 143
PEER_ENDED = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
)  # how gloo says that another rank ended
LOST_RANK = "{}: another rank ended without a word, as one that is killed does; what is saved is whole, and the same command goes on"
SHARDING = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM")
OWNS = (
    "state",
    "final",
    "final.incoming",
    "snapshots",
    "published.json",
    "metrics.jsonl",
    "timings.jsonl",
    "tensorboard",
    "wandb",
)  # what a training writes


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
    _refuse_sharding()
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
                return _leave(ranks.several, 0)
            return _train(config, name, seed, out, device)
        finally:
            folder.release()


def _refuse_sharding() -> None:
    """UserError under a launcher that would shard the model in its own way."""
    asked = [name for name in SHARDING if os.environ.get(name, "false").lower() in ("true", "1", "yes", "on")]
    if asked:
        raise UserError(
            f"{asked[0]}: a training shards its own weights and no launcher does; unset it, and set speed.shard: true in the run"
        )


def is_complete(folder: Folder, run: Run, identity: dict[str, Any], start: Start) -> bool:
    """Claim the folder for this training; whether it holds its weights, whole."""
    folder.claim(identity, start)
    final = folder.path / "final"
    if not final.is_dir() or not any(final.iterdir()):  # Snakemake makes the folder of an output before the job begins
        return False
    if spoilt := spoilt_file(final) or _spoilt_record(folder.path):
        print(f"{spoilt}; going on from the last state to publish again", flush=True)
        return False
    print(f"{folder.path}: already trained, {run.iterations} iterations; delete the folder to train anew")
    return True


def _spoilt_record(out: Path) -> str | None:
    """What is wrong with the metrics or the provenance of trained weights; None when they are as `publish` left them."""
    record = out / "published.json"
    if not record.is_file():
        return None
    try:
        published = read_json(record)
    except UserError as error:
        return str(error)
    found = _records(out, out / "final")
    return None if published == found else f"{out}: metrics.jsonl or provenance.json is not the one that was published"


def _records(out: Path, final: Path) -> dict[str, str | None]:
    """SHA-256 of what a training leaves beside its weights, None for what is gone; times, which differ each time, are left out."""
    files = {"metrics.jsonl": out / "metrics.jsonl", "provenance.json": final / "provenance.json"}
    return {name: sha256(path) if path.is_file() else None for name, path in files.items()}


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
        return _leave(trainer.accelerator.num_processes > 1, STOPPED_BY_SIGNAL)
    publish(trainer, run, seed, out)
    if trainer.accelerator.is_main_process:
        print(f"{out}: trained {run.iterations} iterations; weights in {out / 'final'}", flush=True)
    trainer.accelerator.wait_for_everyone()
    return _leave(trainer.accelerator.num_processes > 1, 0)


class Ranks:
    """The processes of one training: the first alone locks and looks at the folder, and all follow what it found.

    `told` is a file that a rank makes before it says why the training ends, so that the others need not.
    """

    def __init__(self, device: torch.device, told: Path):
        self.told = told
        self.several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        self.state = PartialState(cpu=device.type == "cpu") if self.several else None

    @contextmanager
    def failing_once(self) -> Iterator[None]:
        """While entered, what fails on one of several ranks, or on all, is told by one of them, and none waits for another."""
        try:
            yield
        except UserError:
            if self.several:
                if not self._is_first_to_tell():
                    os._exit(2)
                atexit.register(os._exit, 2)  # once its line is told: see `_leave`
            raise
        except RuntimeError as error:
            if not (self.several and any(sign in str(error) for sign in PEER_ENDED)):
                raise
            if self._is_first_to_tell():
                print(LOST_RANK.format(self.told.parent), file=sys.stderr, flush=True)
            os._exit(2)

    def _is_first_to_tell(self) -> bool:
        """Whether no rank has said yet why the training ends; the folder is common to all, on several nodes too."""
        try:
            self.told.touch(exist_ok=False)
        except FileExistsError:
            return False
        except OSError:  # a full disk; a line too many is better than none
            return True
        return True

    def first(self, decide: Callable[[], Any]) -> Any:
        """What `decide` returns on the first rank, on every rank; its UserError ends all, with one line."""
        if self.state is None:
            return decide()
        answer, error = None, None
        if self.state.is_main_process:
            try:
                answer = decide()
            except UserError as raised:
                error = raised
        told = [answer, error is not None]
        broadcast_object_list(told, from_process=0)
        if error:
            raise error
        if told[1]:
            os._exit(2)  # the first rank says why
        return told[0]

    def enter(self, folder: Folder, wait: bool) -> None:
        """Lock the folder on the first rank, for all; UserError names its holder, unless `wait`: then when that has ended.

        Ranks that wait speak to each other every minute, so that none runs into the process group's time limit.
        """
        holder = self.first(lambda: folder.lock(0))
        if holder and not wait:
            self.first(lambda: _refuse(holder))
        if holder and (self.state is None or self.state.is_main_process):
            print(f"{holder}; waiting for it", flush=True)
        while holder:
            holder = self.first(lambda: folder.lock(60))
        self.first(lambda: self.told.unlink(missing_ok=True))  # of an earlier start


def _refuse(holder: str) -> NoReturn:
    raise UserError(holder)


def _leave(several: bool, status: int) -> int:
    """The status of a training alone; one of several ranks ends here, without freeing its process group.

    Freeing it can wait for ever: gloo's thread frees gathered tensors under the group's lock and needs the interpreter for it, which
    the main thread holds while it waits for that lock (torch 2.13).
    """
    if several:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def load_reward(config: Config, run: Run, device) -> WeightedSum:
    """The run's weighted sum of scorers on the device."""
    return WeightedSum({name: scorer_of(config.scorers[name], device) for name in run.reward}, run.reward)


def publish(trainer: Trainer, run: Run, seed: int, out: Path) -> None:
    """Write `final/`, and beside it the record of what a training leaves there; the trainer then holds the published weights.

    For every rank to call; the first writes.
    """
    trainer.load_average()
    weights = trainer.tuning.weights()
    if trainer.accelerator.is_main_process:
        if run.ema and not trainer.moved_average:
            print(
                f"{out}: fewer updates than ema.every ({run.ema.every}): no average yet, the last weights are published"
            )
        incoming = _write_weights(trainer, weights, run, seed, out / "final")
        write_json(out / "published.json", _records(out, incoming))
        incoming.rename(out / "final")


def publish_snapshot(trainer: Trainer, run: Run, seed: int, out: Path) -> None:
    """Write `snapshots/<iteration>/` as `final/` would be; on every rank, and none goes on before it is there."""
    folder = snapshot_folder(out, trainer.iteration)
    average = trainer.moved_average
    with average.in_place_of(trainer.tuning.parameters) if average else nullcontext():
        weights = trainer.tuning.weights()
        if trainer.accelerator.is_main_process and spoilt_file(folder):
            _write_weights(trainer, weights, run, seed, folder).rename(folder)
    trainer.accelerator.wait_for_everyone()


def _write_weights(trainer: Trainer, weights: dict[str, Tensor], run: Run, seed: int, folder: Path) -> Path:
    """The trained weights, whole, in a folder that one rename puts in the place of `folder`, which is removed."""
    incoming = folder.with_name(folder.name + ".incoming")
    shutil.rmtree(incoming, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        trainer.tuning.save(incoming, weights)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{incoming}: {CANNOT_WRITE.format(error)}") from error
    for file in incoming.rglob("*.safetensors"):
        file.chmod(0o644)  # safetensors writes files that only their owner can read
    backbone = trainer.tuning.backbone
    part = (backbone.denoiser_name, trainer.tuning.kind.__name__)
    card = model_card(run, backbone.model, seed, trainer.reward.name, *part)
    write_text(incoming / "README.md", card)
    write_json(
        incoming / "provenance.json", {**provenance(run, seed, backbone.device), "files": hash_results(incoming)}
    )
    return incoming
