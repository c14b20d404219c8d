"""The names of precisions, and the device that `auto` means."""

import os
import subprocess
import sys
from typing import get_args

import pytest
import torch

from progrpo.config import Precision
from progrpo.devices import DTYPES, WORKSPACE, choose_device, make_deterministic
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


FIXED = """
import os, torch
from progrpo.devices import make_deterministic
make_deterministic()
print(os.environ["CUBLAS_WORKSPACE_CONFIG"], torch.are_deterministic_algorithms_enabled())
print(torch.is_deterministic_algorithms_warn_only_enabled())
print(torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.cuda.is_initialized())
"""


@pytest.mark.parametrize(("given", "workspace"), [(None, ":4096:8"), (":16:8", ":16:8")])
def test_determinism_is_set_before_a_gpu_is_used(given, workspace):
    environment = {name: value for name, value in os.environ.items() if name != WORKSPACE}
    environment |= {WORKSPACE: given} if given else {}
    told = subprocess.run([sys.executable, "-c", FIXED], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.split() == [workspace, "True", "False", "True", "False", "False"]


def test_determinism_that_comes_too_late_or_cannot_be_is_refused(monkeypatch):
    monkeypatch.setenv(WORKSPACE, ":0:0")
    with pytest.raises(UserError, match="use one of"):
        make_deterministic()
    monkeypatch.delenv(WORKSPACE)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(UserError, match="in use already"):
        make_deterministic()
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("text", ["abc", "0", "-1", "", "1.5"])
def test_a_number_of_threads_that_is_none_is_named(without_cuda, text):
    without_cuda.setenv("OMP_NUM_THREADS", text)
    with pytest.raises(UserError, match=f"OMP_NUM_THREADS={text}: must be"):
        choose_device("cpu")


def test_of_nested_numbers_of_threads_the_first_counts(without_cuda):
    before = torch.get_num_threads()
    without_cuda.setenv("OMP_NUM_THREADS", "1,4")
    choose_device("cpu")
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)
