"""What decides a training is one thing, whoever asks: its record, its folder, the workflow, a program of one's own."""

from types import SimpleNamespace

import pytest

import tiny
from checkout import ROOT
from progrpo.config import Config, Run, load_config
from progrpo.jobs.ingredients import of_training
from progrpo.pieces.train_pipeline import _identity
from progrpo.provenance import decisive_hash
from progrpo.workflow.code_inputs import Code
from progrpo.workflow.plan import Plan

CHEAP = {"precision": "bf16"}  # previews that are not the plain ones, so that their other settings are read
# Of each key of a run: another value, and whether it decides a number. A new key needs a line here.
KEYS = {
    "method": ("Ours", False),
    "reward": ({"pickscore": 2.0}, True),
    "sampling": ({**tiny.FLOW["sampling"], "noise": 0.5}, True),
    "group": ({**tiny.FLOW["group"], "rule": "uniform"}, True),
    "objective": ({}, True),
    "optimizer": ({"learning_rate": 0.1}, True),
    "lora": ({"rank": 4}, True),
    "ema": (None, True),
    "prompts_per_iteration": (8, True),
    "updates_per_iteration": (1, True),
    "micro_batch": (1, False),
    "sampling_batch": (1, False),
    "iterations": (5, True),
    "save_every": (3, False),
    "snapshots": ([1], True),
    "gradient_checkpointing": (True, False),
    "seeds": ([1], False),
    "evaluations": ([], False),
    "hardware": ({"gpus": 0}, False),
    "speed": ({"batched_guidance": True}, False),
    "previews.precision": ("fp32", True),
    "previews.scale": (0.5, True),
    "previews.check_every": (3, True),
    "previews.agreement": (0.5, False),
}
# Of these what lies there decides, not the name: tests/jobs/test_ingredients.py.
BY_CONTENT = {"model", "prompts", "previews.decoder"}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    folder = tmp_path_factory.mktemp("provenance")
    run = {**tiny.FLOW, "previews": CHEAP}
    return load_config(tiny.write_config(folder / "config.yaml", tiny.make_models(folder), flow=run))


def answers(config: Config) -> dict[str, object]:
    """What decides the training, as each of those who ask sees it."""
    run, pipeline = config.runs["flow"], SimpleNamespace(model=config.models["sd35m"])
    return {
        "record": decisive_hash(run),
        "folder": of_training(config, "flow", 0),
        "workflow": Plan(config, Code(ROOT / "code")).train_settings(SimpleNamespace(run="flow")),
        "pipeline": _identity(run, 0, pipeline, "reward", ["a cat"]),
    }


def with_key(config: Config, key: str, value) -> Config:
    section, _, inner = key.partition(".")
    values = config.runs["flow"].model_dump()
    values[section] = {**values[section], inner: value} if inner else value
    return config.model_copy(update={"runs": {"flow": Run.model_validate(values)}})


def test_every_key_of_a_run_has_its_line():
    inner = {f"previews.{name}" for name in Run.model_fields["previews"].annotation.model_fields}
    assert {*KEYS, *BY_CONTENT} == {*Run.model_fields} - {"previews"} | inner


@pytest.mark.parametrize("key", KEYS)
def test_all_who_ask_what_decides_a_training_see_the_same_keys(config, key):
    value, decides = KEYS[key]
    before, after = answers(config), answers(with_key(config, key, value))
    seen = {who: before[who] != after[who] for who in before}
    expected = dict.fromkeys(before, decides)
    assert seen == expected | ({"pipeline": False} if key == "reward" else {})  # it is given a function
