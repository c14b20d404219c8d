"""What decides a training, images and an evaluation: a change of it is seen, a change of anything else is not."""

import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

import tiny
from progrpo.config import Config, Evaluation, Model, PromptSet, Scorer, load_config
from progrpo.errors import UserError
from progrpo.files import write_jsonl
from progrpo.identity import differences
from progrpo.jobs.ingredients import of_evaluation, of_images, of_learning_curve, of_training


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return tiny.make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def world(models, tmp_path) -> Path:
    """config.yaml of models of its own, and one image to evaluate."""
    shutil.copytree(models, tmp_path / "models")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "0.png")
    write_jsonl(tmp_path / "images" / "prompts.jsonl", [{"image": "0.png", "prompt": "a cat", "metadata": None}])
    return tiny.write_config(tmp_path / "config.yaml", tmp_path / "models")


def identities(path: Path) -> dict[str, dict]:
    config: Config = load_config(path)
    return {
        "train": of_training(config, "flow_pro", 0),
        "generate": of_images(config, "sd35m", "test", 0, None),
        "evaluate": of_evaluation(config, "test", path.parent / "images"),
    }


def change(path: Path, key: str, value) -> None:
    """Set `a.b.c` of a YAML file."""
    config = yaml.safe_load(path.read_text())
    *parents, last = key.split(".")
    section = config
    for name in parents:
        section = section.setdefault(name, {})
    section[last] = value
    path.write_text(yaml.safe_dump(config))


def changed(before: dict, after: dict) -> dict[str, list[str]]:
    """{job: keys that differ}, of the jobs that see a difference."""
    found = {job: [line.split(":")[0] for line in differences(before[job], after[job])] for job in before}
    return {job: keys for job, keys in found.items() if keys}


SEEN = [
    ("runs.flow_pro.sampling.guidance_scale", 3.0, {"train": ["sampling.guidance_scale"]}),
    ("runs.flow_pro.objective.kl_beta", 0.1, {"train": ["objective.kl_beta"]}),
    ("runs.flow_pro.iterations", 4, {"train": ["iterations"]}),
    ("runs.flow_pro.prompts", "test", {"train": ["prompts.limit"]}),
    ("prompt_sets.train.limit", 10, {"train": ["prompts.limit"]}),
    ("prompt_sets.test.limit", 5, {"generate": ["prompts.limit"]}),
    ("prompt_sets.test.images_per_prompt", 2, {"generate": ["prompts.images_per_prompt"]}),
    ("models.sd35m.precision", "bf16", {"train": ["model.precision"], "generate": ["model.precision"]}),
    ("evaluations.test.sampling.flow.steps", 3, {"generate": ["sampling.steps"]}),
    (
        "scorers.pickscore.precision",
        "bf16",
        {"train": ["scorers.pickscore.precision"], "evaluate": ["scorers.pickscore.precision"]},
    ),
    (
        "scorers.pickscore.options.a",
        1,
        {j: ["scorers.pickscore.options", "scorers.pickscore.options.a"] for j in ("train", "evaluate")},
    ),
]
UNSEEN = [
    ("runs.flow_pro.method", "Flow-GRPO"),
    ("runs.flow_pro.evaluations", []),
    ("runs.flow_pro.save_every", 3),
    ("runs.flow_pro.seeds", [1]),
    ("runs.flow_pro.hardware", {"gpus": 1, "hours": 3}),
    ("runs.flow_pro.micro_batch", 1),
    ("runs.flow_pro.sampling_batch", 3),
    ("runs.flow_pro.gradient_checkpointing", True),
    ("runs.diffusion.iterations", 9),
    ("evaluations.test.batch", 2),
    ("evaluations.test.sampling.diffusion.steps", 3),
    ("evaluations.test.hardware", {"hours": 3}),
    ("scorers.pickscore.batch_size", 2),
    ("scorers.other", {"kind": "progrpo.miniature.scene_checker:SceneChecker"}),
    ("models.sd35m.source", "sd35m"),
    ("prompt_sets.other", {"path": "x.txt"}),
    ("results", "elsewhere"),
    ("seeds", [0, 1]),
]


@pytest.mark.parametrize(("key", "value", "expected"), SEEN, ids=lambda value: value if isinstance(value, str) else "")
def test_a_setting_that_decides_is_named_by_the_jobs_it_decides(world, key, value, expected):
    before = identities(world)
    change(world, key, value)
    assert changed(before, identities(world)) == expected


# Of each key of a section that several jobs read: another value, and the jobs that it decides. A new key needs a line here.
KEYS = {
    ("prompt_sets.train", PromptSet): {
        "limit": (5, {"train"}),
        "limit_per_style": (5, {"train"}),
        "distinct": (True, {"train"}),
        "images_per_prompt": (3, set()),
        "layout": ("geneval", set()),
    },
    ("prompt_sets.test", PromptSet): {
        "limit": (5, {"generate", "curve"}),
        "limit_per_style": (5, {"generate", "curve"}),
        "distinct": (True, {"generate", "curve"}),
        "images_per_prompt": (3, {"generate", "curve"}),
        "layout": ("geneval", {"generate"}),
    },
    ("scorers.pickscore", Scorer): {
        "kind": ("hpsv2", {"train", "evaluate", "curve"}),
        "precision": ("bf16", {"train", "evaluate", "curve"}),
        "options": ({"a": 1}, {"train", "evaluate", "curve"}),
        "batch_size": (2, set()),
        "sources": (["pickscore"], set()),
    },
    ("models.sd35m", Model): {
        "family": ("diffusion", {"train", "generate", "curve"}),
        "resolution": (16, {"train", "generate", "curve"}),
        "precision": ("bf16", {"train", "generate", "curve"}),
        "vae_precision": ("bf16", {"train", "generate", "curve"}),
        "max_sequence_length": (77, {"train", "generate", "curve"}),
    },
    ("evaluations.test", Evaluation): {
        "sampling": ({"flow": {"steps": 3, "guidance_scale": 1.0}}, {"generate", "curve"}),
        "scorers": ([], {"evaluate", "curve"}),
        "benchmarks": (["geneval"], {"evaluate"}),
        "batch": (2, set()),
        "hardware": ({"hours": 3}, set()),
    },
}


@pytest.mark.parametrize(("section", "kind"), KEYS)
def test_each_key_of_a_section_decides_the_jobs_that_it_should(world, section, kind):
    keys = KEYS[section, kind]
    assert {*keys, "path", "source"} >= set(kind.model_fields) >= set(keys)
    name, part = section.split(".")
    config = load_config(world).model_copy(update={"learning_curve": "test"})
    for key, (value, jobs) in keys.items():
        changed_section = kind.model_validate({**getattr(config, name)[part].model_dump(), key: value})
        other = config.model_copy(update={name: {**getattr(config, name), part: changed_section}})
        before, after = jobs_of(config, world.parent), jobs_of(other, world.parent)
        assert {job for job in before if before[job] != after[job]} == jobs, key


def jobs_of(config: Config, folder: Path) -> dict[str, dict]:
    """What decides each job of the tiny tier."""
    return {
        "train": of_training(config, "flow_pro", 0),
        "generate": of_images(config, "sd35m", "test", 0, None),
        "curve": of_learning_curve(config, "sd35m", 0, {"0": None}),
        "evaluate": of_evaluation(config, "test", folder / "images"),
    }


@pytest.mark.parametrize(("key", "value"), UNSEEN, ids=lambda value: value if isinstance(value, str) else "")
def test_a_setting_that_decides_nothing_changes_no_identity(world, key, value):
    before = identities(world)
    change(world, key, value)
    assert changed(before, identities(world)) == {}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("models/train.jsonl", {"train": "prompts.file", "generate": "prompts.file"}),
        (
            "models/sd35m/transformer/diffusion_pytorch_model.safetensors",
            {j: "model.files.transformer/diffusion_pytorch_model.safetensors" for j in ("train", "generate")},
        ),
        (
            "models/pickscore/model.safetensors",
            {j: "scorers.pickscore.files.model.safetensors" for j in ("train", "evaluate")},
        ),
        ("images/0.png", {"evaluate": "images"}),
    ],
)
def test_another_content_of_an_input_file_is_seen(world, file, expected):
    before = identities(world)
    path = world.parent / file
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    assert changed(before, identities(world)) == {job: [key] for job, key in expected.items()}


def test_the_same_content_elsewhere_is_the_same(world, tmp_path):
    before = identities(world)
    (tmp_path / "models").rename(tmp_path / "moved")
    world.write_text(world.read_text().replace(str(tmp_path / "models"), str(tmp_path / "moved")))
    assert changed(before, identities(world)) == {}


def test_a_file_that_an_option_names_counts_by_its_content(world, tmp_path):
    (tmp_path / "words.txt").write_text("cat")
    change(world, "scorers.pickscore.options.words", str(tmp_path / "words.txt"))
    before = identities(world)
    (tmp_path / "words.txt").write_text("dog")
    assert changed(before, identities(world)) == {j: ["scorers.pickscore.options.words"] for j in ("train", "evaluate")}


def test_an_input_file_that_is_not_there_is_named(world, tmp_path):
    shutil.rmtree(tmp_path / "models" / "pickscore")
    with pytest.raises(UserError, match=r"pickscore: no .*fetch"):
        identities(world)


@pytest.mark.parametrize(
    ("key", "name", "ingredient"),
    [
        ("scorers.pickscore.kind", "own_reward:Reward", "scorers.pickscore.code"),
        ("runs.flow_pro.group.rule", "own_reward:rule", "rule_code"),
    ],
)
def test_code_of_ones_own_decides_by_its_content(world, monkeypatch, key, name, ingredient):
    """A training does not go on with another formula under the same name."""
    monkeypatch.syspath_prepend(world.parent)
    module = world.parent / "own_reward.py"
    module.write_text("Reward = rule = 1\n")
    change(world, key, name)
    before = identities(world)
    module.write_text("Reward = rule = 2\n")
    assert changed(before, identities(world))["train"] == [ingredient]
