"""The miniature world on disk: prompt files, the autoencoder and the base models in their official folder layouts."""

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from progrpo.errors import UserError
from progrpo.files import write_jsonl
from progrpo.miniature.autoencoder import train_autoencoder
from progrpo.miniature.pretrain import Schedule, pretrain
from progrpo.miniature.prompts import balanced, held_out_records, training_records

BASE_MODELS = {"sd35m": ("flow", 1700), "sd14": ("diffusion", 1600)}
STORED_DTYPE = torch.float16  # half of the size in the repository; loaded as float32 unless the config says otherwise
GENEVAL_TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COMPBENCH_TAGS = {"color": "color_attr", "shape": "two_object", "texture": "texture", "spatial": "position"}
Log = Callable[[str], None]


def write_prompts(folder: Path) -> None:
    """All prompt sets of the miniature tiers: training prompts from the training split, all others from the held-out one.

    The in-domain test, the two stand-ins for DrawBench and the HPSv2 benchmark, and GenEval are balanced over tags; the four
    categories of T2I-CompBench++ take their tag.
    """
    held_out = held_out_records()
    sets = {
        "train": training_records(),
        "test": balanced(held_out, 1400, seed=1),
        "drawbench": balanced(held_out, 200, seed=2),
        "hpsv2": balanced(held_out, 400, seed=3),
        "geneval": balanced([r for r in held_out if r["tag"] in GENEVAL_TAGS], 240, seed=4),
    }
    for category, tag in COMPBENCH_TAGS.items():
        sets[f"t2i_compbench_{category}"] = balanced([r for r in held_out if r["tag"] == tag], 60, seed=5)
    for name, records in sets.items():
        write_jsonl(folder / f"{name}.jsonl", records)


def make_autoencoder(folder: Path, steps: int, seed: int, log: Log) -> None:
    """Train and save the autoencoder in float32: the base models are trained on its exact latents."""
    train_autoencoder(steps, seed, log).save_pretrained(folder)


def make_base_model(name: str, autoencoder: Path, folder: Path, steps: int | None, seed: int, log: Log) -> None:
    """Pre-train one base model and save its pipeline; UserError when the autoencoder folder is missing."""
    if not (autoencoder / "config.json").is_file():
        raise UserError(
            f"{autoencoder}: no autoencoder here; make it with `progrpo miniature autoencoder --out {autoencoder}`"
        )
    family, default_steps = BASE_MODELS[name]
    vae = AutoencoderKL.from_pretrained(autoencoder).eval()
    pipeline = pretrain(family, vae, Schedule(steps=steps or default_steps, seed=seed), log)
    pipeline.to(STORED_DTYPE).save_pretrained(folder)
    log(f"saved {folder}")
