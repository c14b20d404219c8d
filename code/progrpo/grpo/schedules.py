"""The noise schedule that comes with a pipeline, as a table of steps (float64, on the CPU)."""

import progrpo.torchvision_schemas  # noqa: F401, I001  (before diffusers)
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, SchedulerMixin

from progrpo.grpo.samplers import StepTable, ddim_table, flow_sde_table


def flow_table(scheduler: FlowMatchEulerDiscreteScheduler, steps: int, noise: float) -> StepTable:
    """`steps` SDE steps of a flow model with noise level `noise` (a); ValueError for what the schedule cannot give."""
    scheduler.set_timesteps(steps)
    return flow_sde_table(scheduler.sigmas.double(), noise)


def diffusion_table(scheduler: SchedulerMixin, steps: int, noise: float) -> StepTable:
    """`steps` DDIM steps of a diffusion model with eta `noise`; ValueError for what the schedule cannot give.

    The official checkpoints name PNDM; DDIM reads the same betas, offset and spacing from that configuration.
    """
    ddim = DDIMScheduler.from_config(scheduler.config)
    ddim.set_timesteps(steps)
    return ddim_table(ddim.alphas_cumprod.double(), ddim.timesteps, noise)
