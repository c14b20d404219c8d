"""Damaged model folders: pipelines and a scorer, loaded and run by `progrpo sample-rewards`."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from harness import Case
from mutations import mutate_bytes, mutate_data
from safetensors.torch import load_file, save_file

import tiny

ANALYSIS = {
    "model": "m",
    "scorer": "q",
    "prompts": "p",
    "prompt_count": 1,
    "group": 2,
    "sampling": {"steps": 2, "guidance_scale": 1.0, "noise": 0.7},
    "batch": 2,
}


class Code:
    """What a pickle of a stranger may hold: a command."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch X",)


def made(folder: Path) -> Path:
    """The undamaged models, made once for all cases."""
    if not (folder / "models").is_dir():
        tiny.make_models(folder / "models")
    return folder / "models"


def change(tensors: dict[str, torch.Tensor], rng: random.Random) -> None:
    """A weight that is gone, has another shape or name, or holds what is no number."""
    key = rng.choice(sorted(tensors))
    way = rng.randrange(4)
    if way == 0:
        del tensors[key]
    elif way == 1:
        tensors[key] = torch.zeros(tuple(side + 1 for side in tensors[key].shape) or (2,))
    elif way == 2:
        tensors[key + "x"] = tensors.pop(key)
    else:
        tensors[key] = torch.full_like(tensors[key], float("nan"))


def weights(path: Path, rng: random.Random) -> None:
    """Damaged weights, weights with code in them, or shards that are missing or lie elsewhere."""
    tensors: dict[str, Any] = load_file(path)
    data, stem = path.read_bytes(), path.with_suffix("")
    path.unlink()
    way = rng.randrange(5)
    if way == 0:
        path.write_bytes(mutate_bytes(data[: rng.choice((200, 20000))], rng) + data[20000:])
    elif way == 1:
        change(tensors, rng)
        save_file(tensors, path, metadata={"format": "pt"})
    elif way == 2:
        name = "pytorch_model" if stem.name == "model" else stem.name
        torch.save({**tensors, "x": Code()} if rng.random() < 0.8 else tensors, path.with_name(f"{name}.bin"))
    elif way == 3:
        shard = rng.choice(
            (f"{stem.name}-00001-of-00002.safetensors", "../x.safetensors", "/x.safetensors", path.name, "")
        )
        index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(sorted(tensors)[::2], shard)}
        Path(f"{path}.index.json").write_text(json.dumps(index if rng.random() < 0.8 else mutate_data(index, rng)))
    # else gone


def configuration(path: Path, rng: random.Random) -> None:
    """A configuration or tokenizer with damaged values, or one that asks for layers without end."""
    data = path.read_bytes()
    path.unlink()
    value = json.loads(data)
    if rng.random() < 0.2:
        sizes = [key for key in value if isinstance(value[key], int)] or ["layers"]
        value[rng.choice(sizes)] = rng.choice((10**5, 10**9, -(10**9), 0))
        path.write_text(json.dumps(value))
    elif rng.random() < 0.8:
        path.write_text(json.dumps(mutate_data(value, rng)))
    else:
        path.write_bytes(mutate_bytes(data, rng))


def model_folder(folder: Path, rng: random.Random, whole: Callable[[Path, Any], None], config: dict) -> Case:
    """A pipeline or a scorer of which one or two files are damaged; the files of the others are links."""
    source, broken = made(folder.parent), rng.choice(("sd14", "sd14", "sd35m", "pickscore", "pickscore"))
    base = "sd35m" if broken == "sd35m" else "sd14"
    for name in (base, "pickscore"):
        shutil.copytree(source / name, folder / name, copy_function=os.link)
    for path in rng.sample(sorted(p for p in (folder / broken).rglob("*") if p.is_file()), rng.choice((1, 1, 2))):
        (weights if path.suffix == ".safetensors" else configuration)(path, rng)
    family = "flow" if base == "sd35m" else "diffusion"
    model = {"family": family, "path": base, "resolution": 24, "max_sequence_length": 9}
    scorers = {**config["scorers"], "q": {"kind": "pickscore", "path": "pickscore"}}
    runs = {"r": {**config["runs"]["r"], "lora": None, "ema": None}}
    whole(
        folder / "c.yaml",
        {**config, "models": {"m": model}, "scorers": scorers, "runs": runs, "analyses": {"a": ANALYSIS}},
    )
    whole(folder / "prompts.jsonl", [{"prompt": "a red circle"}])
    return Case(["sample-rewards", "--config", "c.yaml", "--analysis", "a", "--out", "out/r.json", "--device", "cpu"])
