"""The schedules of the official checkpoints (their scheduler_config.json), through the code that the product runs."""

import progrpo.torchvision_schemas  # noqa: F401, I001  (before diffusers)
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, PNDMScheduler
from torch import Tensor

from progrpo.grpo.samplers import StepTable
from progrpo.grpo.schedules import diffusion_table, flow_table

SD14 = {  # of Stable Diffusion v1.4 and v1.5
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def flow(steps: int, noise: float, shift: float = 3.0) -> StepTable:
    """Steps of SD3.5-M, or of another shift."""
    return flow_table(FlowMatchEulerDiscreteScheduler(shift=shift), steps, noise)


def flow_sigmas(steps: int) -> Tensor:
    """Noise levels (T + 1,) of SD3.5-M, float64."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(steps)
    return scheduler.sigmas.double()


def ddim(steps: int, eta: float, **changes) -> StepTable:
    """Steps of SD-v1.4, or of a schedule that differs in `changes`."""
    return diffusion_table(PNDMScheduler(**SD14 | {"skip_prk_steps": True} | changes), steps, eta)


def alphas_cumprod(**changes) -> Tensor:
    """Cumulative alphas of SD-v1.4, float64."""
    return DDIMScheduler(**SD14 | changes).alphas_cumprod.double()
