"""The miniature world on disk: prompt files, the autoencoder and the base models in their official folder layouts."""

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from progrpo.errors import UserError
from progrpo.files import write_jsonl
from progrpo.miniature.autoencoder import train_autoencoder
from progrpo.miniature.pretrain import Schedule, pretrain
from progrpo.miniature.prompts import TAGS, balanced, held_out_records, training_records

BASE_MODELS = {"sd35m": ("flow", 2600), "sd14": ("diffusion", 2400)}
STORED_DTYPE = torch.float16  # half of the size in the repository; loaded as float32 unless the config says otherwise
GENEVAL_TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COMPBENCH_TAGS = {"color": "color_attr", "shape": "two_object", "texture": "texture", "spatial": "position"}
Log = Callable[[str], None]


def prompt_sets() -> dict[str, list[dict]]:
    """The records of every prompt set of the miniature tiers, no two of a set with one meaning.

    Training prompts are from the training split, all others from the held-out one. Train, the in-domain test and the
    stand-ins for DrawBench and the HPSv2 benchmark have the same mix: the seven tags in equal shares (300, 150, 40 and
    60 prompts each). GenEval has its six tags in equal shares (40 each); a category of T2I-CompBench++ takes its tag.
    """
    held_out = held_out_records()
    by_tag = {tag: [r for r in held_out if r["tag"] == tag] for tag in TAGS}
    return {
        "train": balanced(training_records(), 300 * len(TAGS), seed=0),
        "test": balanced(held_out, 150 * len(TAGS), seed=1),
        "drawbench": balanced(held_out, 40 * len(TAGS), seed=2),
        "hpsv2": balanced(held_out, 60 * len(TAGS), seed=3),
        "geneval": balanced([r for r in held_out if r["tag"] in GENEVAL_TAGS], 40 * len(GENEVAL_TAGS), seed=4),
        **{f"t2i_compbench_{name}": balanced(by_tag[tag], 200, seed=5) for name, tag in COMPBENCH_TAGS.items()},
    }


def write_prompts(folder: Path) -> None:
    """Write every prompt set to folder/<name>.jsonl, each atomically."""
    for name, records in prompt_sets().items():
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
