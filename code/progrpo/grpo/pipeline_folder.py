"""A pipeline folder of the official layout before diffusers opens it: its parts, its weights, and one line for what it lacks."""

import re
from pathlib import Path
from typing import Any

from progrpo.errors import UserError
from progrpo.files import read_object
from progrpo.model_files import require_sane

PARTS = {
    "flow": (
        *("scheduler", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"),
        *("tokenizer", "tokenizer_2", "tokenizer_3"),
    ),
    "diffusion": ("scheduler", "unet", "vae", "text_encoder", "tokenizer"),
}
# Parts that judge images or start from them. The official indices name some whose folders are not fetched: nothing here uses them.
UNUSED: dict[str, dict[str, Any]] = {
    "flow": {"feature_extractor": None, "image_encoder": None},
    "diffusion": {
        "feature_extractor": None,
        "image_encoder": None,
        "safety_checker": None,
        "requires_safety_checker": False,
    },
}
WITHOUT_WEIGHTS = ("scheduler", "tokenizer")
HALF = "fp16"  # the variant that official folders hold beside the full weights
WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|pytorch_model|model)(\.(?P<variant>[^.]+?))?(-\d{5}-of-\d{5})?\.(safetensors|bin)"
)


def require_parts(folder: Path, family: str) -> None:
    """UserError when there is no such folder, its index or itself lacks a part of the family's pipeline, or a part's
    configuration is none."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(
            f"{folder}: no model folder (model_index.json is missing); fetch it or make it with `make reproduce`"
        )
    named = read_object(index)
    absent = [part for part in PARTS[family] if not isinstance(named.get(part), list) or None in named[part]]
    if absent:
        raise UserError(
            f"{index}: cannot load the {family} model: a {named.get('_class_name')} without {', '.join(absent)}"
        )
    missing = [part for part in PARTS[family] if not (folder / part).is_dir()]
    if missing:
        raise UserError(f"{folder}: cannot load the {family} model: no folder {', '.join(missing)}; fetch it again")
    for part in PARTS[family]:
        require_sane(folder / part)


def weights_variant(folder: Path, family: str) -> str | None:
    """The variant of the weights to load: None where every part has full ones, `fp16` where those of all parts are to be had only so.

    UserError names the part without weights, or what is to be fetched where some parts have full weights only and others fp16 only.
    """
    held = {part: _variants(folder / part) for part in PARTS[family] if not part.startswith(WITHOUT_WEIGHTS)}
    for part, variants in held.items():
        if not variants:
            raise UserError(f"{folder}: {part}/ holds no weights (*.safetensors or *.bin); fetch the model again")
    lacking = [part for part, variants in held.items() if None not in variants]
    if not lacking:
        return None
    if all(HALF in variants for variants in held.values()):
        return HALF
    found = sorted({str(variant) for part in lacking for variant in held[part]})
    raise UserError(
        f"{folder}: {', '.join(lacking)} has weights of variant {', '.join(found)} only, and not every part has fp16 weights;"
        " fetch the weights without a variant in their names"
    )


def _variants(part: Path) -> set[str | None]:
    matches = [WEIGHTS.fullmatch(path.name) for path in part.iterdir()]
    return {match["variant"] for match in matches if match}
