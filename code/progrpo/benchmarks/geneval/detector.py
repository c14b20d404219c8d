"""Mask2Former on transformers with the test pipeline and the post-processing of mmdet 2.x, which GenEval's
numbers rest on.

transformers' own processor is not used: it resizes with antialiasing, its post-processing fixes masks at 384
x 384 and drops empty ones.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import BaseModel, Field
from torch import Tensor
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

from progrpo.benchmarks.geneval.mmdet_checkpoint import NOT_IN_MMDET, SWIN, convert_mmdet
from progrpo.benchmarks.geneval.vocabulary import OBJECT_NAMES_FILE, detector_classes, geneval_vocabulary
from progrpo.errors import UserError
from progrpo.files import read_object, require_folder, write_json, write_text
from progrpo.model_files import check_model_folder, open_network, reading_model, require_sane
from progrpo.rewards.base import freeze, load_state, load_weights
from progrpo.typed import Number, check

TOP = 100  # instances per image (mmdet's max_per_image)
MMDET_GREY = 128.0  # mmdet 2.27.0, mask2former_r50_lsj_8x2_50e_coco.py: pad_cfg, padded before Normalize
HEAD_WIDTH = 32  # of an attention head of the pixel decoder and of the transformer
Spread = Annotated[float, Field(gt=0, le=1000)]
IMAGENET_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
IMAGENET_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)


@dataclass(frozen=True)
class TestPipeline:
    """How an image becomes input: the shorter side to `shortest`, unless the longer one would exceed
    `longest`; then padding with a grey level of 255, or None for zeros of normalised pixels."""

    shortest: int = 800
    longest: int = 1333
    divisor: int = 32
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    padding: float | None = None

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after the keep-ratio resize, rounded as mmcv.rescale_size does."""
        scale = min(self.longest / max(height, width), self.shortest / min(height, width))
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))  # of a line of pixels, one stays


class Size(BaseModel):
    """Sides in pixels between which an image is resized, its ratio kept."""

    shortest_edge: Annotated[int, Field(ge=1, le=8192)]
    longest_edge: Annotated[int, Field(ge=1, le=8192)]


class Preprocessor(BaseModel):
    """preprocessor_config.json, as far as it is read."""

    size: Size
    size_divisor: Annotated[int, Field(ge=1, le=1024)] = 32
    image_mean: tuple[Number, Number, Number] = IMAGENET_MEAN
    image_std: tuple[Spread, Spread, Spread] = IMAGENET_STD
    padding: Annotated[float, Field(ge=0, le=255)] | None = None  # ours, for mmdet's weights: see `TestPipeline`


@dataclass(frozen=True)
class Instances:
    """The detections of one image: labels (k,), scores (k,), boxes (k, 4) as [x0, y0, x1, y1] exclusive,
    masks (k, H, W) bool."""

    labels: Tensor
    scores: Tensor
    boxes: Tensor
    masks: Tensor


def read_pipeline(folder: Path, padding: float | None = None) -> TestPipeline:
    """The test pipeline that a model folder's preprocessor_config.json asks for.

    padding: where the file names none. Meta's weights, which the hub has, were trained with zeros after normalisation (detectron2).

    Its `size` counts when it says shortest_edge and longest_edge; a fixed height x width (the hub's 384 x
    384) is not GenEval's protocol, and 800/1333 is used instead, as when there is no such file.
    """
    path = folder / "preprocessor_config.json"
    settings = read_object(path) if path.is_file() else {}
    size = settings.get("size") or {}
    if not isinstance(size, dict) or not {"shortest_edge", "longest_edge"} <= set(size):
        return TestPipeline(padding=padding)
    check(Preprocessor, settings, path)
    return TestPipeline(
        size["shortest_edge"],
        size["longest_edge"],
        settings.get("size_divisor", 32),
        tuple(settings.get("image_mean", IMAGENET_MEAN)),
        tuple(settings.get("image_std", IMAGENET_STD)),
        settings.get("padding", padding),
    )


def preprocess(images: list[Image.Image], pipeline: TestPipeline) -> tuple[Tensor, tuple[int, int]]:
    """(pixels (B, 3, H, W) padded to the divisor, (height, width) before padding) of RGB images of one size.

    The resize is bilinear without antialiasing and rounds to 8 bits, like cv2's INTER_LINEAR in mmcv (up to
    one step of its fixed-point arithmetic). Padded are the right and the bottom.
    """
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).float()
    height, width = pipeline.resized(*pixels.shape[-2:])
    pixels = F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False).round().clamp(0, 255)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (pipeline.mean, pipeline.std))
    pixels = (pixels / 255 - mean) / std
    grey = torch.zeros(3) if pipeline.padding is None else (pipeline.padding / 255 - mean.flatten()) / std.flatten()
    padded_height, padded_width = (side + -side % pipeline.divisor for side in (height, width))
    padded = grey.view(1, 3, 1, 1).repeat(len(pixels), 1, padded_height, padded_width)
    padded[..., :height, :width] = pixels
    return padded, (height, width)


def mask_boxes(masks: Tensor) -> Tensor:
    """Tight boxes (k, 4) float [x0, y0, x1 + 1, y1 + 1] of masks (k, H, W); zeros for an empty mask."""
    boxes = torch.zeros(len(masks), 4)
    columns, rows = masks.any(1), masks.any(2)
    for k in range(len(masks)):
        x, y = columns[k].nonzero()[:, 0], rows[k].nonzero()[:, 0]
        if len(x):
            boxes[k] = torch.tensor([x[0], y[0], x[-1] + 1, y[-1] + 1], dtype=torch.float32)
    return boxes


def instances(
    class_logits: Tensor, mask_logits: Tensor, padded: tuple, valid: tuple, original: tuple, top: int = TOP
) -> Instances:
    """Instances of one image from raw logits, as mmdet's MaskFormerFusionHead makes them.

    class_logits (Q, C + 1) with "no object" last, mask_logits (Q, h, w). Masks go by bilinear interpolation
    of the logits to the padded input, are cropped to its valid part, go to the original size (all sizes
    (height, width)), and are cut at 0. The top (query, class) pairs by class probability count, each with
    score = class probability x mean mask probability inside the mask.
    """
    logits = F.interpolate(mask_logits[None], size=padded, mode="bilinear", align_corners=False)
    logits = logits[..., : valid[0], : valid[1]]
    logits = F.interpolate(logits, size=original, mode="bilinear", align_corners=False)[0]
    probability = class_logits.softmax(-1)[:, :-1]
    scores, index = probability.flatten().topk(min(top, probability.numel()), sorted=False)
    query, labels = index // probability.shape[1], index % probability.shape[1]
    masks = logits > 0  # (Q, H, W)
    inside = (logits.sigmoid() * masks).flatten(1).sum(1) / (masks.flatten(1).sum(1) + 1e-6)
    boxes = mask_boxes(masks.cpu()).to(scores.device)
    return Instances(labels, scores * inside[query], boxes[query], masks[query])


class Detector:
    """A Mask2Former model with its test pipeline and its class names."""

    def __init__(self, model: Mask2FormerForUniversalSegmentation, pipeline: TestPipeline, classes: tuple[str, ...]):
        if model.config.num_labels != len(classes):
            raise UserError(f"the detector has {model.config.num_labels} labels but {len(classes)} class names")
        self.model, self.pipeline, self.classes = model, pipeline, classes

    @torch.no_grad()
    def detect(self, images: list[Image.Image]) -> list[Instances]:
        """Raw instances of RGB images of one size, at most `TOP` each, on the CPU."""
        pixels, valid = preprocess(images, self.pipeline)
        output = self.model(pixel_values=pixels.to(self.model.device))
        original = images[0].size[::-1]
        found = []
        for classes, masks in zip(output.class_queries_logits, output.masks_queries_logits, strict=True):
            result = instances(classes, masks, tuple(pixels.shape[-2:]), valid, original)
            found.append(Instances(*(t.cpu() for t in (result.labels, result.scores, result.boxes, result.masks))))
        return found


def config_of(state: dict[str, Tensor]) -> Mask2FormerConfig:
    """transformers' config of a converted mmdet state dict: its sizes from the shapes, the rest as mmdet's config has it.

    The benchmark's detector is Swin-S with 100 queries and 6 + 9 layers. Its heads are 32 wide, its classes GenEval's 80. KeyError
    for a state dict that lacks a module.
    """
    pixel, decoder = "model.pixel_level_module.decoder", "model.transformer_module.decoder"
    names = geneval_vocabulary().classes
    queries, width = state["model.transformer_module.queries_embedder.weight"].shape
    return Mask2FormerConfig(
        backbone_config=_swin_config(state, SWIN),
        feature_size=state[f"{pixel}.input_projections.0.0.weight"].shape[0],
        mask_feature_size=state[f"{pixel}.mask_projection.weight"].shape[0],
        hidden_dim=width,
        num_attention_heads=max(1, width // HEAD_WIDTH),
        num_queries=queries,
        encoder_layers=_count(state, f"{pixel}.encoder.layers."),
        encoder_feedforward_dim=state[f"{pixel}.encoder.layers.0.fc1.weight"].shape[0],
        decoder_layers=_count(state, f"{decoder}.layers.")
        + 1,  # transformers counts the prediction from the queries themselves
        dim_feedforward=state[f"{decoder}.layers.0.fc1.weight"].shape[0],
        id2label=dict(enumerate(names)),
        label2id={name: k for k, name in enumerate(names)},
    )


def _swin_config(state: dict[str, Tensor], prefix: str) -> SwinConfig:
    stages = range(_count(state, f"{prefix}.encoder.layers."))
    table = "blocks.0.attention.relative_position_bias.relative_position_bias_table"
    tables = [state[f"{prefix}.encoder.layers.{k}.{table}"] for k in stages]  # ((2 window - 1)^2, heads) of each stage
    return SwinConfig(
        image_size=224,
        embed_dim=state[f"{prefix}.embeddings.patch_embeddings.projection.weight"].shape[0],
        depths=[_count(state, f"{prefix}.encoder.layers.{k}.blocks.") for k in stages],
        num_heads=[biases.shape[1] for biases in tables],
        window_size=(math.isqrt(tables[0].shape[0]) + 1) // 2,
        out_features=[f"stage{k + 1}" for k in stages],
    )


def _count(state: dict[str, Tensor], prefix: str) -> int:
    return len({key.removeprefix(prefix).partition(".")[0] for key in state if key.startswith(prefix)})


def from_mmdet(checkpoint: Path, config: Mask2FormerConfig | None = None) -> Mask2FormerForUniversalSegmentation:
    """transformers' model with the weights of an mmdet 2.x checkpoint, of the architecture `config` or that of the file's shapes.

    UserError: no such file, a key that no rule knows, a missing weight, a wrong shape.
    """
    state, unknown = convert_mmdet(load_weights("mask2former", checkpoint))
    if unknown:
        raise UserError(
            f"mask2former: {checkpoint}: unexpected key {unknown[0]!r}; expected an mmdet 2.x Mask2Former (Swin)"
        )
    try:
        model = Mask2FormerForUniversalSegmentation(config or config_of(state))
    except KeyError as error:
        raise UserError(
            f"mask2former: {checkpoint}: key {error} is missing; expected an mmdet 2.x Mask2Former (Swin)"
        ) from None
    own = model.state_dict()
    load_state("mask2former", checkpoint, model, {**{key: own[key] for key in NOT_IN_MMDET}, **state})
    return model


def save_detector(folder: Path, detector: Detector) -> None:
    """Write a detector as a transformers model folder with preprocessor_config.json and object_names.txt.

    UserError where a file is in its place.
    """
    require_folder(folder)
    detector.model.save_pretrained(folder)
    pipeline = detector.pipeline
    settings = {
        "image_processor_type": "Mask2FormerImageProcessor",
        "size": {"shortest_edge": pipeline.shortest, "longest_edge": pipeline.longest},
        "size_divisor": pipeline.divisor,
        "image_mean": list(pipeline.mean),
        "image_std": list(pipeline.std),
        **({} if pipeline.padding is None else {"padding": pipeline.padding}),
        "resample": 2,
        "ignore_index": 255,
        "num_labels": len(detector.classes),
    }
    write_json(Path(folder) / "preprocessor_config.json", settings)
    write_text(Path(folder) / OBJECT_NAMES_FILE, "".join(f"{name}\n" for name in detector.classes))


def load_detector(path: Path | str, device: torch.device | str = "cpu", config_from: Path | None = None) -> Detector:
    """A detector from a transformers folder, or from an mmdet .pth file.

    config_from: folder whose config.json gives the .pth's architecture (default: that of its shapes).
    UserError: nothing there, another kind of model, missing weights.
    """
    path = Path(path)
    if path.suffix == ".pth":
        config = _config_of(Path(config_from)) if config_from else None
        classes = detector_classes(Path(config_from)) if config_from else geneval_vocabulary().classes
        pipeline = read_pipeline(Path(config_from), MMDET_GREY) if config_from else TestPipeline(padding=MMDET_GREY)
        return Detector(freeze(from_mmdet(path, config), torch.device(device)), pipeline, classes)
    if config_from:
        raise UserError(f"--config-from {config_from}: is for a .pth; {path} has its own configuration")
    check_model_folder(path, "mask2former")
    model = open_network(Mask2FormerForUniversalSegmentation, path, absent=NOT_IN_MMDET)
    return Detector(freeze(model, torch.device(device)), read_pipeline(path), detector_classes(path))


def _config_of(folder: Path) -> Mask2FormerConfig:
    require_sane(folder)
    with reading_model(folder):
        return Mask2FormerConfig.from_pretrained(folder, local_files_only=True)
