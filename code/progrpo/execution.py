"""Sections of a configuration that say how its work is executed: how trajectories are sampled and previewed, on what, how fast."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StrictBool,
    model_serializer,
    model_validator,
)

from progrpo.typed import PathText

Positive = Annotated[int, Field(gt=0, le=10**6)]  # a count that some loop or tensor is made of
LATER = ("shard",)  # switches of `speed` that are younger than published measurements
TrackerName = Literal["tensorboard", "wandb"]
Share = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A part of the configuration: immutable; an unknown key, and a number that is NaN or infinite, are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Window(Section):
    """The denoising steps that are stochastic, `length` from `start` on; the others follow the ODE, and are not trained.

    As MixGRPO trains (arXiv 2507.21802), an arm beyond the paper. With `every` the window moves one step on after so many
    iterations, and stays when it has reached the last step.
    """

    start: Annotated[int, Field(ge=0)] = 0
    length: Positive
    every: Positive | None = None


class Sampling(Section):
    """How a trajectory is sampled. `noise` is a of the flow SDE or eta of DDIM; 0 is the deterministic sampler."""

    steps: Annotated[int, Field(gt=0, le=1000)]
    guidance_scale: Annotated[float, Field(ge=1, le=1000)]
    noise: Annotated[float, Field(ge=0, le=100)] = 0.0
    # DanceGRPO: one initial noise for all trajectories of an iteration (true), or for those of so many prompts after one another
    shared_initial_noise: StrictBool | Positive = False
    window: Window | None = None  # all steps

    def noisy(self, iteration: int = 0) -> range:
        """The steps that add noise in an iteration, where noise > 0."""
        if self.window is None:
            return range(self.steps)
        moved = iteration // self.window.every if self.window.every else 0
        start = min(self.window.start + moved, self.steps - self.window.length)
        return range(start, start + self.window.length)

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Samplings without a window are written as before there were any: what was begun with them goes on."""
        written = dump(self)
        if self.window is None:
            written.pop("window", None)
        return written

    @model_validator(mode="after")
    def _inside(self) -> "Sampling":
        if self.window and self.window.start + self.window.length > self.steps:
            raise ValueError(f"window.start + window.length must be at most steps ({self.steps})")
        if self.window and self.noise == 0:
            raise ValueError("a window of stochastic steps needs noise > 0")
        return self


class Hardware(Section):
    """What a job asks of a cluster; the result does not depend on it, only `prompts_per_iteration` must divide.

    `gpus` counts one node; 0 runs on the CPU with one process.
    """

    gpus: Annotated[int, Field(ge=0, le=1024)] = 1
    nodes: Positive = 1
    memory_gb: Positive = 8
    hours: Annotated[float, Field(gt=0, le=10**5)] = 1.0

    @model_validator(mode="after")
    def _one_process_on_the_cpu(self) -> "Hardware":
        if self.gpus == 0 and self.nodes > 1:
            raise ValueError(f"nodes ({self.nodes}) of no GPU: a job on the CPU is one process; use nodes: 1")
        return self

    @property
    def ranks(self) -> int:
        """Processes of a training: one per GPU, or one on the CPU."""
        return max(1, self.gpus * self.nodes)


class Previews(Section):
    """How one-step previews become images. Anything but the defaults is cheaper and may choose other survivors.

    `scale` shrinks the latent, and so the image. Every `check_every` iterations the first previews are scored with the decoder of
    final images too: `preview_agreement` in the metrics is their rank correlation within groups, and below `agreement` the training
    ends.
    """

    precision: Literal["fp32", "bf16"] = "fp32"  # of the decoder; bf16 in the memory format channels_last
    decoder: PathText | None = None  # folder of a tiny autoencoder (TAESD) of the model's latents; its own when none
    scale: Share = 1.0
    check_every: Positive = 20
    agreement: Annotated[float, Field(ge=0, le=1)] = 0.9

    @property
    def plain(self) -> bool:
        """Whether previews are decoded as final images are."""
        return self.precision == "fp32" and self.decoder is None and self.scale == 1


class Speed(Section):
    """How fast a training goes. No number depends on it beyond rounding; with every switch off it goes the plain way."""

    memory_gb: Annotated[float, Field(gt=0)] = 2.0  # what a backward pass of `micro_batch: auto` may keep
    batched_guidance: bool = False  # both branches in one call, unless one is detached: that one is a call of its own
    text_cache: PathText | None = None  # folder for the prompts' embeddings; with it the text encoders leave the device
    decode_batch: Positive | None = None  # images per decoder call while training; default: rows of a denoiser call
    prompts_at_once: Positive | None = None  # prompts of each GPU whose groups are sampled at a time; default: all
    states_on_host: bool = False  # keep the survivors' states, which the update reads, in the host's memory
    fused_optimizer: bool = (
        False  # AdamW in one kernel, without the copy of the trained weights that PyTorch's usual one makes
    )
    deterministic: bool = (
        False  # kernels that give equal bits at every run on a GPU too; slower, by how much is not measured
    )
    merged_adapters: bool = False  # fp32: one product with W + s B A; for a rank that is not small beside the width
    background_save: bool = True  # a copy of the state is written while the next iteration runs
    compile: bool = False  # torch.compile of the denoiser: about a minute once, then fewer and larger kernels
    shard: bool = False  # of several GPUs each holds a part of the denoiser (FSDP), and of what is trained in full

    @model_serializer(mode="wrap")
    def _without_later_settings(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A setting that came later is written and hashed only where it is used: what was measured before it still counts."""
        return {name: value for name, value in written(self).items() if name not in LATER or value}

    @model_validator(mode="after")
    def _one_of_two(self) -> "Speed":
        if self.shard and self.compile:
            raise ValueError("shard and compile exclude each other: a compiled block does not gather its weights")
        return self
