"""How much of the machine's matmul peak a trainer's model calls reach, and the peak of the memory they take."""

import resource
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from progrpo.grpo.rollout import Clock
from progrpo.grpo.trainer import Trainer

SIDE = {"cpu": 512, "cuda": 8192}  # of the square matrices whose product is the peak


def matmul_peak(device: torch.device, dtype: torch.dtype, repeats: int = 10) -> float:
    """FLOP/s of the fastest of some products of two large matrices, by the clock that the trainer's parts are timed with."""
    side = SIDE[device.type]
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    seconds = []
    for _ in range(repeats):
        clock = Clock(device)
        with clock.part("product"):
            a @ b
        seconds.append(clock.seconds["product"])
    return 2 * side**3 / min(seconds)


def model_flops(trainer: Trainer) -> dict[str, int]:
    """FLOP that one more row costs this trainer's denoiser: `denoise` at a step that is sampled, `update` at one that is trained.

    Counted are products and convolutions, those of guidance's second branch and of the reference among them. What does not go with
    the rows, as merging adapters, and what fills up a micro-batch is no use of the machine and does not count.
    """
    run, backbone = trainer.run, trainer.backbone

    def call(denoiser, rows: int) -> Tensor:
        text = backbone.unconditional().rows(torch.zeros(rows, dtype=torch.long, device=backbone.device))
        return backbone.predict(
            torch.zeros(rows, *backbone.latent_shape, device=backbone.device),
            trainer.table.timesteps[0],
            text,
            run.sampling.guidance_scale,
            denoiser=denoiser.forward,  # past a compiled call, in which nothing is counted
            unconditional_gradient=run.objective.unconditional_gradient,
            one_call=trainer.one_call,
        )

    with torch.no_grad():
        forward = _of_a_row(lambda rows: call(backbone.denoiser, rows))
        reference = 0
        if run.objective.kl_beta > 0:
            with trainer.tuning.reference() as denoiser:
                reference = _of_a_row(lambda rows: call(denoiser, rows))
    both = _of_a_row(lambda rows: call(backbone.denoiser, rows).sum().backward())
    trainer.optimizer.zero_grad(set_to_none=True)
    return {"denoise": forward, "update": both + reference}


def _of_a_row(work: Callable[[int], object]) -> int:
    flops = []
    for rows in (1, 2):
        with FlopCounterMode(display=False) as counter:
            work(rows)
        flops.append(counter.get_total_flops())
    return flops[1] - flops[0]


class PeakMemory:
    """Bytes that were used at most since `reset`: by the allocator on a GPU, on a CPU resident of the whole process."""

    def __init__(self, device: torch.device):
        self.device = device

    def reset(self) -> None:
        """Begin anew; where a kernel does not let a process reset its peak, that since its start stays."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            try:
                Path("/proc/self/clear_refs").write_text("5")
            except OSError:
                return

    def read(self) -> int:
        """The bytes."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        try:
            status = Path("/proc/self/status").read_text()
        except OSError:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
