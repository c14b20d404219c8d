"""The micro-batches of an update: (sample, step) pairs, as many in a model call as memory allows and as fill calls up."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import ModelMixin
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from progrpo.config import Run
from progrpo.errors import UserError
from progrpo.grpo.backbone import Backbone

# A call costs about as much besides its rows as this many rows: measured 16 to 20 on a CPU core with the miniature models.
ROWS_OF_A_CALL = 16
BACKWARD = 3  # a forward and backward pass costs three forward passes
MULTIPLE = 8  # of which matrix units like shapes to be


@dataclass(frozen=True)
class Pairs:
    """A micro-batch: samples (B,) and the step (B,) of each; the first `count` are meant, the others fill up to a fixed shape."""

    rows: Tensor
    steps: Tensor
    count: int
    last: bool  # of its update


def micro_batches(start: int, size: int, steps: range, batch: int, device: torch.device) -> Iterator[Pairs]:
    """Every backward pass of an update on the samples from `start` on: all at the first step, at the second, ..., in one shape."""
    total = size * len(steps)
    for first in range(0, total, batch):
        count = min(batch, total - first)
        pair = torch.arange(first, first + batch, device=device).clamp(max=total - 1)
        yield Pairs(start + pair % size, steps.start + pair // size, count, first + count == total)


def cheapest_batch(sampled: Sequence[int], updated: Sequence[int], most: int) -> int:
    """The batch of at most `most` rows, a multiple of 8 where it is larger, for which an iteration costs least; the least of equals.

    sampled, updated: rows that pass forward at each denoising step, and forward and backward in each update. Every call has the
    batch's full number of rows, and so what fills up the last one costs too. ValueError when no row fits.
    """
    if most < 1:
        raise ValueError("not even one row fits")

    def cost(batch: int) -> int:
        calls = sum(-(-rows // batch) for rows in sampled) + BACKWARD * sum(-(-rows // batch) for rows in updated)
        return calls * (batch + ROWS_OF_A_CALL)

    largest = max(*sampled, *updated)
    useful = range(MULTIPLE, min(most, largest + MULTIPLE - 1) + 1, MULTIPLE)
    return min(useful or range(1, most + 1), key=cost)


@contextmanager
def _saved_storages() -> Iterator[dict[int, int]]:
    """{address: bytes} of what is kept for a backward pass while entered, and not by an inner one of these."""
    storages: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        yield storages


def saved_bytes_per_row(forward: Callable[[int], Tensor]) -> int:
    """Bytes that one more row adds to what `forward(rows)` keeps for its backward pass; weights, kept once, do not count."""

    def saved(rows: int) -> int:
        with _saved_storages() as storages:
            output = forward(rows)
        total = sum(storages.values())
        del output  # until here no other tensor could take the place of a counted one
        return total

    return saved(2) - saved(1)


def recomputed_bytes_per_row(denoiser: ModelMixin, forward: Callable[[int], Tensor]) -> int:
    """Bytes that one more row adds to the largest checkpointed block of `forward(rows)`; the backward pass holds one at a time."""
    sizes: list[list[int]] = []

    def measured(block: Callable, *inputs):
        with _saved_storages() as storages:
            output = block(*inputs)
        sizes[-1].append(sum(storages.values()))
        del output  # of one block at a time, as when training
        return checkpoint(block, *inputs, use_reentrant=False)

    denoiser.enable_gradient_checkpointing(measured)
    try:
        for rows in (1, 2):
            sizes.append([])
            with torch.enable_grad():
                forward(rows)
    finally:
        denoiser.enable_gradient_checkpointing()
    return max(two - one for one, two in zip(*sizes, strict=True))


def micro_batch_of(run: Run, backbone: Backbone, ranks: int) -> int:
    """(sample, step) pairs of a pass: as configured, or the cheapest that keep within `speed.memory_gb`; UserError if none does."""
    if run.micro_batch != "auto":
        return run.micro_batch
    settings, empty = run.sampling, backbone.unconditional()

    def forward(rows: int) -> Tensor:
        x = torch.zeros(rows, *backbone.latent_shape, device=backbone.device)
        text = empty.rows(torch.zeros(rows, dtype=torch.long, device=backbone.device))
        both = run.objective.unconditional_gradient
        timestep = backbone.table(settings).timesteps[0]
        return backbone.predict(x, timestep, text, settings.guidance_scale, unconditional_gradient=both)

    per_pair, budget = saved_bytes_per_row(forward), run.speed.memory_gb * 2**30
    if run.gradient_checkpointing:
        per_pair += recomputed_bytes_per_row(backbone.denoiser, forward)
    if per_pair > budget:
        raise UserError(
            f"speed.memory_gb ({run.speed.memory_gb:g}): one sample keeps {per_pair / 2**30:.2g} GB for its backward pass;"
            f" allow more{'' if run.gradient_checkpointing else ', or use gradient_checkpointing'}"
        )
    prompts = run.prompts_per_iteration // ranks
    at_once = run.speed.prompts_at_once or prompts
    parts = [min(at_once, prompts - first) for first in range(0, prompts, at_once)]
    sampled = [part * active for part in parts for active in run.group.active(settings.steps)]
    updated = prompts // run.updates_per_iteration * run.group.survivors * run.trained_steps
    return cheapest_batch(sampled, [updated] * run.updates_per_iteration, int(budget // per_pair))


def check_batches(run: Run, ranks: int) -> None:
    """UserError when prompts and updates do not divide evenly over the ranks."""
    try:
        run.require_divided(ranks)
    except ValueError as error:
        raise UserError(str(error)) from None
