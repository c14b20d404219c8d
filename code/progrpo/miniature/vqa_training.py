"""The miniature BLIP-VQA: answers "a red circle?" with yes or no, in the layout of the converted real model.

It learns from scenes of training records: a question about a noun chunk of the scene's own prompt or about something
else, the answer read off the scene's objects. A bare "a circle?" is yes for a circle of any colour. Held-out records
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
from progrpo.miniature.prompts import CLASSES, COLORS, NUMBERS, TAGS, held_out_records, split_records
from progrpo.miniature.scenes import SceneObject, draw, sample_objects

SIDE, PATCH, WIDTH, BATCH, LEARNING_RATE = 24, 8, 48, 64, 1e-3
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("yes", "no", "?", "a", "striped", *NUMBERS.values(), *COLORS, *CLASSES, *(f"{name}s" for name in CLASSES))


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


def holds(chunk: str, objects: list[SceneObject]) -> bool:
    """Whether a scene shows what a noun chunk says: at least that many objects of that class, colour and texture."""
    words = chunk.split()
    count = next((n for n, word in NUMBERS.items() if word == words[0]), 1)
    name = words[-1].removesuffix("s") if count > 1 else words[-1]
    color = next((word for word in words if word in COLORS), None)
    texture = "striped" if "striped" in words else None
    matching = [o for o in objects if o.name == name and color in (None, o.color) and texture in (None, o.texture)]
    return len(matching) >= count


def noun_chunks() -> dict[str, list[str]]:
    """Every noun chunk that a miniature prompt can have, by kind."""
    pairs = [(color, name) for color in COLORS for name in CLASSES]
    return {
        "bare": [f"a {name}" for name in CLASSES],
        "colored": [f"a {color} {name}" for color, name in pairs],
        "striped": [f"a striped {color} {name}" for color, name in pairs],
        "counted": [f"{word} {color} {name}s" for word in NUMBERS.values() for color, name in pairs],
    }


KIND_WEIGHTS = {"bare": 3, "colored": 5, "striped": 1, "counted": 1}  # about how often prompts of the tags have them


class Sampler:
    """Draws (image, question, answer) triples, half of the answers yes."""

    def __init__(self, records: list[dict], seed: int):
        self.by_tag = [[r for r in records if r["tag"] == tag] for tag in TAGS]
        self.random, self.numpy = random.Random(seed), np.random.default_rng(seed)
        self.chunks = noun_chunks()

    def scene(self) -> tuple[dict, list[SceneObject]]:
        """A record, every tag equally often, and the objects of a faithful scene of it."""
        record = self.random.choice(self.random.choice(self.by_tag))
        return record, sample_objects(record, self.numpy)

    def _question(self, objects: list[SceneObject], wanted: bool) -> str:
        """A noun chunk that is true or false of a scene.

        Half of the false ones come near the truth: they name the class or the colour of an object that is there.
        """
        fitting: list[str] = []
        while not fitting:
            (kind,) = self.random.choices(list(KIND_WEIGHTS), list(KIND_WEIGHTS.values()))
            fitting = [chunk for chunk in self.chunks[kind] if holds(chunk, objects) == wanted]
        near = [c for c in fitting if any(o.name in c or o.color in c for o in objects)]
        return self.random.choice(near if near and self.random.random() < 0.5 else fitting)

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
    """How well it sees held-out records: answers right, and the mean score of faithful and of mismatched scenes."""
    sampler = Sampler(held_out_records(), seed)
    images, asked, answers = sampler.batch(scenes)
    batch = torch.stack([pixels(Image.fromarray(image), SIDE) for image in images])
    found = torch.tensor([p[0] for p in yes_probabilities(vqa, batch, [[q] for q in asked])])
    right = ((found > 0.5) == answers).float().mean().item()
    chunker, faithful, mismatched = TemplateChunker(), [], []
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


def train(out: Path | str, steps: int = 2800, seed: int = 0, scenes: int = 500) -> dict:
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
