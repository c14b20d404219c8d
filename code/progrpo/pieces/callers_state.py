"""What a training in somebody's process changes beside the pipeline, and what it must not depend on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

SHARED = (PartialState, AcceleratorState, GradientState)  # one dict for all of a kind, in a process


@contextmanager
def apart_from_the_caller(device: torch.device) -> Iterator[None]:
    """While entered, gradients are recorded and nothing is rounded, whatever context the caller is in.

    Afterwards the random generators and Accelerate's state of the process are what they were before. An outer autocast would keep the
    weights as they are when it first casts them, so that a policy never moved.
    """
    before = [dict(kind._shared_state) for kind in SHARED]
    generators = [device] if device.type == "cuda" else []
    try:
        with (
            torch.random.fork_rng(generators),
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(device.type, enabled=False),
        ):
            yield
    finally:
        for kind, state in zip(SHARED, before, strict=True):
            kind._shared_state.clear()
            kind._shared_state.update(state)
