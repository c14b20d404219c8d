"""Let a torchvision wheel built for CUDA live beside a CPU build of torch. Import before transformers, diffusers, open_clip.

Such a wheel's compiled library cannot load, so the operators `torchvision::nms` and `torchvision::qnms`, whose shape functions it
registers at import, do not exist, and the import fails and takes transformers, diffusers and open_clip with it. Defining the two
schemas first is enough for everything this project uses (transforms; never `torchvision.ops.nms`). With a CUDA build of torch, or
where torchvision registers the operators itself, nothing is done.
"""

import torch

_library = None
if torch.version.cuda is None and torch.version.hip is None:
    _library = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
