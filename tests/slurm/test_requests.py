"""What a job asks a real Slurm for: the line of sbatch that the plugin makes of the plan, and how Slurm reads it."""

import re
import shlex
from types import SimpleNamespace

import pytest
from cluster import Cluster
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import set_gres_string
from snakemake_executor_plugin_slurm.validation import validate_slurm_extra

from checkout import call
from progrpo.config import Hardware
from progrpo.workflow.site import Site

pytestmark = pytest.mark.xdist_group("slurm")
ONE = Hardware(gpus=1, memory_gb=64, hours=12)
NODE = Hardware(gpus=8, memory_gb=256, hours=24)
NODES = Hardware(gpus=8, nodes=3, memory_gb=256, hours=24)


class Asked(dict):
    """Resources of a job as the plugin reads them: by key, and as attributes."""

    __getattr__ = dict.__getitem__


def sbatch_line(hardware: Hardware, site: Site, folder) -> str:
    """What the plugin submits for a training with such hardware, as `workflow/rules/train.smk` asks for it."""
    asked = Asked(site.resources(hardware))
    if asked["nodes"] > 1:
        asked |= {"mpi": "srun", "tasks": asked["nodes"], "tasks_per_gpu": 0}
    job = SimpleNamespace(resources=Asked(asked), threads=1)
    validate_slurm_extra(job)
    partition = f"-p {asked['slurm_partition']}"
    names = {"run_uuid": "test", "slurm_logfile": folder / "log", "comment_str": "a job", "account": ""}
    return get_submit_command(job, {**names, "partition": partition, "workdir": str(folder)}) + set_gres_string(job)


def as_slurm_has_it(slurm: Cluster, line: str, folder) -> dict[str, str]:
    """Submit the line, and what `scontrol` then says of the job, which waits and is taken back."""
    submitted = call(*shlex.split(line), "--wrap", "true", cwd=folder, **slurm.environment)
    assert submitted.returncode == 0, submitted.stdout
    job = submitted.stdout.strip()
    shown = slurm.run("scontrol", "show", "job", job)
    slurm.run("scancel", job)
    return dict(re.findall(r"(\S+?)=(\S+)", shown))


def megabytes(text: str) -> int:
    """Slurm's words for memory: 4000M, 62.50G."""
    return round(float(text[:-1]) * {"M": 1, "G": 1024}[text[-1]])


@pytest.mark.parametrize("style", ["gpus-per-node", "gres"])
@pytest.mark.parametrize(
    ("hardware", "nodes", "gpus", "memory"), [(ONE, 1, 1, 64_000), (NODE, 1, 8, 256_000), (NODES, 3, 8, 256_000)]
)
def test_nodes_gpus_cores_and_memory_are_those_of_the_plan(slurm, tmp_path, style, hardware, nodes, gpus, memory):
    site = Site(partition="large", gpu_request=style, gpu_model="a100", cpus_per_gpu=8)
    line = sbatch_line(hardware, site, tmp_path)
    assert f" --{style}={'gpu:' if style == 'gres' else ''}a100:{gpus}" in line
    assert "--gpus=" not in line
    assert "--ntasks-per-gpu" not in line
    job = as_slurm_has_it(slurm, line, tmp_path)
    assert job["NumNodes"] in (str(nodes), f"{nodes}-{nodes}")
    assert job["NumTasks"] == str(nodes)
    assert job["CPUs/Task"] == str(8 * gpus)
    assert job["NumCPUs"] == str(8 * gpus * nodes)
    assert megabytes(job["MinMemoryNode"]) == memory
    assert job["TresPerNode"] == f"gres:gpu:a100:{gpus}"
    assert job["Partition"] == "large"


def test_a_job_without_a_gpu_asks_for_none(slurm, tmp_path):
    site = Site(partition="large", gpu_model="a100", gpus_per_node=8, constraint="nvlink")
    job = as_slurm_has_it(slurm, sbatch_line(Hardware(gpus=0, memory_gb=4), site, tmp_path), tmp_path)
    assert "TresPerNode" not in job
    assert "Features" not in job  # the constraint is of nodes with GPUs: Slurm would refuse what no node has
    assert (job["NumNodes"].split("-")[0], job["NumCPUs"], megabytes(job["MinMemoryNode"])) == ("1", "1", 4000)


def test_smaller_nodes_get_the_same_gpus_on_more_of_them(slurm, tmp_path):
    site = Site(partition="large", gpus_per_node=4, memory_gb=100, hours=2)
    assert site.shape(NODES) == (6, 4)
    asked = site.resources(NODES)
    assert (asked["accelerator"], asked["mem_mb"], asked["runtime"]) == (24, 100_000, 120)
    assert Site(hours=0.001).resources(NODES)["runtime"] == 1  # to Slurm 0 is no limit
    assert Site(gpus_per_node=4).resources(NODES)["mem_mb"] == 128_000  # half of the node's, for half of its processes
    job = as_slurm_has_it(slurm, sbatch_line(NODE, site, tmp_path), tmp_path)
    assert (job["NumTasks"], job["TresPerNode"], job["TimeLimit"]) == ("2", "gres:gpu:4", "02:00:00")
