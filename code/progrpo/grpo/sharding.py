"""Weights spread over the ranks of a training (PyTorch's fully sharded data parallelism), and what of them is read or written whole.

A sharded tensor is a `DTensor` of which each rank holds consecutive rows; its block gathers it for the moment of a call. Every
function here takes plain tensors too, and leaves them as they are. What gathers is a collective call: all ranks make it, at one place.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only


def shard(model: nn.Module, device: torch.device, kept: Iterable[Tensor] = ()) -> None:
    """Spread the model's weights over all ranks, in place, but for those `kept` whole; its parameters are other objects then.

    A call gathers the blocks, which diffusers never splits, one after the other, and computes the same bits as before.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    blocks = tuple(getattr(model, "_no_split_modules", None) or ())
    inner = [module for module in model.modules() if module is not model and type(module).__name__ in blocks]
    whole_ones = set(kept)
    for module in (*reversed(inner), model):  # blocks within blocks first
        # By default the outermost part stays gathered after a call, and would not see weights that are changed before the next.
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=whole_ones)  # type: ignore[arg-type]


def own_part(value: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a whole tensor, cut as `like` is; no rank speaks to another."""
    if not isinstance(like, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor, on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor  # type: ignore[attr-defined]


def gathered(tree: Any) -> Any:
    """Containers with every sharded tensor whole, on the first rank in the host's memory; the others help, and get None for it."""

    def gather(tensor: DTensor) -> Tensor | None:
        full = whole(tensor.detach())
        return full.cpu() if dist.get_rank() == 0 else None  # one tensor at a time lies whole on a GPU

    return tree_map_only(DTensor, gather, tree)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Give whole parameters the mean of all ranks' gradients, in one message; those of sharded ones are averaged by their blocks."""
    gradients = [p.grad for p in parameters if p.grad is not None and not isinstance(p, DTensor)]
    if gradients:
        flat = torch.cat([gradient.flatten() for gradient in gradients]).div_(dist.get_world_size())
        dist.all_reduce(flat)
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no number is NaN or infinite, on any rank where a tensor is sharded; tensors may lie on several devices."""
    flags: dict[torch.device, list[Tensor]] = {}
    shard: DTensor | None = None
    for tensor in (each.detach() for each in tensors):
        if isinstance(tensor, DTensor):
            shard = tensor
        part = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        flags.setdefault(part.device, []).append(part.isfinite().all())
    finite = all(bool(torch.stack(each).all()) for each in flags.values())
    if shard is not None:
        everywhere = torch.tensor(int(finite), device=shard.device)
        dist.all_reduce(everywhere, dist.ReduceOp.MIN)
        finite = bool(everywhere)
    return finite
