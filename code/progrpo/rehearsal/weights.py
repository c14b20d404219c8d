"""Random weights on disk: safetensors with a config.json as the hub's, shards with their index, and pickled state dicts."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from progrpo.files import write_json
from progrpo.quiet import silence_libraries

State = dict[str, Tensor]


def randomise(model: nn.Module, scale: float = 1.0) -> nn.Module:
    """The model with fan-in scaled normal matrices, so that outputs differ between inputs at any width."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=scale * parameter[0].numel() ** -0.5)
    return model.eval()


def stored_state(model: Any, folder: Path) -> State:
    """The state dict under the names that the library writes to disk, which are the hub's."""
    silence_libraries("diffusers", "transformers")
    model.save_pretrained(folder / "saved")
    (file,) = (folder / "saved").glob("*.safetensors")
    return load_file(file)


def position_ids(state: State, *towers: str, length: int = 77) -> State:
    """The state with the buffers that checkpoints of transformers 4 hold beside the weights."""
    return {**state, **{f"{tower}.embeddings.position_ids": torch.arange(length)[None] for tower in towers}}


def write_weights(file: Path, state: State, dtype: torch.dtype = torch.float32) -> None:
    """A safetensors file of floating-point tensors in `dtype`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(_cast(state, dtype), file, metadata={"format": "pt"})


def write_shards(folder: Path, state: State, dtype: torch.dtype) -> None:
    """Two shards of a transformers model and their index."""
    state, names = _cast(state, dtype), sorted(state)
    half = len(names) // 2
    index: dict[str, str] = {}
    for number, part in enumerate((names[:half], names[half:]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        write_weights(folder / file, {name: state[name] for name in part}, dtype)
        index |= dict.fromkeys(part, file)
    size = sum(tensor.nbytes for tensor in state.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": index})


def write_pickle(file: Path, content: Any) -> None:
    """What torch.save writes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, file)


def _cast(state: State, dtype: torch.dtype) -> State:
    return {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in state.items()
    }
