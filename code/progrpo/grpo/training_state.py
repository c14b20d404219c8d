"""What a resumed training needs of a trainer, in plain containers; written whole, however the weights are spread over ranks."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from progrpo.errors import UserError
from progrpo.grpo.sharding import own_part
from progrpo.grpo.tuning import copy_into

if TYPE_CHECKING:
    from progrpo.grpo.trainer import Trainer


KERNELS = ("fused", "foreach")  # of AdamW: how it computes, which a resumed training may have changed


def state_of(trainer: "Trainer") -> dict[str, Any]:
    """The trainer's state after its last iteration, with its own tensors, sharded ones among them."""
    scaler = getattr(trainer.accelerator, "scaler", None)
    return {
        "parameters": [p.detach() for p in trainer.tuning.parameters],
        "average": trainer.average.values if trainer.average else None,
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": scaler.state_dict() if scaler else None,
        "updates": trainer.updates,
        "rescoring": trainer.rescoring,
        "metrics": trainer.metrics,
        "timings": trainer.timings,
    }


def latest_of_all(trainer: "Trainer") -> tuple[int, dict[str, Any]] | None:
    """(iteration, state) of the newest state on disk, the same on every rank; None where there is none.

    UserError where ranks found different ones, as on a shared disk that shows a node an old listing for a while.
    """
    found = trainer.store.load_latest()
    iteration = torch.tensor([found[0] if found else -1], device=trainer.backbone.device)
    seen = sorted({*trainer.accelerator.gather(iteration).tolist()})
    if len(seen) > 1:
        said = ", ".join(map(str, seen))
        raise UserError(f"{trainer.store.folder}: ranks found the states of different iterations ({said}); start again")
    return found


@torch.no_grad()
def put_back(trainer: "Trainer", iteration: int, state: dict[str, Any]) -> None:
    """Give the trainer the state that it, or one on another number of ranks, had after `iteration` iterations."""
    trainer.iteration = trainer.saved_iteration = iteration
    trainer.updates, trainer.rescoring = state["updates"], state["rescoring"]
    trainer.metrics, trainer.timings = state["metrics"], state["timings"]
    parameters = trainer.tuning.parameters
    copy_into(parameters, state["parameters"])
    if trainer.average:
        copy_into(trainer.average.values, state["average"])
    groups = zip(state["optimizer"]["param_groups"], trainer.optimizer.param_groups, strict=True)
    kernels = [saved | {flag: own[flag] for flag in KERNELS} for saved, own in groups]
    trainer.optimizer.load_state_dict(_spread(state["optimizer"] | {"param_groups": kernels}, parameters))
    if state["scaler"]:
        trainer.accelerator.scaler.load_state_dict(state["scaler"])


def _spread(optimizer: dict[str, Any], parameters: list[Tensor]) -> dict[str, Any]:
    """The optimizer's state with this rank's parts of the moments of sharded parameters."""

    def part(value: Any, parameter: Tensor) -> Any:
        return own_part(value, parameter) if isinstance(value, Tensor) and value.shape == parameter.shape else value

    moments = {
        k: {name: part(value, parameters[k]) for name, value in each.items()} for k, each in optimizer["state"].items()
    }
    return {**optimizer, "state": moments}
