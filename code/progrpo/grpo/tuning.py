"""What is trained of a denoiser: low-rank adapters or all weights; the reference policy; the moving average; weights on disk."""

import progrpo.torchvision_schemas  # noqa: F401, I001  (before diffusers)
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import torch
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from progrpo.grpo.backbone import Backbone
from progrpo.config import Ema, Lora
from progrpo.errors import UserError

LORA_FILE = "pytorch_lora_weights.safetensors"


class Tuning:
    """The trained parameters of a backbone's denoiser, float32, and its reference: the same model before training."""

    def __init__(self, backbone: Backbone, lora: Lora | None, keep_reference: bool):
        self.backbone, self.lora = backbone, lora
        denoiser = backbone.denoiser
        self._frozen_copy: nn.Module | None = None
        if lora is None:
            denoiser.requires_grad_(True)
            self._frozen_copy = deepcopy(denoiser).requires_grad_(False) if keep_reference else None
        else:
            denoiser.add_adapter(
                LoraConfig(
                    r=lora.rank, lora_alpha=lora.alpha, init_lora_weights="gaussian", target_modules=list(lora.targets)
                )
            )
            cast_training_params(denoiser, torch.float32)
        self.parameters = [p for p in denoiser.parameters() if p.requires_grad]

    @contextmanager
    def reference(self) -> Iterator[nn.Module]:
        """The untrained denoiser: adapters switched off, or the frozen copy."""
        if self._frozen_copy is not None:
            yield self._frozen_copy
            return
        if self.lora is None:
            raise ValueError("no reference was kept: keep_reference was False")
        self.backbone.denoiser.disable_adapters()
        try:
            yield self.backbone.denoiser
        finally:
            self.backbone.denoiser.enable_adapters()

    def save(self, folder: Path) -> None:
        """Write the trained weights as safetensors in diffusers' layout: a LoRA file, or the denoiser's folder."""
        denoiser, name = self.backbone.denoiser, self.backbone.denoiser_name
        if self.lora is None:
            denoiser.save_pretrained(folder / name)
        else:
            layers = get_peft_model_state_dict(denoiser)
            self.backbone.pipeline.save_lora_weights(folder, **{f"{name}_lora_layers": layers})


def load_trained(backbone: Backbone, folder: Path) -> None:
    """Put the weights of a run's `final/` folder into the backbone; UserError when there are none or they do not fit."""
    name, device = backbone.denoiser_name, backbone.device
    try:
        if (folder / LORA_FILE).is_file():
            backbone.pipeline.load_lora_weights(folder, weight_name=LORA_FILE, local_files_only=True)
            backbone.pipeline.fuse_lora()
            backbone.pipeline.unload_lora_weights()
        elif (folder / name).is_dir():
            trained = type(backbone.denoiser).from_pretrained(folder / name, dtype=backbone.dtype)
            setattr(backbone.pipeline, name, trained.to(device).requires_grad_(False).eval())
        else:
            raise UserError(f"{folder}: holds neither {LORA_FILE} nor {name}/; train the run first")
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"{folder}: cannot load the trained weights: {' '.join(str(error).split())}") from error


class MovingAverage:
    """Average of the trained parameters: at every `every`-th update s it moves by 1 - min((1 + s)/(10 + s), decay).

    Source of decay and warm-up: flow_grpo/ema.py:33-56. Called once per optimizer update; the public script calls it once per
    micro-batch and so applies each eighth update twice, a defect that is not reproduced.
    """

    def __init__(self, parameters: list[Tensor], config: Ema):
        self.config = config
        self.values = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self, parameters: list[Tensor], updates: int) -> None:
        """Take in the parameters after the `updates`-th optimizer update."""
        if updates % self.config.every == 0:
            decay = min((1 + updates) / (10 + updates), self.config.decay)
            torch._foreach_lerp_(self.values, [p.detach() for p in parameters], 1 - decay)
