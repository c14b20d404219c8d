"""T2I-CompBench++'s attribute scores by disentangled BLIP-VQA: colour, shape, texture (BLIPvqa_eval/BLIP_vqa.py).

One question per noun chunk ("a green bench?"); p = P(yes) / (P(yes) + P(no)) of the answer's first token; the image's
score is the product over the chunks. Probabilities and scores are rounded to four decimals where the original formats
them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from progrpo.benchmarks.compbench.blip import BlipVqa
from progrpo.benchmarks.compbench.chunks import SKIPPED, Chunker, left_out
from progrpo.benchmarks.images import list_images, open_image
from progrpo.rewards.preprocess import CLIP_MEAN, CLIP_STD

MAX_CHUNKS, MAX_WORDS = 8, 50  # np_num; max_ques_words of BLIPvqa_eval's pre_question


def questions(chunks: list[str]) -> list[str]:
    """The questions of a prompt's noun chunks, at most eight, cleaned as BLIP's `pre_question` does."""
    kept = [chunk for chunk in chunks if chunk not in SKIPPED][:MAX_CHUNKS]
    cleaned = [re.sub(r"([.!\"()*#:;~])", "", f"{chunk}?".lower()).rstrip(" ") for chunk in kept]
    return [" ".join(question.split(" ")[:MAX_WORDS]) for question in cleaned]


def image_score(probabilities: list[float]) -> float:
    """The score of an image: the float32 product of probabilities with four decimals, with four decimals; 1 without
    questions."""
    product = np.float32(1)
    for p in probabilities:
        product *= np.float32(f"{p:.4f}")
    return float(f"{product.item():.4f}")


def pixels(image: Image.Image, size: int) -> Tensor:
    """(3, size, size) input of an RGB image: squeezed to a square by PIL's bicubic filter, CLIP's mean and std."""
    array = np.array(image.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    return (torch.from_numpy(array).permute(2, 0, 1) - mean) / std


@dataclass(frozen=True)
class Question:
    """A question about image number `image` of a batch."""

    image: int
    tokens: tuple[int, ...]


@torch.no_grad()
def yes_probabilities(vqa: BlipVqa, batch: Tensor, asked: list[list[str]]) -> list[list[float]]:
    """P(yes) / (P(yes) + P(no)) of every question about every image.

    batch: (B, 3, size, size); asked: B lists of questions. Questions of one token length run together and none is
    padded, because transformers' BLIP ignores the mask of padded questions in the decoder.
    """
    patches = vqa.model.vision_model(pixel_values=batch.to(vqa.model.device)).last_hidden_state
    listed = [Question(b, vqa.tokens(q)) for b, questions in enumerate(asked) for q in questions]
    answers = [0.0] * len(listed)
    for length in sorted({len(q.tokens) for q in listed}):
        chosen = [k for k, q in enumerate(listed) if len(q.tokens) == length]
        ids = torch.tensor([listed[k].tokens for k in chosen], device=patches.device)
        seen = patches[torch.tensor([listed[k].image for k in chosen], device=patches.device)]
        for k, p in zip(chosen, vqa.probability(seen, ids).tolist(), strict=True):
            answers[k] = p
    result: list[list[float]] = [[] for _ in asked]
    for question, p in zip(listed, answers, strict=True):
        result[question.image].append(p)
    return result


def vqa_scores(
    folder: Path | str,
    vqa: BlipVqa,
    chunker: Chunker,
    batch_size: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
    allow_partial: bool = False,
) -> list[dict]:
    """[{"image", "prompt", "questions", "probabilities", "score"}] of the images of a folder.

    UserError: an empty folder, a partial one unless allow_partial, an image that does not open. A word that the tokenizer
    lacks is [UNK], as in the original.
    """
    images, lines = list_images(folder, allow_partial), []
    for start in range(0, len(images), batch_size):
        items = images[start : start + batch_size]
        asked = [questions(chunker.chunks(item.prompt)) for item in items]
        batch = torch.stack([pixels(open_image(item.path), vqa.image_size) for item in items])
        for item, texts, answers in zip(items, asked, yes_probabilities(vqa, batch, asked), strict=True):
            rounded = [float(f"{p:.4f}") for p in answers]
            score = image_score(answers)
            lines.append(
                {
                    "image": item.name,
                    "prompt": item.prompt,
                    "questions": texts,
                    "probabilities": rounded,
                    "score": score,
                }
            )
        progress(len(lines), len(images))
    return lines


def summary(lines: list[dict], category: str, vqa: BlipVqa, chunker: Chunker) -> dict:
    """The category's score (mean over images) with what it was measured by."""
    return {
        "metric": "blip_vqa",
        "category": category,
        "score": fmean(line["score"] for line in lines),
        "images": len(lines),
        **({"left_out": less} if (less := left_out(line["prompt"] for line in lines)) else {}),
        "chunker": chunker.name,
        "image_size": vqa.image_size,
    }
