"""Names in the configuration that stand for code: those of the tables below, or `package.module:name` for code of one's own.

The tables hold text, not objects, so that reading a configuration loads neither torch nor a network.
"""

import importlib
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from progrpo.errors import UserError

SCORERS = {  # a class with `load` and `score`: rewards/base.py
    "hpsv2": "progrpo.rewards.hpsv2:HPSv2",
    "imagereward": "progrpo.rewards.imagereward:ImageReward",
    "pickscore": "progrpo.rewards.pickscore:PickScore",
    "aesthetic": "progrpo.rewards.aesthetic:Aesthetic",
    "clip_score": "progrpo.rewards.clip_score:ClipScore",
}
SCORER_FILES = {  # the files in a scorer's folder that its score depends on: its class's `files`
    "hpsv2": ("HPS_v2.1_compressed.pt",),
    "imagereward": ("ImageReward.pt",),
    "pickscore": ("model.safetensors",),
    "aesthetic": ("sac+logos+ava1-l14-linearMSE.pth",),
    "clip_score": ("model.safetensors",),
}
SELECTION_RULES = {  # a function of rewards, how many to keep, and seeds: grpo/ovf.py
    "ovf": "progrpo.grpo.ovf:optimal_variance_filter",
    "best_of_n": "progrpo.grpo.ovf:best_of_n",
    "uniform": "progrpo.grpo.ovf:uniform",
}
ONES_OWN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def known_name(name: str, table: Mapping[str, str]) -> str:
    """The name, when the table has it or its module can be found; ValueError otherwise. The module itself is not run."""
    if name not in table:
        source_file(name, table)
    return name


def source_file(name: str, table: Mapping[str, str]) -> Path:
    """The Python file that a name stands for; ValueError when there is none."""
    place = table.get(name, name)
    if not ONES_OWN.fullmatch(place):
        raise ValueError(f"{name!r} is unknown; use one of {', '.join(table)}, or package.module:name of your own code")
    module = place.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:  # of a package above it
        spec = None
    if spec is None or spec.origin is None:
        raise ValueError(f"{name!r}: there is no module {module}; install it or put its folder on PYTHONPATH")
    return Path(spec.origin)


def own_file(name: str, table: Mapping[str, str]) -> Path | None:
    """The file of code outside this package that a name stands for; None for what the package has."""
    return None if inner_module(name, table) else source_file(name, table)


def inner_module(name: str, table: Mapping[str, str]) -> str | None:
    """The module of this package that a name stands for; None for code of one's own."""
    module = table.get(name, name).partition(":")[0]
    return module if module.partition(".")[0] == __name__.partition(".")[0] else None


def load(name: str, table: Mapping[str, str]) -> Any:
    """The class or function that a name stands for; UserError when there is none."""
    try:
        source_file(name, table)
    except ValueError as error:
        raise UserError(str(error)) from None
    module, _, attribute = table.get(name, name).partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except AttributeError:
        raise UserError(f"{name!r}: module {module} has no {attribute}") from None
