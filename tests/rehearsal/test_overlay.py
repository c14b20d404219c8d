"""The rehearsal is tier paper: its overlay changes sizes, counts and hardware, and nothing else."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from checkout import ROOT
from progrpo.config import Config, load_config
from progrpo.rehearsal import stage
from progrpo.rehearsal.run import TWO_RANKS
from progrpo.typed import check

SIZES_AND_COUNTS = re.compile(
    r"evaluation_jobs"  # into how many processes the same work is cut
    r"|models\.\w+\.(resolution|max_sequence_length)"
    r"|scorers\.hpsv2\.options\.architecture"
    r"|prompt_sets\.\w+\.(limit|limit_per_style|images_per_prompt)"
    r"|runs\.\w+\.(sampling\.steps|group\.size|group\.pruning\.\d\.(step|keep)|lora\.(rank|alpha)|ema\.every)"
    r"|runs\.\w+\.(prompts_per_iteration|updates_per_iteration|micro_batch|iterations|save_every)"
    r"|evaluations\.\w+\.(sampling\.\w+\.steps|batch)"
    r"|analyses\.\w+\.(prompt_count|group|batch|grid|sampling\.steps|candidates\.\d\.\d|keep\.\d)"
    r"|(runs|evaluations|analyses)\.\w+\.hardware\.\w+"
)


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of everything in a configuration that is no mapping and no list."""
    if isinstance(value, dict | list | tuple):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(part, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


@pytest.fixture(scope="module")
def configs() -> tuple[Config, Config]:
    """Tier paper, and the rehearsal of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return load_config(stage.TIER), check(Config, stage.rehearsed(), stage.OVERLAY)


def test_nothing_but_sizes_counts_and_hardware_differs(configs):
    paper, rehearsal = (dict(leaves(config.model_dump())) for config in configs)
    dropped = set(configs[0].runs) - set(configs[1].runs)
    kept = {name: value for name, value in paper.items() if not any(name.startswith(f"runs.{run}.") for run in dropped)}
    differing = {name for name in kept.keys() | rehearsal.keys() if kept.get(name) != rehearsal.get(name)}
    assert [name for name in sorted(differing) if not SIZES_AND_COUNTS.fullmatch(name)] == []
    assert len(differing) > 50


def test_every_method_model_scorer_benchmark_and_analysis_is_rehearsed(configs):
    paper, rehearsal = configs
    methods = {"Flow-GRPO", "Pro-GRPO", "Pro-GRPO-Flash", "DanceGRPO", "Uniform subsampling", "Static OVF"}
    assert {run.method for run in rehearsal.runs.values()} >= methods
    assert {(run.method, run.model) for run in rehearsal.runs.values()} >= {("Pro-GRPO", "sd14"), ("Pro-GRPO", "sd35m")}
    assert {run.model for run in rehearsal.runs.values()} == set(paper.models)
    for part in ("models", "scorers", "prompt_sets", "evaluations", "benchmarks", "analyses"):
        assert set(getattr(rehearsal, part)) == set(getattr(paper, part))


def test_all_of_it_is_small_and_without_a_gpu(configs):
    """A run that tier paper gains, and the overlay does not name, would be rehearsed at full size."""
    rehearsal = configs[1]
    jobs = [*rehearsal.runs.values(), *rehearsal.evaluations.values(), *rehearsal.analyses.values()]
    assert [job.hardware.gpus for job in jobs] == [0] * len(jobs)
    assert max(run.iterations for run in rehearsal.runs.values()) <= 4


def test_the_run_that_two_ranks_train_has_prompts_for_both(configs):
    run = configs[1].runs[TWO_RANKS]
    assert run.prompts_per_iteration % (2 * run.updates_per_iteration) == 0


def test_an_overlay_merges_mappings_replaces_values_and_removes_what_is_null():
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 2, "c": {"z": 3}}
    assert stage.laid_over(base, {"a": {"y": [3]}, "b": None}) == {"a": {"x": 1, "y": [3]}, "c": {"z": 3}}
