"""The noise schedule that comes with a pipeline, as a table of steps (float64, on the CPU)."""

from pathlib import Path

from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, SchedulerMixin

from progrpo.errors import UserError
from progrpo.grpo.samplers import StepTable, ddim_table, flow_sde_table

# What the samplers are written for. Other values change the steps of diffusers' own pipeline but not, or not rightly, the table below.
SETTINGS: dict[str, dict[str, str | bool]] = {
    "flow": {"use_dynamic_shifting": False, "invert_sigmas": False, "stochastic_sampling": False},
    "diffusion": {
        "prediction_type": "epsilon",
        "timestep_spacing": "leading",
        "rescale_betas_zero_snr": False,
        "thresholding": False,
        "set_alpha_to_one": False,
    },
}


def require_schedule(scheduler: SchedulerMixin, family: str, folder: Path) -> None:
    """UserError names the setting of a model's scheduler that the family's sampler does not know."""
    where = folder / "scheduler" / "scheduler_config.json"
    # A PNDM does not clip, whatever DDIM's default is where it takes the place of one.
    clipping: dict[str, str | bool] = {"clip_sample": False} if isinstance(scheduler, DDIMScheduler) else {}
    for key, known in (SETTINGS[family] | clipping).items():
        value = scheduler.config.get(key, known)
        if value != known:
            raise UserError(f"{where}: {key} is {value!r}; the sampler of {family} models is written for {known!r}")
    if family == "flow" and not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        raise UserError(
            f"{where}: a {type(scheduler).__name__}; the sampler of flow models needs FlowMatchEulerDiscreteScheduler"
        )


def flow_table(scheduler: FlowMatchEulerDiscreteScheduler, steps: int, noise: float) -> StepTable:
    """`steps` SDE steps of a flow model with noise level `noise` (a); ValueError for what the schedule cannot give."""
    scheduler.set_timesteps(steps)
    return flow_sde_table(scheduler.sigmas.double(), noise, scheduler.config.num_train_timesteps)


def diffusion_table(scheduler: SchedulerMixin, steps: int, noise: float) -> StepTable:
    """`steps` DDIM steps of a diffusion model with eta `noise`; ValueError for what the schedule cannot give.

    The official checkpoints name PNDM; DDIM reads the same betas, offset and spacing from that configuration.
    """
    ddim = DDIMScheduler.from_config(scheduler.config)
    ddim.set_timesteps(steps)
    return ddim_table(ddim.alphas_cumprod.double(), ddim.timesteps, noise)
