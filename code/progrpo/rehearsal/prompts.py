"""Prompt files in the layouts of their repositories, a few dozen lines each."""

import json
from importlib import resources
from pathlib import Path

from progrpo.benchmarks import compbench
from progrpo.benchmarks.compbench import CATEGORIES
from progrpo.benchmarks.prompt_sets import STYLES
from progrpo.files import write_json, write_text


def compbench_prompts() -> list[str]:
    """The 1,200 prompts of T2I-CompBench++, of which the package stores the noun chunks."""
    stored = resources.files(compbench).joinpath("chunks.json").read_text(encoding="utf-8")
    return list(json.loads(stored)["prompts"])


def sample(offset: int, count: int = 24) -> list[str]:
    """Some prompts, others for another offset."""
    return compbench_prompts()[offset :: len(compbench_prompts()) // count][:count]


def _write_lines(file: Path, lines: list[str]) -> None:
    write_text(file, "".join(f"{line}\n" for line in lines))


def write_compbench(folder: Path) -> None:
    """One text file per category."""
    prompts = compbench_prompts()
    for k, category in enumerate(CATEGORIES):
        _write_lines(folder / f"{category}_val.txt", prompts[300 * k : 300 * (k + 1)])


def write_drawbench(folder: Path) -> None:
    """DrawBench as DiffusionNFT has it: each prompt five times."""
    _write_lines(folder / "test.txt", [prompt for prompt in sample(1) for _ in range(5)])


def write_pickscore(folder: Path) -> None:
    """Training and test prompts of Flow-GRPO."""
    _write_lines(folder / "train.txt", sample(2))
    _write_lines(folder / "test.txt", sample(3))


def write_hpdv2(folder: Path) -> None:
    """Training prompts of DanceGRPO."""
    _write_lines(folder / "prompts.txt", sample(4))


def write_hpsv2(folder: Path) -> None:
    """The HPSv2 benchmark: a list of prompts per style."""
    for k, style in enumerate(STYLES):
        write_json(folder / "benchmark" / f"{style}.json", sample(5 + k))


def write_imagereward_benchmark(folder: Path) -> None:
    """ImageReward's benchmark: prompts with their numbers."""
    records = [{"id": f"{k:06d}-0000", "prompt": prompt} for k, prompt in enumerate(sample(9))]
    write_json(folder / "benchmark-prompts.json", records)
