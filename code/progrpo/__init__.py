"""Pro-GRPO: expand-and-prune GRPO for text-to-image models (arXiv 2512.15347).

The pieces for use elsewhere are names of this package, loaded when they are asked for: importing it imports nothing else.
"""

import importlib

_PUBLIC = {  # as text, so that what a job's result depends on stays what the job imports; __init__.pyi has the types
    "optimal_variance_filter": "progrpo.pieces.filtering",
    "sample_pruned": "progrpo.pieces.pruned_sampling",
    "train_pipeline": "progrpo.pieces.train_pipeline",
    "load_config": "progrpo.config",
    "Group": "progrpo.config",
    "Pruning": "progrpo.config",
    "Sampling": "progrpo.config",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
