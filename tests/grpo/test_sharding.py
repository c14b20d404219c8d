"""Sharded weights: each of two ranks holds half of them and computes the same bits; what is read whole is whole."""

import os
import socket
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch.distributed.tensor import DTensor

import forked
import tiny
from progrpo.config import load_config
from progrpo.grpo.backbone import load_backbone
from progrpo.grpo.sharding import all_finite, average_gradients
from progrpo.grpo.tuning import Tuning, copy_into


def shard_on_rank(rank: int, port: int, config: Path, name: str, out: Path) -> None:
    """Write what one of two ranks finds when it shards a run's denoiser."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    run, models = load_config(config).runs[name], load_config(config).models
    backbone = load_backbone(models[run.model], torch.device("cpu"), train_all_weights=run.lora is None)
    torch.manual_seed(0)
    tuning = Tuning(backbone, run.lora, keep_reference=True)
    for parameter in tuning.parameters:
        torch.nn.init.normal_(parameter.data, std=0.1)  # adapters begin as zeros: both policies would be one
    x, text = torch.randn(2, *backbone.latent_shape), backbone.encode(["a red circle", "a blue square"])

    def outputs() -> torch.Tensor:
        time = torch.tensor(500.0)
        with tuning.reference() as reference:
            frozen = backbone.predict(x, time, text, 2.0, denoiser=reference).detach()
        return torch.stack([frozen, backbone.predict(x, time, text, 2.0).detach()])

    whole = [p.detach().clone() for p in tuning.parameters]
    found = {"weights": [{key: value.clone() for key, value in tuning.weights().items()}], "outputs": [outputs()]}
    tuning.shard()
    found["outputs"].append(outputs())
    found["weights"].append(tuning.weights())
    copy_into(tuning.parameters, [torch.zeros_like(value) for value in whole])
    found["outputs"].append(outputs())
    copy_into(tuning.parameters, whole)
    found["outputs"].append(outputs())
    parts = [p.to_local() if isinstance(p, DTensor) else p for p in backbone.denoiser.parameters()]
    found["held"] = sum(part.numel() for part in parts) / sum(p.numel() for p in backbone.denoiser.parameters())
    gradient = torch.nn.Parameter(torch.zeros(3))
    gradient.grad = torch.full((3,), float(rank))
    average_gradients([gradient])
    found["gradient"] = gradient.grad
    found["finite"] = [all_finite(tuning.parameters)]
    if rank == 1 and isinstance(tuning.parameters[0], DTensor):
        tuning.parameters[0].detach().to_local().view(-1)[0] = float("nan")
    found["finite"].append(all_finite(tuning.parameters))
    torch.save(found, out / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sharding")
    full = {name: value for name, value in tiny.FLOW.items() if name != "lora"}
    return tiny.write_config(folder / "config.yaml", tiny.make_models(folder), adapters=tiny.FLOW, all=full)


@pytest.mark.parametrize("name", ["adapters", "all"])
def test_two_ranks_hold_parts_and_compute_the_bits_of_the_whole(config, tmp_path, name):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ranks = [
        forked.Process([sys.executable, __file__, *map(str, (rank, port, config, name, tmp_path))], env=path)
        for rank in range(2)
    ]
    assert [rank.wait(1500) for rank in ranks] == [0, 0]
    first, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for found in (first, other):
        before, sharded, zeroed, again = found["outputs"]
        assert torch.equal(sharded, before)
        assert torch.equal(again, before)
        assert not torch.equal(before[0], before[1])
        assert torch.equal(zeroed[0], before[0])  # the reference is not what is trained
        assert not torch.equal(zeroed[1], before[1])
        assert found["gradient"].tolist() == [0.5, 0.5, 0.5]
        assert found["finite"] == [True, name == "adapters"]  # a part of one rank, seen by both
        assert found["held"] < {"adapters": 0.6, "all": 0.52}[name]
    before, together = first["weights"]
    assert before.keys() == together.keys()
    assert all(torch.equal(together[key], value) for key, value in before.items())
    if name == "all":  # only the first rank writes
        assert [key for key, value in other["weights"][1].items() if value is not None] == ["pos_embed.pos_embed"]


if __name__ == "__main__":
    shard_on_rank(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], Path(sys.argv[5]))
