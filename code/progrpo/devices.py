"""Which device, how many threads, and what the names of precisions mean."""

import os

import torch

from progrpo.errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}  # config.Precision


def choose_device(name: str) -> torch.device:
    """`auto` is this rank's GPU when there is one, else the CPU. UserError for a device that this machine lacks.

    On a CPU a process keeps to OMP_NUM_THREADS threads, by default one: small models gain nothing from more, and results then do
    not depend on the number of cores.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: unknown; use cpu, cuda or auto") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"--device {name}: no GPU here; use cpu or auto")
        if device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    elif device.type == "cpu":
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    else:
        raise UserError(f"--device {name}: not supported; use cpu, cuda or auto")
    return device
