"""What is trained of a denoiser: low-rank adapters or all weights; the reference policy; the moving average; weights on disk."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.training_utils import _collate_lora_metadata, cast_training_params
from peft import LoraConfig
from peft.tuners.lora import Linear as AdaptedLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from progrpo.config import Ema, Lora, Optimizer
from progrpo.errors import UserError
from progrpo.grpo import sharding
from progrpo.grpo.backbone import Backbone
from progrpo.model_files import open_network, reading_model

LORA_FILE = "pytorch_lora_weights.safetensors"
TRAINED_ADAPTER = "trained"


def adapter_config(lora: Lora) -> LoraConfig:
    """The configured adapters as peft knows them: gaussian A, zero B, so that they change nothing at first."""
    return LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, init_lora_weights="gaussian", target_modules=list(lora.targets)
    )


class Tuning:
    """The trained parameters of a backbone's denoiser, float32, and its reference: the same model before training."""

    def __init__(self, backbone: Backbone, lora: Lora | None, keep_reference: bool, merged: bool = False):
        self.backbone, self.lora = backbone, lora
        denoiser = backbone.denoiser
        self.kind = type(denoiser)  # of diffusers; a sharded model has a class of its own
        self._frozen_copy: nn.Module | None = None
        if lora is None:
            denoiser.requires_grad_(True)
            self._frozen_copy = deepcopy(denoiser).requires_grad_(False) if keep_reference else None
        else:
            _require_targets(backbone, lora)
            denoiser.add_adapter(adapter_config(lora))
            cast_training_params(denoiser, torch.float32)
            for module in denoiser.modules():
                if isinstance(module, BaseTunerLayer):
                    # Autocast takes activations as they are; peft would copy them to float32, and autocast back.
                    module.cast_input_dtype_enabled = False
            if merged:
                _merge_adapters(backbone)
        self.sharded = False
        self.parameters = self._trained()

    def _trained(self) -> list[Tensor]:
        return [parameter for parameter in self.backbone.denoiser.parameters() if parameter.requires_grad]

    def shard(self) -> None:
        """Spread the denoiser's weights, and the reference's, over the ranks; adapters, small and trained, stay whole on each."""
        denoiser, kept = self.backbone.denoiser, self.parameters if self.lora else []
        self.parameters = []  # they would keep the whole weights alive beside the parts
        sharding.shard(denoiser, self.backbone.device, kept)
        if self._frozen_copy is not None:
            sharding.shard(self._frozen_copy, self.backbone.device)
        self.sharded, self.parameters = True, self._trained()

    def compile(self) -> None:
        """torch.compile of the denoiser, and of the reference where it is another module; in place, for calls of fixed shapes.

        What was compiled is found again by the next process. UserError where there is nothing to compile with.
        """
        if self.backbone.device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
            raise UserError("speed.compile: needs a C++ compiler on a CPU; install g++, or name yours in CXX")
        for module in (self.backbone.denoiser, self._frozen_copy):
            if module is not None:
                module.compile(dynamic=False)

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

    def weights(self) -> dict[str, Tensor]:
        """The trained weights by name, whole: the adapters, or the denoiser's. Where they are sharded, a collective call."""
        denoiser = self.backbone.denoiser
        layers = get_peft_model_state_dict(denoiser) if self.lora else denoiser.state_dict()
        return sharding.gathered(layers)

    def save(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Write `weights()` as safetensors in diffusers' layout: a LoRA file, or the denoiser's folder. For one rank alone.

        The LoRA file carries rank and alpha, so that plain `load_lora_weights` gives the trained strength. UserError for weights that
        are not finite; nothing is written then.
        """
        denoiser, name = self.backbone.denoiser, self.backbone.denoiser_name
        require_finite(weights.values(), f"{folder}: the trained weights")
        if self.lora is None:
            model = _holding(self.kind, denoiser.config, weights) if self.sharded else denoiser
            model.save_pretrained(folder / name)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            layers = {f"{name}.{key}": value.contiguous() for key, value in weights.items()}
            save_file(layers, folder / LORA_FILE, metadata=_adapter_metadata(denoiser, name))


def _holding(kind: Any, config: Any, weights: dict[str, Tensor]) -> Any:
    """A model of diffusers with these very tensors as its weights."""
    with torch.device("meta"):
        model = kind.from_config(config)
    model.load_state_dict(weights, assign=True)
    return model


def _require_targets(backbone: Backbone, lora: Lora) -> None:
    """UserError names the adapters' targets that no layer of the denoiser bears, as a UNet bears none of the transformer's."""
    layers = [
        f".{name}" for name, module in backbone.denoiser.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    idle = [target for target in lora.targets if not any(layer.endswith(f".{target}") for layer in layers)]
    if idle:
        raise UserError(
            f"lora.targets: no layer of the {backbone.denoiser_name} is named {', '.join(idle)};"
            " a UNet's attention has to_q, to_k, to_v, to_out.0"
        )


def _merge_adapters(backbone: Backbone) -> None:
    """Adapted linear layers multiply by W + s B A, one product of all rows instead of three; UserError in half precision."""
    if backbone.dtype != torch.float32:
        raise UserError(
            f"speed.merged_adapters: needs precision fp32, not {backbone.model.precision}: a sum of weights and adapters"
            " that is rounded to it loses a part of the adapters"
        )
    for module in backbone.denoiser.modules():
        if isinstance(module, AdaptedLinear):
            module.forward = MethodType(_merged_forward, module)


def peft_adapters(denoiser: nn.Module) -> None:
    """Adapted layers compute as peft's own again, fused or beside others: what `_merge_adapters` put in their place is taken away."""
    for module in denoiser.modules():
        if isinstance(module, AdaptedLinear):
            vars(module).pop("forward", None)


def _merged_forward(layer: AdaptedLinear, x: Tensor) -> Tensor:
    """The adapted layer of x (..., in); without adapters, as the reference has them, the layer itself."""
    base = layer.base_layer
    if layer.disable_adapters:
        return base(x)
    weight = base.weight
    for name in layer.active_adapters:
        weight = weight + layer.scaling[name] * (layer.lora_B[name].weight @ layer.lora_A[name].weight)
    return nn.functional.linear(x, weight, base.bias)


def _adapter_metadata(denoiser: nn.Module, name: str) -> dict[str, str]:
    """The adapter's configuration, rank and alpha among it, where diffusers looks for it.

    Not by `save_lora_weights`: it adds a second entry, and safetensors writes several entries in a random order, as sets are; equal
    trainings shall give equal bytes.
    """
    stored = _collate_lora_metadata({name: denoiser})[f"{name}_lora_adapter_metadata"]
    plain = {f"{name}.{key}": sorted(value) if isinstance(value, set) else value for key, value in stored.items()}
    return {LORA_ADAPTER_METADATA_KEY: json.dumps(plain, sort_keys=True, allow_nan=False)}


def optimizer_of(parameters: list[Tensor], settings: Optimizer, fused: bool) -> torch.optim.AdamW:
    """The configured AdamW; fused: all parameters of a step in one kernel."""
    return torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        fused=fused or None,
    )


def require_finite(tensors: Iterable[Tensor], what: str) -> None:
    """UserError when a tensor holds NaN or infinity, on any rank; `what` names the tensors in its line."""
    if not sharding.all_finite(tensors):
        raise UserError(f"{what} are not finite; nothing is written; use a smaller learning rate or precision fp32")


def load_trained(backbone: Backbone, folder: Path) -> None:
    """Put the weights of a run's `final/` folder into the backbone; UserError when there are none or they do not fit.

    The denoiser then computes what the trained one did: trained weights stay float32 under the backbone's autocast, and adapters stay
    beside the weights they adapt, because a sum rounded to bf16 loses 5 to 41 % of an adapter.
    """
    name, device = backbone.denoiser_name, backbone.device
    with reading_model(f"{folder}: the trained weights"):
        if (folder / LORA_FILE).is_file():
            _load_adapter(backbone, folder, _require_declared(folder / LORA_FILE, backbone.denoiser_name))
        elif (folder / name).is_dir():
            trained = open_network(type(backbone.denoiser), folder / name, dtype=torch.float32)
            setattr(backbone.pipeline, name, trained.to(device).requires_grad_(False).eval())
        else:
            raise UserError(f"{folder}: holds neither {LORA_FILE} nor {name}/; train the run first")


def _load_adapter(backbone: Backbone, folder: Path, targets: list[str]) -> None:
    layers = load_file(folder / LORA_FILE, device=str(backbone.device))
    layers = {key.removeprefix(f"{backbone.denoiser_name}."): value for key, value in layers.items()}
    adapted = {key.split(".lora_")[0] for key in layers}
    for name, module in backbone.denoiser.named_modules():
        fits = isinstance(module, nn.Linear | nn.Conv2d) and any(
            f".{name}".endswith(f".{target}") for target in targets
        )
        if fits and name not in adapted:
            raise UserError(
                f"{folder / LORA_FILE}: holds no adapter of {name}, a layer that it says it adapts; train the run again"
            )
    backbone.pipeline.load_lora_weights(
        folder, weight_name=LORA_FILE, adapter_name=TRAINED_ADAPTER, local_files_only=True
    )
    # diffusers has rounded the adapter to the denoiser's precision.
    for parameter_name, parameter in backbone.denoiser.named_parameters():
        if "lora_" in parameter_name:
            parameter.data = parameter.data.float()
    expected = get_peft_model_state_dict(backbone.denoiser, adapter_name=TRAINED_ADAPTER)
    for key in sorted({*expected, *layers}):
        if key not in layers or key not in expected or not layers[key].isfinite().all():
            raise UserError(f"{folder / LORA_FILE}: {key} is missing, unknown or not finite; train the run again")
    set_peft_model_state_dict(backbone.denoiser, layers, adapter_name=TRAINED_ADAPTER)
    backbone.denoiser.requires_grad_(False).eval()


def _require_declared(file: Path, denoiser: str) -> list[str]:
    """The names of the layers that an adapter file says it adapts; UserError unless it says its rank and alpha too."""
    with safe_open(file, "pt") as stored:
        text = (stored.metadata() or {}).get(LORA_ADAPTER_METADATA_KEY)
    declared = json.loads(text) if text else None
    found = declared if isinstance(declared, dict) else {}
    for key in ("lora_alpha", "r"):
        value = found.get(f"{denoiser}.{key}")
        if not isinstance(value, int | float) or value <= 0:
            raise UserError(
                f"{file}: holds an adapter of the {denoiser} without its {key.removeprefix('lora_')}, as older versions"
                " wrote it, so that its strength is unknown; delete the run's folder and train anew"
            )
    targets = found.get(f"{denoiser}.target_modules")
    return list(targets) if isinstance(targets, list) else []


class MovingAverage:
    """Average of the trained parameters: after the update at global step s, where (s + 1) % every == 0, it moves by 1 - decay_s.

    decay_s = min((1 + s)/(10 + s), decay); s counts the updates before this one, from 0. Source: flow_grpo/ema.py:33-56. Called once
    per optimizer update; the public script calls it once per micro-batch and so applies each eighth update twice, a defect that is
    not reproduced, and its s counts the update just made, so that it moves one update earlier. diffusers' EMAModel is another average:
    it has no interval, and its first step copies the parameters.
    """

    def __init__(self, parameters: list[Tensor], config: Ema):
        self.config = config
        self.values = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self, parameters: list[Tensor], step: int) -> None:
        """Take in the parameters after the update at global step `step`, the number of updates before it."""
        if (step + 1) % self.config.every == 0:
            decay = min((1 + step) / (10 + step), self.config.decay)
            torch._foreach_lerp_(self.values, [p.detach() for p in parameters], 1 - decay)

    @contextmanager
    def in_place_of(self, parameters: list[Tensor]) -> Iterator[None]:
        """The averages in the place of the parameters' values while entered."""
        last = [p.detach().clone() for p in parameters]
        copy_into(parameters, self.values)
        try:
            yield
        finally:
            copy_into(parameters, last)


@torch.no_grad()
def copy_into(parameters: list[Tensor], values: list[Tensor]) -> None:
    """Give parameters the values of as many whole tensors of their shapes, and sharded parameters their parts."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(sharding.own_part(value, parameter))
