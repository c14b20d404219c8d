"""The two stochastic samplers as tables of coefficients and pure functions of tensors.

Both samplers are linear in the state and Gaussian: with the state x and the guided model output m at step i,

    mean = mean_x[i] x + mean_m[i] m,    x' = mean + std[i] noise,
    preview = preview_x[i] x + preview_m[i] m.

All that distinguishes Flow-GRPO's SDE step from DanceGRPO's DDIM step is therefore a `StepTable`, built once
in float64. A step itself only indexes the table: it draws no noise, asks for no scheduler state, and never
makes the host wait for the device.

Shapes: x, m, noise (B, ...), for images (B, C, H, W). The step i is an int, or a LongTensor (B,) on the
table's device when the rows of one micro-batch are at different steps; both give the same numbers. States are
float32 or float64, whatever the precision of the model: half-precision states bias the likelihood ratio below
1 (DanceGRPO issue 57).
"""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

STATE_DTYPES = (torch.float32, torch.float64)
# A first sigma this close to 1 is 1: some shifts give 1 - 2e-7 in float32, whose std would be a thousand times too large.
UNIT_SIGMA = 1 - 1e-6


@dataclasses.dataclass(frozen=True)
class StepTable:
    """Coefficients of T sampling steps, each a tensor (T,).

    timesteps: what the model is told, in 0..1000. std: standard deviation of the whole transition. kl_std:
    what the public code divides the KL by, which for flow lacks the sqrt(h) of `std`. noisy: the steps that add
    noise, all, none or a window of them; there alone densities exist.
    """

    timesteps: Tensor
    mean_x: Tensor
    mean_m: Tensor
    std: Tensor
    preview_x: Tensor
    preview_m: Tensor
    kl_std: Tensor
    noisy: range

    @property
    def steps(self) -> int:
        """T, the number of sampling steps."""
        return len(self.timesteps)

    @property
    def stochastic(self) -> bool:
        """Whether any step adds noise."""
        return bool(self.noisy)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "StepTable":
        """A copy on `device` in `dtype` (float32 or float64; ValueError otherwise)."""
        if dtype is not None and dtype not in STATE_DTYPES:
            raise ValueError(f"step coefficients must be float32 or float64, not {dtype}")
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        tensors: dict[str, Any] = {
            name: v.to(device=device, dtype=dtype) for name, v in fields.items() if isinstance(v, Tensor)
        }
        return dataclasses.replace(self, **tensors)


def flow_sde_table(sigmas: Tensor, noise_level: float, train_timesteps: int = 1000) -> StepTable:
    """Flow-GRPO's SDE step for `sigmas` (T + 1,), strictly decreasing within [0, 1].

    With s = sigma_i, s' = sigma_{i+1}, h = s - s' and a = noise_level,

        std_dev_t = a sqrt(s / (1 - s~)),  s~ = sigma_1 where s = 1, else s
        mean      = x - h (v + std_dev_t^2 / (2 s) (x + (1 - s) v)),   std = std_dev_t sqrt(h)
        preview   = x - s v, one exact Euler step of the ODE to sigma 0

    s~ replaces s in that denominator only, as in the public code. noise_level 0 is the Euler step x - h v of
    the ODE. Source: yifan123/flow_grpo @ac4c86e, flow_grpo/diffusers_patch/sd3_sde_with_logprob.py:44-68.
    ValueError for a schedule or a noise level out of range.
    """
    sigmas = sigmas.to(torch.float64)
    if sigmas.ndim != 1 or len(sigmas) < 2 or not bool((sigmas.diff() < 0).all()):
        raise ValueError(f"sigmas must be one strictly decreasing row of at least 2 values, not {sigmas.tolist()}")
    if sigmas[0] > 2 - UNIT_SIGMA or sigmas[-1] < 0 or not 0 <= noise_level < math.inf:
        raise ValueError(
            f"need 1 >= sigmas >= 0 and a finite noise_level >= 0, not {sigmas.tolist()} and {noise_level}"
        )
    s, h = sigmas[:-1], -sigmas.diff()
    std_dev_t = noise_level * torch.sqrt(s / (1 - torch.where(s > UNIT_SIGMA, sigmas[1], s)))
    correction = std_dev_t**2 / (2 * s)
    return StepTable(
        timesteps=train_timesteps * s,
        mean_x=1 - h * correction,
        mean_m=-h * (1 + correction * (1 - s)),
        std=std_dev_t * torch.sqrt(h),
        preview_x=torch.ones_like(s),
        preview_m=-s,
        kl_std=std_dev_t,
        noisy=range(len(s) if noise_level > 0 else 0),
    )


def ddim_table(alphas_cumprod: Tensor, timesteps: Tensor, eta: float) -> StepTable:
    """The DDIM step for an epsilon-predicting model.

    alphas_cumprod (train_timesteps,), timesteps (T,) integers, eta in [0, 1] (0 is deterministic). With p =
    max(t - train_timesteps // T, 0) and a = alphas_cumprod,

        sigma   = eta sqrt((1 - a_p) / (1 - a_t) (1 - a_t / a_p))
        preview = x0 = (x - sqrt(1 - a_t) e) / sqrt(a_t)
        mean    = sqrt(a_p) x0 + sqrt(1 - a_p - sigma^2) e,   std = sigma

    The clamp of p is a quirk of the public code, kept for comparability: the last step goes to
    alphas_cumprod[0] rather than to 1, so it still adds noise (sigma .0207 at t = 1) and its mean is not the
    clean preview. Source: kvablack/ddpo-pytorch @1958463, ddpo_pytorch/diffusers_patch/ddim_with_logprob.py,
    and its copy in DanceGRPO. ValueError for eta outside [0, 1] or a timestep outside the schedule.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], not {eta}")
    inside = (timesteps >= 1) & (timesteps < len(alphas_cumprod))
    if timesteps.ndim != 1 or len(timesteps) == 0 or not bool(inside.all()):
        raise ValueError(f"timesteps must be one row within 1..{len(alphas_cumprod) - 1}, not {timesteps.tolist()}")
    alphas_cumprod, timesteps = alphas_cumprod.to(torch.float64), timesteps.to(alphas_cumprod.device)
    a_t = alphas_cumprod[timesteps]
    a_p = alphas_cumprod[(timesteps - len(alphas_cumprod) // len(timesteps)).clamp(min=0)]
    sigma = eta * torch.sqrt((1 - a_p) / (1 - a_t) * (1 - a_t / a_p))
    preview_x, preview_m = a_t**-0.5, -torch.sqrt((1 - a_t) / a_t)
    direction = torch.sqrt((1 - a_p - sigma**2).clamp(min=0))  # rounding alone can make it negative at eta = 1
    return StepTable(
        timesteps=timesteps.to(torch.float64),
        mean_x=torch.sqrt(a_p) * preview_x,
        mean_m=torch.sqrt(a_p) * preview_m + direction,
        std=sigma,
        preview_x=preview_x,
        preview_m=preview_m,
        kl_std=sigma,
        noisy=range(len(timesteps) if eta > 0 else 0),
    )


def windowed(noisy: StepTable, quiet: StepTable, window: range) -> StepTable:
    """The steps of `window` from a stochastic table, the others from a deterministic one of the same schedule.

    As MixGRPO samples (Li et al., arXiv 2507.21802): an SDE inside a window, the ODE outside it. ValueError for a window that
    holds no step or leaves the schedule.
    """
    if not window or window.start < 0 or window.stop > noisy.steps:
        raise ValueError(f"a window of steps must lie within 0..{noisy.steps - 1}, not {window}")
    inside = torch.zeros(noisy.steps, dtype=torch.bool, device=noisy.std.device)
    inside[window.start : window.stop] = True
    fields = [field.name for field in dataclasses.fields(noisy) if field.name != "noisy"]
    chosen = {name: torch.where(inside, getattr(noisy, name), getattr(quiet, name)) for name in fields}
    return StepTable(**chosen, noisy=window)


def coefficient(values: Tensor, i: int | Tensor, like: Tensor) -> Tensor:
    """values[i] in the dtype of `like` (B, ...), shaped to broadcast over it.

    A 0-d tensor for an int i, (B, 1, ...) for a LongTensor i (B,) on the device of values.
    IndexError for an int outside 0..T-1; TypeError when `like` is not float32 or float64.
    """
    if like.dtype not in STATE_DTYPES:
        raise TypeError(f"sampler states must be float32 or float64, not {like.dtype}")
    if isinstance(i, Tensor):
        return values[i].to(like.dtype).view(-1, *[1] * (like.ndim - 1))
    if not 0 <= i < len(values):
        raise IndexError(f"step {i} is outside 0..{len(values) - 1}")
    return values[i].to(like.dtype)


def step_mean(table: StepTable, i: int | Tensor, x: Tensor, m: Tensor) -> Tensor:
    """Mean of the transition, mean_x x + mean_m m, in the dtype of x; x and m (B, ...)."""
    return coefficient(table.mean_x, i, x) * x + coefficient(table.mean_m, i, x) * m.to(x.dtype)


def step_sample(table: StepTable, i: int | Tensor, mean: Tensor, noise: Tensor) -> Tensor:
    """The next state, mean + std noise; mean and standard normal noise (B, ...)."""
    return mean + coefficient(table.std, i, mean) * noise.to(mean.dtype)


def log_prob(table: StepTable, i: int | Tensor, x_next: Tensor, mean: Tensor) -> Tensor:
    """log N(x_next; mean, std^2) averaged over all dimensions but the first, (B,).

    mean over dimensions of -(x' - mean)^2 / (2 std^2) - log std - log sqrt(2 pi). The average, not the sum,
    is what both public baselines clip at 1e-4. No gradient flows to x_next.
    ValueError for a deterministic step, whose transition has no density.
    """
    require_noise(table, i)
    std = coefficient(table.std, i, mean)
    density = -(((x_next.detach() - mean) / std) ** 2) / 2 - torch.log(std) - math.log(2 * math.pi) / 2
    return density.flatten(1).mean(dim=1)


def require_noise(table: StepTable, i: int | Tensor) -> None:
    """ValueError when the step, or all of them, are deterministic. No device is waited for: steps in a tensor are trusted."""
    if not table.stochastic or (not isinstance(i, Tensor) and i not in table.noisy):
        raise ValueError("the steps are deterministic (noise level or eta 0): they have no log-probability")


def preview(table: StepTable, i: int | Tensor, x: Tensor, m: Tensor) -> Tensor:
    """One-step preview of the clean latent, from the state x entering step i and the model output m there."""
    return coefficient(table.preview_x, i, x) * x + coefficient(table.preview_m, i, x) * m.to(x.dtype)
