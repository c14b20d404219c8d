"""The card beside trained weights says what they are, and its lines of code are Python."""

import ast
import re

import pytest
import torch
import yaml
from diffusers import DiffusionPipeline

import tiny
from checkout import ROOT
from progrpo.config import load_config
from progrpo.devices import DTYPES
from progrpo.grpo.backbone import load_backbone
from progrpo.grpo.tuning import Tuning
from progrpo.jobs.model_card import group_text, model_card

CONFIG = load_config(ROOT / "config" / "paper.yaml")


def code_of(card: str) -> str:
    """The lines of code in a card."""
    return re.search(r"```python\n(.*?)```", card, flags=re.DOTALL)[1]


@pytest.fixture(scope="module")
def half_encoders(tmp_path_factory):
    """config.yaml of untrained models whose text encoders are stored in fp16, and nothing else."""
    folder = tmp_path_factory.mktemp("half")
    models = tiny.make_models(folder / "models")
    for part in ("sd35m", "sd14"):
        pipeline = DiffusionPipeline.from_pretrained(models / part)
        for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
            if getattr(pipeline, name, None) is not None:
                getattr(pipeline, name).half().save_pretrained(models / part / name)
    return tiny.write_config(folder / "tiny.yaml", models)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["flow_pro", "diffusion"])
def test_the_code_of_a_card_makes_an_image_in_the_precision_of_the_run(half_encoders, tmp_path, name, precision):
    config = load_config(half_encoders)
    run = config.runs[name]
    model = config.models[run.model].model_copy(update={"precision": precision})
    backbone = load_backbone(model, torch.device("cpu"), train_all_weights=run.lora is None)
    tuning = Tuning(backbone, run.lora, keep_reference=False)
    tuning.save(tmp_path, tuning.weights())
    part, kind = backbone.denoiser_name, type(backbone.denoiser).__name__
    names: dict = {}
    exec(code_of(model_card(run, model, 0, "1 x", part, kind)).replace('"this folder"', repr(str(tmp_path))), names)
    pipeline = names["pipeline"]
    assert {pipeline.text_encoder.dtype, getattr(pipeline, part).dtype} == {DTYPES[precision]}
    limit = {"max_sequence_length": 9} if name == "flow_pro" else {}
    made = pipeline("a cat", num_inference_steps=1, height=24, width=24, output_type="pt", **limit).images
    assert made.isfinite().all()


@pytest.mark.parametrize(
    ("name", "part", "kind"),
    [("progrpo_sd35m", "transformer", "SD3Transformer2DModel"), ("progrpo_sd14", "unet", "UNet2DConditionModel")],
)
def test_a_card_has_the_hubs_header_the_settings_and_code_that_loads_the_weights(name, part, kind):
    run = CONFIG.runs[name]
    model = CONFIG.models[run.model]
    text = model_card(run, model, 3, "1 pickscore", part, kind)
    header = yaml.safe_load(text.split("---")[1])
    assert header["base_model"] == model.path
    assert ("lora" in header["tags"]) == (run.lora is not None)
    assert "| reward | 1 pickscore |" in text
    assert "| seed | 3 |" in text
    code = code_of(text)
    called = {node.func.attr for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)}
    assert ("load_lora_weights" in called) == (run.lora is not None)
    assert run.lora is not None or f"{part} = {kind}.from_pretrained" in code


def test_a_group_is_told_with_its_stages():
    assert (
        group_text(CONFIG.runs["progrpo_sd35m"])
        == "48 images per prompt, pruned to 24 after step 5 and 12 after step 7"
    )
    assert group_text(CONFIG.runs["flowgrpo_sd35m"]) == "24 images per prompt"
