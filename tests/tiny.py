"""A tier with untrained models of the real architectures, made in seconds: enough to train, resume, generate and evaluate."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import torch
import yaml
from diffusers import SD3Transformer2DModel, UNet2DConditionModel
from safetensors.torch import load_file

from progrpo.files import write_jsonl
from progrpo.miniature.autoencoder import build_autoencoder
from progrpo.miniature.pretrain import build_diffusion_pipeline, build_flow_pipeline
from progrpo.miniature.prompts import training_records
from progrpo.miniature.scorer_models import HFClip

RUN = {
    "prompts": "train",
    "reward": {"pickscore": 1.0},
    "objective": {"kl_beta": 0.01, "trained_fraction": 0.99},
    "optimizer": {"learning_rate": 1e-3},
    "prompts_per_iteration": 4,
    "updates_per_iteration": 2,
    "micro_batch": 4,
    "iterations": 3,
}
FLOW = {
    **RUN,
    "method": "Pro-GRPO",
    "model": "sd35m",
    "sampling": {"steps": 4, "guidance_scale": 2.0, "noise": 0.7},
    "group": {"size": 4, "pruning": [{"step": 2, "keep": 3}, {"step": 3, "keep": 2}]},
    "lora": {"rank": 2, "alpha": 4},
    "ema": {"decay": 0.9, "every": 2},
}
DIFFUSION = {
    **RUN,
    "method": "DanceGRPO",
    "model": "sd14",
    "sampling": {"steps": 4, "guidance_scale": 2.0, "noise": 1.0, "shared_initial_noise": True},
    "group": {"size": 2},
    "objective": {"advantage_unbiased": True, "advantage_epsilon": 1e-8, "kl_beta": 0.01},
    "optimizer": {"learning_rate": 1e-5},
}
# Of each kind of block one: an MMDiT's last attends to no text, a U-Net's innermost level has no cross-attention.
SHALLOW = {"num_layers": 2}
ONE_LEVEL = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


def make_models(folder: Path) -> Path:
    """Untrained pipelines and a PickScore-layout scorer in `folder`; torch's generator is left as it is when they were made."""
    kept, state = _made()
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    torch.set_rng_state(state)
    return folder


@functools.cache
def _made() -> tuple[Path, torch.Tensor]:
    """Those that others of this process are copied from, and the generator's state after them."""
    kept = tempfile.TemporaryDirectory(prefix="tiny")
    atexit.register(kept.cleanup)
    write_models(Path(kept.name))
    return Path(kept.name), torch.get_rng_state()


def write_models(folder: Path) -> None:
    """Make them in `folder`."""
    torch.manual_seed(0)
    vae = build_autoencoder()
    flow, diffusion = build_flow_pipeline(vae), build_diffusion_pipeline(vae)
    flow.register_modules(transformer=SD3Transformer2DModel.from_config({**flow.transformer.config, **SHALLOW}))
    diffusion.register_modules(unet=UNet2DConditionModel.from_config({**diffusion.unet.config, **ONE_LEVEL}))
    flow.save_pretrained(folder / "sd35m")
    diffusion.save_pretrained(folder / "sd14")
    HFClip().save(folder / "pickscore")
    write_jsonl(folder / "train.jsonl", training_records()[:20])


def distance(found: Path, expected: Path, start: Path | None = None) -> float:
    """How far apart two trainings end, in all weights together, as a share of the second one's way from `start`.

    AdamW takes the sign of a gradient, even of one that is rounding: single weights may go another way on another
    processor. The way of adapters is that of B, which begins at zero.
    """
    weights, others = load_file(expected), load_file(found)
    assert weights.keys() == others.keys()
    begun = load_file(start) if start else {key: torch.zeros(()) for key in weights if "lora_B" in key}
    way, between = (
        torch.cat([(weights[key] - origin[key]).flatten() for key in origin]).norm().item()
        for origin in (begun, others)
    )
    return between / way


def write_config(path: Path, models: Path, **runs: dict) -> Path:
    """A tier's configuration over those models; runs by name, flow_pro and diffusion when none is given."""
    evaluation = {"sampling": {f: {"steps": 2, "guidance_scale": 1.0} for f in ("flow", "diffusion")}, "batch": 4}
    config = {
        "tier": "tiny",
        "results": str(path.parent / "results"),
        "seeds": [0],
        "models": {
            "sd35m": {"family": "flow", "path": str(models / "sd35m"), "resolution": 24, "max_sequence_length": 9},
            "sd14": {"family": "diffusion", "path": str(models / "sd14"), "resolution": 24},
        },
        "scorers": {"pickscore": {"kind": "pickscore", "path": str(models / "pickscore")}},
        "prompt_sets": {
            "train": {"path": str(models / "train.jsonl")},
            "test": {"path": str(models / "train.jsonl"), "limit": 6},
        },
        "evaluations": {"test": {**evaluation, "scorers": ["pickscore"]}},
        "runs": runs or {"flow_pro": FLOW, "diffusion": DIFFUSION},
    }
    path.write_text(yaml.safe_dump(config))
    return path
