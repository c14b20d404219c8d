"""The miniature BLIP-VQA: answers "a red circle?" with yes or no, in the layout of the converted real model.

It learns from scenes of training records: a question about one of a scene's objects or about something like it, the
answer read off the scene's objects. A bare "a circle?" is yes for a circle of any colour and texture. Held-out records
are left for the report.
"""

import random
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import BertTokenizer, BlipConfig, BlipForQuestionAnswering

from progrpo.benchmarks.compbench.blip import BOS, ENC, BlipVqa, load_vqa, save_vqa
from progrpo.benchmarks.compbench.chunks import TemplateChunker
from progrpo.benchmarks.compbench.vqa import image_score, pixels, questions, yes_probabilities
from progrpo.files import write_json
from progrpo.miniature.prompts import (
    CLASSES,
    COLORS,
    NUMBERS,
    TAGS,
    TEXTURES,
    held_out_records,
    noun_phrase,
    plural,
    split_records,
)
from progrpo.miniature.scenes import SceneObject, draw, sample_objects
from progrpo.miniature.world import COMPBENCH_TAGS

SIDE, PATCH, WIDTH, BATCH, LEARNING_RATE = 24, 8, 64, 64, 1e-3
JUDGED_TAGS = tuple(tag for category, tag in COMPBENCH_TAGS.items() if category != "spatial")  # a detector judges that
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("yes", "no", "?", "a", *TEXTURES[1:], *NUMBERS.values(), *COLORS, *CLASSES, *map(plural, CLASSES))


def build(seed: int) -> BlipVqa:
    """An untrained miniature with its tokenizer."""
    torch.manual_seed(seed)
    layers = dict(
        hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2, num_attention_heads=4, hidden_act="gelu"
    )
    vocabulary = (*SPECIAL, *WORDS, BOS, ENC)
    with TemporaryDirectory() as folder:
        (Path(folder) / "vocab.txt").write_text("".join(f"{word}\n" for word in (*SPECIAL, *WORDS)))
        tokenizer = BertTokenizer.from_pretrained(folder)
    text = dict(
        layers,
        vocab_size=len(vocabulary),
        encoder_hidden_size=WIDTH,
        is_decoder=True,
        layer_norm_eps=1e-12,
        max_position_embeddings=16,
        bos_token_id=vocabulary.index(BOS),
        sep_token_id=vocabulary.index("[SEP]"),
        pad_token_id=0,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    vision = dict(layers, image_size=SIDE, patch_size=PATCH, layer_norm_eps=1e-6)
    model = BlipForQuestionAnswering(BlipConfig(text_config=text, vision_config=vision))
    _initialise(model)
    return BlipVqa(model, tokenizer)


def _initialise(model: BlipForQuestionAnswering) -> None:
    """Weights of variance 1 / inputs: BLIP's own 0.02 (1e-10 in the vision tower) is far too small for this width."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        elif isinstance(module, torch.nn.Embedding):
            torch.nn.init.normal_(module.weight, std=WIDTH**-0.5)
    embeddings = model.vision_model.embeddings
    for parameter in (embeddings.class_embedding, embeddings.position_embedding):
        torch.nn.init.normal_(parameter, std=0.5)


def shows(clause: dict, objects: list[SceneObject]) -> bool:
    """Whether a scene shows at least `count` objects of a clause's class and, where it has them, colour and texture."""
    matching = [
        o
        for o in objects
        if o.name == clause["class"]
        and clause.get("color", o.color) == o.color
        and clause.get("texture", o.texture) == o.texture
    ]
    return len(matching) >= clause["count"]


# how often questions give an object's (colour, texture), about as often as noun phrases of the tags that are asked do
LOOK_WEIGHTS = {(): 3, ("color",): 5, ("texture",): 4, ("color", "texture"): 2}
COUNTED_SHARE = 0.1  # of questions that ask for more than one


class Sampler:
    """Draws (image, question, answer) triples, half of the answers yes."""

    def __init__(self, records: list[dict], seed: int):
        self.by_tag = [group for tag in TAGS if (group := [r for r in records if r["tag"] == tag])]
        self.random, self.numpy = random.Random(seed), np.random.default_rng(seed)

    def scene(self) -> tuple[dict, list[SceneObject]]:
        """A record, every tag equally often, and the objects of a faithful scene of it."""
        record = self.random.choice(self.random.choice(self.by_tag))
        return record, sample_objects(record, self.numpy)

    def _question(self, objects: list[SceneObject], wanted: bool) -> str:
        """A noun phrase that is true or false of a scene.

        A true one describes one of its objects; a false one the same with each attribute redrawn half of the time,
        so that many of the false ones are wrong in one attribute alone.
        """
        looks = list(LOOK_WEIGHTS)
        while True:
            shown, (keys,) = self.random.choice(objects), self.random.choices(looks, list(LOOK_WEIGHTS.values()))
            values = {"class": shown.name, "color": shown.color, "texture": shown.texture}
            if not wanted:
                choices = {"class": CLASSES, "color": COLORS, "texture": TEXTURES}
                values = {
                    k: v if self.random.random() < 0.5 else self.random.choice(choices[k]) for k, v in values.items()
                }
            if "texture" in keys and values["texture"] == TEXTURES[0]:
                continue  # prompts name no solid object
            count = self.random.choice(list(NUMBERS)) if self.random.random() < COUNTED_SHARE else 1
            clause = {"count": count, **{k: v for k, v in values.items() if k in ("class", *keys)}}
            if shows(clause, objects) == wanted:
                return noun_phrase(clause)

    def batch(self, size: int) -> tuple[list[np.ndarray], list[str], Tensor]:
        """(images (24, 24, 3) uint8, questions, answers (size,) bool)."""
        images, asked, answers = [], [], []
        for _ in range(size):
            _, objects = self.scene()
            wanted = self.random.random() < 0.5
            images.append(draw(objects))
            asked.append(self._question(objects, wanted) + "?")
            answers.append(wanted)
        return images, asked, torch.tensor(answers)


def _loss(vqa: BlipVqa, images: list[np.ndarray], asked: list[str], answers: Tensor) -> Tensor:
    """Cross-entropy of the first decoded token, questions of one length at a time as in evaluation."""
    batch = torch.stack([pixels(Image.fromarray(image), SIDE) for image in images])
    patches = vqa.model.vision_model(pixel_values=batch).last_hidden_state
    tokens = [vqa.tokens(question) for question in asked]
    total = torch.zeros(())
    for length in sorted({len(t) for t in tokens}):
        chosen = [k for k, t in enumerate(tokens) if len(t) == length]
        logits = vqa.first_token_logits(patches[chosen], torch.tensor([tokens[k] for k in chosen]))
        target = torch.where(answers[chosen], vqa.yes, vqa.no)
        total = total + F.cross_entropy(logits, target, reduction="sum")
    return total / len(asked)


def fit(vqa: BlipVqa, steps: int, seed: int) -> float:
    """Train in place on scenes of training records; the last step's loss."""
    sampler = Sampler([r for tag in TAGS for r in split_records(tag)[0]], seed)
    optimizer = torch.optim.AdamW(vqa.model.parameters(), LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, max(steps, 2), pct_start=0.1)
    vqa.model.train()
    for step in range(steps):
        loss = _loss(vqa, *sampler.batch(BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    vqa.model.eval()
    return loss.item()


def report(vqa: BlipVqa, scenes: int, seed: int) -> dict:
    """How well it sees held-out records of the tags that it judges: answers right, and the mean score of faithful and of
    mismatched scenes."""
    sampler = Sampler([r for r in held_out_records() if r["tag"] in JUDGED_TAGS], seed)
    images, asked, answers = sampler.batch(scenes)
    batch = torch.stack([pixels(Image.fromarray(image), SIDE) for image in images])
    found = torch.tensor([p[0] for p in yes_probabilities(vqa, batch, [[q] for q in asked])])
    right = ((found > 0.5) == answers).float().mean().item()
    chunker = TemplateChunker()
    faithful: list[float] = []
    mismatched: list[float] = []
    for _ in range(scenes):
        (record, objects), (_, others) = sampler.scene(), sampler.scene()
        texts = questions(chunker.chunks(record["prompt"]))
        for shown, scores in ((objects, faithful), (others, mismatched)):
            image = pixels(Image.fromarray(draw(shown)), SIDE)[None]
            scores.append(image_score(yes_probabilities(vqa, image, [texts])[0]))
    return {
        "held_out_answers_right": right,
        "faithful_score": float(np.mean(faithful)),
        "mismatched_score": float(np.mean(mismatched)),
        "scenes": scenes,
    }


def train(out: Path | str, steps: int = 4000, seed: int = 0, scenes: int = 500) -> dict:
    """Train the miniature BLIP-VQA, save it under `out`, and report what the saved model sees (also in
    out/report.json)."""
    started = time.process_time()
    vqa = build(seed)
    fit(vqa, steps, seed)
    seconds = time.process_time() - started
    vqa.model.half()  # half the bytes on disk; it runs in float32
    save_vqa(out, vqa)
    result = {**report(load_vqa(out), scenes, seed + 1), "steps": steps, "seed": seed}
    write_json(Path(out) / "report.json", result)
    return {**result, "cpu_seconds": round(seconds)}
