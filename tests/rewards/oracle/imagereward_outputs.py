"""Scores of the original `image-reward` package on reproducible random weights, for tests/rewards/test_imagereward.py.

The package does not run on this project's transformers, so it gets an environment of its own (Python 3.11):

    python3.11 -m venv oracle-env
    oracle-env/bin/pip install torch==2.13.0
    oracle-env/bin/pip install torchvision==0.28.0 transformers==4.55.4 timm==1.0.31 diffusers==0.35.2 \
        "accelerate<1.12" "datasets<4.5" fairscale==0.4.13 setuptools==80.10.2 ftfy regex
    oracle-env/bin/pip install --no-deps image-reward==1.5 clip-anytorch==2.6.0
    oracle-env/bin/python tests/rewards/oracle/imagereward_outputs.py tests/rewards/data/imagereward.json

What is original: VisionTransformer, BertModel with cross-attention, MLP, the transform, `ImageReward.score`. What
is replaced, because the package fixes it: the vision tower's size, and the tokenizer, which would be downloaded.
The weights and images are not stored: `random_state` and `random_images` draw them from numpy's frozen RandomState,
here and in the test. The file also holds the names and shapes of the full-size state dict.
"""

import importlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

MODULE = "ImageReward.ImageReward"
SEED = 20231
IMAGE_SIZE = 32
WORDS = [
    "a",
    "red",
    "green",
    "blue",
    "circle",
    "square",
    "of",
    "and",
    "on",
    "the",
    "left",
    "right",
    "two",
    "three",
    "painting",
    ",",
    ".",
    "ocean",
    "sky",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MED_CONFIG = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 40,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 64,
    "model_type": "bert",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "add_type_embeddings": False,
    "vocab_size": len(SPECIAL) + len(WORDS) + 2,
    "encoder_width": 128,
    "add_cross_attention": True,
}
FULL_CONFIG = MED_CONFIG | {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "vocab_size": 30524,
    "encoder_width": 1024,
}
PROMPTS = [
    "a red circle",
    "a painting of the ocean and sky, blue on the left",
    "two green squares of a red unicorn . " * 8,  # truncated at 35 tokens, with unknown words
]
IMAGE_SHAPES = [(32, 32), (48, 64), (75, 40)]  # height, width


def random_state(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """A state dict with these shapes: normal, scaled by fan-in, in sorted order of the keys."""
    draw = np.random.RandomState(SEED)
    state = {}
    for key in sorted(shapes):
        values = draw.standard_normal(shapes[key])
        scale = 2 * float(np.prod(shapes[key][1:])) ** -0.5 if len(shapes[key]) > 1 else 0.1
        offset = float("norm" in key.lower() and key.endswith("weight"))
        state[key] = torch.tensor(offset + scale * values, dtype=torch.float32)
    return state


def random_images() -> list[np.ndarray]:
    """uint8 images (H, W, 3) of several sizes: coarse blocks under noise."""
    draw = np.random.RandomState(SEED + 1)
    images = []
    for height, width in IMAGE_SHAPES:
        blocks = np.kron(draw.randint(0, 256, (8, 8, 3)), np.ones((height // 8 + 1, width // 8 + 1, 1)))
        noisy = blocks[:height, :width] + draw.randint(-20, 21, (height, width, 3))
        images.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return images


def _schemas() -> torch.library.Library:
    """The operators that a torchvision built for CUDA misses beside a CPU build of torch; keep the result."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _tokenizer(folder: Path):
    from transformers import BertTokenizer

    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(SPECIAL + WORDS) + "\n")
    tokenizer = BertTokenizer(vocab_file=str(vocabulary))
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    tokenizer.enc_token_id = tokenizer.additional_special_tokens_ids[0]
    return tokenizer


def _shapes(model: torch.nn.Module) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in model.state_dict().items()}


def small_model(folder: Path):
    """The package's ImageReward with a vision tower of 2 layers and width 128, and a text tower of width 32."""
    module = importlib.import_module(MODULE)  # the package hides the module behind the class of the same name
    from ImageReward.models.BLIP import blip_pretrain
    from ImageReward.models.BLIP.vit import VisionTransformer

    sizes = dict(img_size=IMAGE_SIZE, patch_size=16, embed_dim=128, depth=2, num_heads=2)
    blip_pretrain.create_vit = lambda *_: (VisionTransformer(**sizes), 128)
    blip_pretrain.init_tokenizer = lambda: _tokenizer(folder)
    config = folder / "med_config.json"
    config.write_text(json.dumps(MED_CONFIG))
    model = module.ImageReward(med_config=str(config)).eval()
    model.mlp = module.MLP(MED_CONFIG["hidden_size"]).eval()
    model.preprocess = module._transform(IMAGE_SIZE)
    return model


def full_size_shapes(folder: Path) -> dict[str, list[int]]:
    """Names and shapes of the published architecture's state dict; nothing is allocated."""
    module = importlib.import_module(MODULE)
    from ImageReward.models.BLIP import blip_pretrain

    blip_pretrain.init_tokenizer = lambda: _tokenizer(folder)
    config = folder / "med_config.json"
    config.write_text(json.dumps(FULL_CONFIG))
    linspace = torch.linspace  # the tower's drop-path schedule calls .item(), which needs real numbers
    torch.linspace = lambda *a, **k: linspace(*a, **(k | {"device": "cpu"}))
    with torch.device("meta"):
        return _shapes(module.ImageReward(med_config=str(config)))


def main(out: str) -> None:
    """Write the data file of the tests."""
    from PIL import Image

    keep = _schemas()  # noqa: F841
    import transformers

    with tempfile.TemporaryDirectory() as name:
        full = full_size_shapes(Path(name))
        model = small_model(Path(name))
        shapes = {key: shape for key, shape in _shapes(model).items() if not key.endswith("position_ids")}
        model.load_state_dict(random_state(shapes), strict=False)
        with torch.no_grad():
            scores = [[model.score(p, Image.fromarray(image)) for p in PROMPTS] for image in random_images()]
    data = {
        "versions": {"image-reward": "1.5", "torch": torch.__version__, "transformers": transformers.__version__},
        "med_config": MED_CONFIG,
        "vocabulary": SPECIAL + WORDS,
        "prompts": PROMPTS,
        "shapes": shapes,
        "scores": scores,
        "full_size_med_config": FULL_CONFIG,
        "full_size_shapes": full,
    }
    Path(out).write_text(json.dumps(data) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
