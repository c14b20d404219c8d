"""The names of precisions, and the device that `auto` means."""

from typing import get_args

import pytest
import torch

from progrpo.config import Precision
from progrpo.devices import DTYPES, choose_device
from progrpo.errors import UserError


def test_every_precision_of_the_configuration_has_its_type():
    assert set(DTYPES) == set(get_args(Precision))


@pytest.fixture
def without_cuda(monkeypatch):
    """No CUDA, and no Slurm but the one that a test sets up."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("JOB_ID", "JOB_GPUS", "STEP_GPUS", "GPUS_ON_NODE", "GPUS"):
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
    monkeypatch.delenv("PROGRPO_DEVICE", raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("name", "value"), [("JOB_GPUS", "0"), ("STEP_GPUS", "2,3"), ("GPUS_ON_NODE", "8"), ("GPUS", "24")]
)
def test_a_slurm_job_with_gpus_that_pytorch_does_not_see_is_refused(without_cuda, name, value):
    without_cuda.setenv("SLURM_JOB_ID", "7")
    without_cuda.setenv(f"SLURM_{name}", value)
    with pytest.raises(UserError, match=rf"has GPUs \(SLURM_{name}={value}\), but PyTorch .* sees none") as error:
        choose_device("auto")
    assert "\n" not in str(error.value)
    assert choose_device("cpu").type == "cpu"
    without_cuda.setenv("PROGRPO_DEVICE", "cpu")
    assert choose_device("auto").type == "cpu"


def test_auto_is_the_cpu_where_no_gpu_was_asked_for(without_cuda):
    assert choose_device("auto").type == "cpu"
    without_cuda.setenv("SLURM_JOB_ID", "7")
    without_cuda.setenv("SLURM_GPUS_ON_NODE", "0")
    assert choose_device("auto").type == "cpu"
