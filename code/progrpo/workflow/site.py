"""What a cluster looks like: `config/site.yaml`, which git ignores, or the environment; and what a job there asks Slurm for.

`config/site.yaml.example` says what each key means. Nothing of it decides a number.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from progrpo.config import Hardware, Positive, Section
from progrpo.errors import UserError
from progrpo.typed import check, read_yaml, require_numbers

SITE = Path("config/site.yaml")
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,@:+-]+$", max_length=200)]
Model = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=100)]
Constraint = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,@:+&|*()\[\]-]+$", max_length=200)]
ENVIRONMENT = {
    "account": "SLURM_ACCOUNT_NAME",
    "partition": "SLURM_PARTITION_NAME",
    "gpu_model": "SLURM_GPU_MODEL",
    "cpus_per_gpu": "SLURM_GPU_CPUS",
}


class Shape(NamedTuple):
    """Nodes of a job, and GPUs on each."""

    nodes: int
    gpus: int


class Site(Section):
    """A cluster; what is not said is left to Slurm's own defaults, or to `hardware` in the configuration of a tier."""

    gpus_per_node: Positive | None = None
    cpus_per_gpu: Positive = 8
    memory_gb: Positive | None = None
    hours: Annotated[float, Field(gt=0, le=10**4)] | None = None
    gpu_request: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    gpu_model: Model | None = None
    account: Word | None = None
    partition: Word | None = None
    cpu_partition: Word | None = None
    constraint: Constraint | None = None
    qos: Word | None = None

    def shape(self, hardware: Hardware) -> Shape:
        """The GPUs that a job asks for, on as few nodes of this site as hold them with equally many on each."""
        total = hardware.nodes * hardware.gpus
        if self.gpus_per_node is None or hardware.gpus == 0:
            return Shape(hardware.nodes, hardware.gpus)
        per_node = max(n for n in range(1, min(total, self.gpus_per_node) + 1) if total % n == 0)
        return Shape(total // per_node, per_node)

    def resources(self, *asked: Hardware) -> dict[str, Any]:
        """What one job asks for that does the work of all of `asked`, one after the other, in the words of Snakemake's Slurm plugin.

        Memory, CPUs and GPUs are those of a node, and a job has one task on each: GPUs are asked for in the way that the site wants,
        never as `gpu`, which the plugin makes a total of all nodes that Slurm may spread unevenly.
        """
        largest = max(asked, key=lambda hardware: hardware.gpus * hardware.nodes)
        nodes, gpus = self.shape(largest)
        share = (
            gpus / largest.gpus if gpus else 1
        )  # of the GPUs, and so of the processes, that `memory_gb` is meant for
        memory = round(max(1000 * hardware.memory_gb for hardware in asked) * share)
        minutes = sum(max(1, round(60 * hardware.hours)) for hardware in asked)
        typed = ":".join(filter(None, [self.gpu_model, str(gpus)]))
        return {
            "accelerator": nodes * gpus,  # counted on one machine: local/config.yaml
            "nodes": nodes,
            "mem_mb": min(memory, 1000 * self.memory_gb) if self.memory_gb else memory,
            "runtime": min(minutes, max(1, round(60 * self.hours))) if self.hours else minutes,
            "cpus_per_task": max(1, gpus * self.cpus_per_gpu),
            "gres": f"gpu:{typed}" if gpus and self.gpu_request == "gres" else "",
            "slurm_extra": f"--gpus-per-node={typed}" if gpus and self.gpu_request == "gpus-per-node" else "",
            **self.placed(gpu=gpus > 0),
        }

    def placed(self, gpu: bool) -> dict[str, str]:
        """Where a job with or without GPUs runs, by the keys that the site has; a constraint is of nodes with GPUs."""
        partition = self.partition if gpu else self.cpu_partition or self.partition
        found = {"slurm_partition": partition} if partition else {}
        return found | ({"constraint": self.constraint if gpu else ""} if self.constraint else {})

    @model_validator(mode="after")
    def _model_of_gres(self):
        if self.gpu_request == "gres" and "-" in (self.gpu_model or ""):  # the Slurm plugin's rule for `gres`
            raise ValueError("gpu_model: may hold no '-' with gpu_request: gres; use gpus-per-node")
        return self

    @model_validator(mode="after")
    def _both_partitions(self):
        if self.cpu_partition and not self.partition:
            raise ValueError("cpu_partition: needs `partition` too, that of jobs with a GPU")
        return self


def load_site(path: Path = SITE, environment: Mapping[str, str] = os.environ) -> Site:
    """The site of `config/site.yaml`, if there is one; a variable of the environment beats its key. UserError names what is wrong."""
    data = read_yaml(path) if path.is_symlink() or path.exists() else None
    values = check(dict[str, Any], {} if data is None else data, path)
    named = {key: environment[variable] for key, variable in ENVIRONMENT.items() if environment.get(variable)}
    if named:
        check(Site, named, f"environment ({', '.join(ENVIRONMENT[key] for key in named)})")
    site = check(Site, {**values, **named}, path)
    require_numbers(values, site.model_dump(), "", path)
    return site


def site_of_profile() -> Site:
    """The site, for slurm/config.yaml; one line and an end where it is wrong."""
    try:
        return load_site()
    except UserError as error:
        sys.exit(f"slurm/config.yaml: {error}")
