"""The card beside trained weights says what they are, and its lines of code are Python."""

import ast
import re

import pytest
import yaml

from checkout import ROOT
from progrpo.config import load_config
from progrpo.jobs.model_card import group_text, model_card

CONFIG = load_config(ROOT / "config" / "paper.yaml")


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
    code = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)[1]
    called = {node.func.attr for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)}
    assert ("load_lora_weights" in called) == (run.lora is not None)
    assert run.lora is not None or f"{part} = {kind}.from_pretrained" in code


def test_a_group_is_told_with_its_stages():
    assert (
        group_text(CONFIG.runs["progrpo_sd35m"])
        == "48 images per prompt, pruned to 24 after step 5 and 12 after step 7"
    )
    assert group_text(CONFIG.runs["flowgrpo_sd35m"]) == "24 images per prompt"
