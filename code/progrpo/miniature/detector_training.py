"""The miniature GenEval models: a small Mask2Former that finds the six shapes, and a small CLIP that
names colours.

Both learn from rendered scenes of training records, slightly blurred and noisy because generated images are, and are
saved in the layouts of the real models (`detector/`, `color/`), so that the same code runs them.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

from progrpo.benchmarks.geneval.color import TEMPLATES, ColorClassifier, load_color_classifier, object_crop
from progrpo.benchmarks.geneval.detect import describe
from progrpo.benchmarks.geneval.detector import Detector, TestPipeline, load_detector, preprocess, save_detector
from progrpo.benchmarks.geneval.verdict import summary, verdicts
from progrpo.benchmarks.geneval.vocabulary import COLOR_NAMES_FILE
from progrpo.benchmarks.prompt_sets import Vocabulary
from progrpo.files import write_json, write_text
from progrpo.miniature.prompts import CLASSES, COLORS, TAGS, balanced, held_out_records, split_records
from progrpo.miniature.scenes import SIZE, SceneObject, draw, sample_objects, shape_mask
from progrpo.miniature.text import clip_tokenizer

INPUT, BATCH, QUERIES, WIDTH = 48, 16, 12, 32
DETECTOR_RATE, COLOR_RATE = 1e-3, 1e-3
CLIP_SIDE, CLIP_TOKENS = 16, 12
COLOR_BATCH = 12
COUNTING = 4  # several objects of one kind are the hardest to tell apart, and GenEval counts none below a score of 0.9
PIPELINE = TestPipeline(shortest=INPUT, longest=INPUT, divisor=INPUT)
VOCABULARY = Vocabulary(CLASSES, COLORS)


def build_detector(seed: int) -> Detector:
    """An untrained Mask2Former: Swin of one block per stage, one encoder and two decoder layers, 12 queries."""
    torch.manual_seed(seed)
    backbone = SwinConfig(
        image_size=INPUT,
        patch_size=4,
        embed_dim=16,
        depths=[1] * 4,
        num_heads=[1, 2, 2, 4],
        window_size=3,
        drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=WIDTH,
        mask_feature_size=WIDTH,
        hidden_dim=WIDTH,
        encoder_feedforward_dim=2 * WIDTH,
        dim_feedforward=2 * WIDTH,
        encoder_layers=1,
        decoder_layers=3,
        num_attention_heads=4,
        num_queries=QUERIES,
        train_num_points=196,
        dropout=0.0,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: k for k, name in enumerate(CLASSES)},
    )
    return Detector(Mask2FormerForUniversalSegmentation(config), PIPELINE, CLASSES)


def silhouette(scene_object: SceneObject) -> np.ndarray:
    """Bool mask (24, 24) of an object, its stripes filled: an object is as large striped as solid."""
    mask = np.zeros((SIZE, SIZE), bool)
    x0, y0, x1, y1 = scene_object.box
    mask[y0:y1, x0:x1] = shape_mask(scene_object.name) >= 0.5
    return mask


class Scenes:
    """Draws scenes of records and their imperfect images: every tag equally often, but counting `COUNTING` times as often."""

    def __init__(self, records: list[dict], seed: int):
        by_tag = {tag: [r for r in records if r["tag"] == tag] for tag in TAGS}
        self.groups = [*by_tag.values(), *[by_tag["counting"]] * (COUNTING - 1)]
        self.rng = np.random.default_rng(seed)

    def objects(self) -> list[SceneObject]:
        """The objects of a faithful scene of a random record."""
        group = self.groups[self.rng.integers(len(self.groups))]
        return sample_objects(group[self.rng.integers(len(group))], self.rng)

    def image(self, objects: list[SceneObject]) -> Image.Image:
        """The scene's image; two of three are blended with their blurred selves and get noise, as decoded images
        are."""
        pixels = draw(objects).astype(np.float32)
        if self.rng.random() < 2 / 3:
            rows = (np.roll(pixels, 1, 0) + 2 * pixels + np.roll(pixels, -1, 0)) / 4
            blurred = (np.roll(rows, 1, 1) + 2 * rows + np.roll(rows, -1, 1)) / 4
            pixels += self.rng.uniform(0, 0.7) * (blurred - pixels)
            pixels += self.rng.normal(0, self.rng.uniform(0, 12), pixels.shape)
        return Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))


def fit_detector(detector: Detector, steps: int, seed: int) -> None:
    """Train in place with transformers' own Mask2Former loss (Hungarian matching on class and mask)."""
    scenes = Scenes([r for tag in TAGS for r in split_records(tag)[0]], seed)
    model = detector.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), DETECTOR_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, DETECTOR_RATE, max(steps, 2), pct_start=0.1)
    for step in range(steps):
        batch = [scenes.objects() for _ in range(BATCH)]
        pixels, _ = preprocess([scenes.image(objects) for objects in batch], PIPELINE)
        masks = [torch.from_numpy(np.stack([silhouette(o) for o in objects])).float() for objects in batch]
        labels = [torch.tensor([CLASSES.index(o.name) for o in objects]) for objects in batch]
        loss = model(pixel_values=pixels, mask_labels=masks, class_labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"detector step {step}: loss {loss.item():.3f}", flush=True)
    model.eval()


def build_color_classifier(seed: int) -> ColorClassifier:
    """An untrained CLIP of 16 px with quick-GELU and a tokenizer for the templates' words."""
    torch.manual_seed(seed)
    texts = [template.format(color=color, name=name) for template in TEMPLATES for color in COLORS for name in CLASSES]
    words = sorted({word for text in texts for word in text.replace("-", " - ").split()})
    tokenizer = clip_tokenizer(words, CLIP_TOKENS)
    tower = dict(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, hidden_act="quick_gelu"
    )
    text = dict(
        tower,
        vocab_size=len(tokenizer),
        max_position_embeddings=CLIP_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = dict(tower, image_size=CLIP_SIDE, patch_size=4)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    return ColorClassifier(model, tokenizer, COLORS)


def imperfect_crop(scenes: Scenes, name: str, color: str) -> Image.Image:
    """An object of that class and colour as a detector would cut it out: the mask a little too large, too small or
    shifted."""
    objects = scenes.objects()
    k = scenes.rng.integers(len(objects))
    objects[k] = chosen = replace(objects[k], name=name, color=color)
    mask = silhouette(chosen)
    change = scenes.rng.integers(4)
    shifted = np.roll(mask, tuple(scenes.rng.integers(-1, 2, 2)), (0, 1))
    mask = (mask, mask | shifted, mask & shifted, shifted)[change]
    y, x = np.nonzero(mask)
    return object_crop(scenes.image(objects), mask, [x.min(), y.min(), x.max() + 1, y.max() + 1])


def fit_color_classifier(classifier: ColorClassifier, steps: int, seed: int) -> None:
    """Train in place by CLIP's symmetric contrastive loss: every batch has twelve different (class, colour), each under a
    random template, and every colour of one class."""
    scenes = Scenes([r for tag in TAGS for r in split_records(tag)[0]], seed)
    kinds = [(name, color) for name in CLASSES for color in COLORS]
    model = classifier.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), COLOR_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, COLOR_RATE, max(steps, 2), pct_start=0.1)
    for step in range(steps):
        chosen = [kinds[k] for k in scenes.rng.choice(len(kinds), COLOR_BATCH, replace=False)]
        templates = scenes.rng.integers(2, size=COLOR_BATCH)  # the third names no class: two captions would be equal
        texts = [TEMPLATES[t].format(color=c, name=n) for t, (n, c) in zip(templates, chosen, strict=True)]
        loss = _contrastive(classifier, [imperfect_crop(scenes, n, c) for n, c in chosen], texts, range(COLOR_BATCH))
        by_color = scenes.rng.integers(len(CLASSES)) * len(COLORS) + np.arange(len(COLORS))
        objects = [TEMPLATES[2].format(color=c) for c in COLORS]
        crops = [imperfect_crop(scenes, *kinds[k]) for k in by_color]
        loss = loss + _contrastive(classifier, crops, objects, range(len(COLORS)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"color step {step}: loss {loss.item():.3f}", flush=True)
    model.eval()


def _contrastive(classifier: ColorClassifier, crops: list[Image.Image], texts: list[str], target: range) -> Tensor:
    """CLIP's loss of N crops and their N texts."""
    tokens = classifier.tokenizer(texts, padding=True, return_tensors="pt")
    pixels = torch.cat([classifier.pixels(crop) for crop in crops])
    seen = F.normalize(classifier.model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
    said = F.normalize(classifier.model.get_text_features(**tokens).pooler_output, dim=-1)
    logits = classifier.model.logit_scale.exp() * seen @ said.T
    labels = torch.tensor(list(target))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def box_overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes with exclusive corners."""
    width, height = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in (0, 1))
    shared = max(width, 0) * max(height, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return shared / (areas - shared)


def report(detector: Detector, classifier: ColorClassifier, scenes: int, seed: int) -> dict:
    """What the models see in faithful scenes of held-out records, and in scenes of other records under the same
    prompts."""
    records = balanced(held_out_records(), scenes, seed)
    rng = np.random.default_rng(seed)
    drawn = [sample_objects(record, rng) for record in records]
    hits = objects = 0
    faithful: list[tuple[str, dict]] = []
    mismatched: list[tuple[str, dict]] = []
    for k, record in enumerate(records):
        for shown, lines in ((drawn[k], faithful), (drawn[k - 1], mismatched)):
            image = Image.fromarray(draw(shown))
            found = describe(image, detector.detect([image])[0], record, CLASSES, classifier)
            lines.append((f"scene {k}", {"image": str(k), "metadata": record, "detections": found}))
        sure = [d for d in faithful[-1][1]["detections"] if d["score"] > 0.3]
        for o in drawn[k]:
            objects += 1
            hits += any(d["class"] == o.name and box_overlap(d["box"], o.box) > 0.5 for d in sure)
    right = verdicts(faithful, VOCABULARY)
    scores = summary(records, right)
    wrong = verdicts(mismatched, VOCABULARY)
    return {
        "class_and_box_recall": hits / objects,
        "verdicts_of_faithful_scenes": scores["correct_images"],
        "verdicts_by_tag": {tag: entry["score"] for tag, entry in scores["tags"].items()},
        "verdicts_of_mismatched_scenes": sum(v["correct"] for v in wrong) / len(wrong),
        "scenes": len(records),
    }


def train(
    out: Path | str, detector_steps: int = 12000, color_steps: int = 2500, seed: int = 0, scenes: int = 350
) -> dict:
    """Train both miniatures, save them under `out`, and report what the saved ones see (also in out/report.json)."""
    out, started = Path(out), time.process_time()
    detector, classifier = build_detector(seed), build_color_classifier(seed)
    fit_detector(detector, detector_steps, seed)
    fit_color_classifier(classifier, color_steps, seed)
    seconds = time.process_time() - started
    detector.model.half()  # half the bytes on disk; both run in float32
    classifier.model.half()
    save_detector(out / "detector", detector)
    classifier.model.save_pretrained(out / "color")
    classifier.tokenizer.save_pretrained(out / "color")
    write_text(out / "color" / COLOR_NAMES_FILE, "".join(f"{color}\n" for color in COLORS))
    saved = load_detector(out / "detector"), load_color_classifier(out / "color")
    result = {**report(*saved, scenes, seed + 1), "steps": [detector_steps, color_steps], "seed": seed}
    write_json(out / "report.json", result)
    return {**result, "cpu_seconds": round(seconds)}
