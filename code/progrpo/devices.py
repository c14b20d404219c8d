"""Which device, how many threads, and what the names of precisions mean."""

import os

import torch

from progrpo.errors import UserError

WORKSPACE, FIXED_WORKSPACES = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")  # in which cuBLAS sums in a fixed order
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}  # config.Precision


def make_deterministic() -> None:
    """From now on every kernel gives equal bits for equal inputs, or raises; call it before anything uses the GPU.

    UserError when a GPU is in use already: cuBLAS then has its workspace, and reads no setting any more.
    """
    if torch.cuda.is_initialized() and os.environ.get(WORKSPACE) not in FIXED_WORKSPACES:
        raise UserError(
            f"speed.deterministic: the GPU is in use already; set {WORKSPACE}={FIXED_WORKSPACES[0]} and start again"
        )
    os.environ.setdefault(WORKSPACE, FIXED_WORKSPACES[0])
    if os.environ[WORKSPACE] not in FIXED_WORKSPACES:
        raise UserError(
            f"speed.deterministic: {WORKSPACE}={os.environ[WORKSPACE]}: use one of {', '.join(FIXED_WORKSPACES)}"
        )
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def choose_device(name: str) -> torch.device:
    """`auto` is $PROGRPO_DEVICE, by default this rank's GPU when there is one, else the CPU.

    UserError for a device that this machine lacks, and for `auto` in a Slurm job that has GPUs of which PyTorch sees none: it would
    hold them for days and compute on the CPU.

    On a GPU, float32 convolutions keep float32, as matrix products do by default. On a CPU a process keeps to OMP_NUM_THREADS
    threads, by default one: small models gain nothing from more, and results then do not depend on the number of cores.
    """
    if name == "auto":
        name = os.environ.get("PROGRPO_DEVICE", "auto")
    if name == "auto":
        _require_the_gpus_of_the_job()
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
        torch.backends.cudnn.allow_tf32 = (
            False  # float32 is float32 in convolutions too; PyTorch's default rounds their factors
        )
    elif device.type == "cpu":
        torch.set_num_threads(_threads())
    else:
        raise UserError(f"--device {name}: not supported; use cpu, cuda or auto")
    return device


def _threads() -> int:
    """OMP_NUM_THREADS, of a list for nested levels the first; UserError when that is no positive whole number."""
    text = os.environ.get("OMP_NUM_THREADS", "1")
    first = text.partition(",")[0].strip()
    if not (first.isascii() and first.isdigit() and int(first) > 0):
        raise UserError(f"OMP_NUM_THREADS={text}: must be a positive whole number")
    return int(first)


def _require_the_gpus_of_the_job() -> None:
    indices = [name for name in ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS") if os.environ.get(name)]  # "0" is one GPU
    numbers = [name for name in ("SLURM_GPUS_ON_NODE", "SLURM_GPUS") if os.environ.get(name, "0") not in ("", "0")]
    given = [f"{name}={os.environ[name]}" for name in indices + numbers]
    if "SLURM_JOB_ID" in os.environ and given and not torch.cuda.is_available():
        raise UserError(
            f"--device auto: this Slurm job has GPUs ({given[0]}), but PyTorch {torch.__version__} sees none; install a CUDA build"
            " that fits the driver, or set PROGRPO_DEVICE=cpu to mean it"
        )
