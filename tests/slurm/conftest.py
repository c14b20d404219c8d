"""A running Slurm, a checkout to run in, and what an undisturbed training ends with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, obstacle
from cut import RUN, make_cut, outcome

from checkout import call


@pytest.fixture(scope="session")
def slurm(tmp_path_factory) -> Iterator[Cluster]:
    if reason := obstacle():
        pytest.skip(f"no Slurm here: {reason}")
    with Cluster(tmp_path_factory.mktemp("slurm") / "cluster") as cluster:
        yield cluster


@pytest.fixture
def cut(tmp_path) -> Path:
    return make_cut(tmp_path / "checkout")


@pytest.fixture(scope="session")
def reference(tmp_path_factory) -> tuple[str, bytes]:
    """Weights and metrics of a training that nothing interrupts, without Slurm and Snakemake."""
    checkout = make_cut(tmp_path_factory.mktemp("reference") / "checkout")
    train = "progrpo train --config config/cut.yaml --run progrpo_sd35m --seed 0 --device cpu --out"
    for command in (["dvc", "pull", "results/miniature.dvc"], [*train.split(), RUN]):
        result = call(*command, cwd=checkout)
        assert result.returncode == 0, result.stdout
    return outcome(checkout)
