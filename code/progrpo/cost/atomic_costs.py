"""TFLOP of one network call, counted on the meta device: no weights, no images, seconds on any machine.

One multiply-add counts as two operations. Every number exists with and without the matrix products of attention:
calflops, with which the paper counted, does not see `scaled_dot_product_attention`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as functional
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from progrpo.cost import architectures
from progrpo.paper_runs import SD14, SD35M

REWARD_TOKENS = {
    SD35M: 27,
    SD14: 77,
}  # PickScore pads to the longest prompt (27 fits the printed .34), HPS-v2.1 to 77


class _WithoutAttention(TorchFunctionMode):
    """Replace scaled-dot-product attention by an empty result of the right shape, so that nothing is counted."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is functional.scaled_dot_product_attention:
            query, _, value = args
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return function(*args, **(kwargs or {}))


def tflop(call: Callable[[], object], attention: bool = True) -> float:
    """TFLOP of `call`, forward and backward passes alike, with or without attention's matrix products."""
    with FlopCounterMode(display=False) as counter:
        if attention:
            call()
        else:
            with _WithoutAttention():
                call()
    return counter.get_total_flops() / 1e12


def _forward(call: Callable[[], object]) -> dict[str, float]:
    with torch.no_grad():
        return {"with_attention": tflop(call), "without_attention": tflop(call, attention=False)}


def _denoiser(backbone: str) -> dict[str, dict[str, float]]:
    """A guided call (two conditions) without and with the adapters, and the backward pass of what is trained."""
    inputs = architectures.denoiser_inputs(backbone, batch=2)
    if backbone == SD14:
        model = architectures.sd14_unet()
        plain = trained = _forward(lambda: model(**inputs))
    else:
        model = architectures.sd35m_transformer()
        plain = _forward(lambda: model(**inputs))
        architectures.add_lora(model)
        trained = _forward(lambda: model(**inputs))
    both = tflop(lambda: model(**inputs).sample.sum().backward())
    return {
        "denoiser_without_lora": plain,
        "denoiser": trained,
        "denoiser_single": {key: value / 2 for key, value in trained.items()},
        "denoiser_backward": {"with_attention": both - trained["with_attention"]},
    }


def _images(backbone: str) -> dict[str, dict[str, float]]:
    latent = torch.empty(1, architectures.LATENT_CHANNELS[backbone], 64, 64)
    decoder, tiny = architectures.autoencoder(backbone), architectures.tiny_autoencoder(backbone)
    clip = architectures.clip("H")
    side = clip.config.vision_config.image_size
    pixels = torch.empty(1, 3, side, side)
    tokens = torch.zeros(1, REWARD_TOKENS[backbone], dtype=torch.long)
    return {
        "decoder": _forward(lambda: decoder.decode(latent)),
        "taesd": _forward(lambda: tiny.decode(latent)),
        "reward": _forward(lambda: clip(input_ids=tokens, pixel_values=pixels)),
    }


def measure() -> dict[str, dict[str, float]]:
    """TFLOP per call of both backbones at 512 x 512: {"sd35m" | "sd14": {cost: TFLOP}}.

    Costs, with attention: `denoiser` (a guided pair, LoRA included on SD3.5-M), `denoiser_single`,
    `denoiser_without_lora`, `decoder`, `taesd`, `reward`, each also as `<cost>_without_attention`;
    `denoiser_backward`; and `trained_step`, one trained step of one trajectory as the baselines run it: forward and
    backward on SD-v1.4; on SD3.5-M the unconditional branch is detached, so that only half of the pair has a backward
    pass, and the KL term adds the reference's forward pass.
    """
    table = {}
    with torch.device("meta"):
        for backbone in (SD35M, SD14):
            entry = {}
            for name, values in (_denoiser(backbone) | _images(backbone)).items():
                entry[name] = values["with_attention"]
                if "without_attention" in values:
                    entry[f"{name}_without_attention"] = values["without_attention"]
            entry["trained_step"] = entry["denoiser"] + entry["denoiser_backward"]
            if backbone == SD35M:
                entry["trained_step"] += entry["denoiser_without_lora"] - entry["denoiser_backward"] / 2
            table[backbone] = entry
    return table
