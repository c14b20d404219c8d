"""How many rows a model call should have: as many as memory allows, as few as fill up calls that are not full."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# A call costs about as much besides its rows as this many rows: measured 16 to 20 on a CPU core with the miniature models.
ROWS_OF_A_CALL = 16
BACKWARD = 3  # a forward and backward pass costs three forward passes
MULTIPLE = 8  # of which matrix units like shapes to be


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


def saved_bytes_per_row(forward: Callable[[int], Tensor]) -> int:
    """Bytes that one more row adds to what `forward(rows)` keeps for its backward pass; weights, kept once, do not count."""

    def saved(rows: int) -> int:
        storages: dict[int, int] = {}

        def count(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            output = forward(rows)
        total = sum(storages.values())
        del output  # until here no other tensor could take the place of a counted one
        return total

    return saved(2) - saved(1)
