"""Lets a torchvision built for CUDA live beside a CPU build of torch: `import torchvision`, and so diffusers, works anywhere.

The compiled library of such a wheel cannot load, so the operators `nms` and `qnms`, whose shape functions torchvision registers at
import, do not exist, and the import fails and takes transformers, diffusers and open_clip with it. Defining the two schemas first is
enough for all but the operators themselves. setup.py installs this module into site-packages beside a .pth file that imports it when
Python starts: nothing is imported or defined before torchvision itself is imported, and nothing where its own library loads.
"""

import sys
from importlib.machinery import PathFinder
from pathlib import Path

OPERATORS = ("nms", "qnms")
_library = None  # the schemas live as long as this


class BeforeTorchvision:
    """A finder of the one module `torchvision`: as Python finds it, but its operators are defined before it runs."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """The spec of `torchvision`, or None for any other module and where there is none."""
        spec = PathFinder.find_spec(name, path) if name == "torchvision" else None
        if spec is None or spec.origin is None:
            return None
        run = spec.loader.exec_module

        def define_and_run(module):
            _define_missing_operators(Path(spec.origin).parent)
            run(module)

        spec.loader.exec_module = define_and_run
        return spec


def _define_missing_operators(folder):
    global _library
    import torch

    try:
        for compiled in folder.glob("_C.*"):
            torch.ops.load_library(compiled)
    except OSError:  # built for another torch; torchvision passes over it in the same way
        pass
    missing = [name for name in OPERATORS if not hasattr(torch.ops.torchvision, name)]
    if missing:
        _library = torch.library.Library("torchvision", "FRAGMENT")
        for name in missing:
            _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, BeforeTorchvision)
