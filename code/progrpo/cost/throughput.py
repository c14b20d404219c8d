"""Images per second of each scorer at full size with random weights: a batch against one image at a time."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from progrpo.cost import architectures
from progrpo.cost.clip_vocabulary import clip_vocabulary
from progrpo.rewards.aesthetic import Aesthetic
from progrpo.rewards.base import Scorer
from progrpo.rewards.clip_score import ClipScore
from progrpo.rewards.hf_clip_model import HFClipModel
from progrpo.rewards.hpsv2 import HPSv2
from progrpo.rewards.imagereward import ImageReward, blip_text_model
from progrpo.rewards.linear_head import linear_head
from progrpo.rewards.open_clip_model import VIT_H, OpenClipModel, build_open_clip
from progrpo.rewards.pickscore import PickScore

HEAD_WIDTHS = (768, 1024, 128, 64, 16, 1)
PROMPT = "a painting of an ocean with clouds and birds, day time, low depth field effect"
BERT_BASE = dict(
    vocab_size=30524,
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    max_position_embeddings=512,
    hidden_act="gelu",
    layer_norm_eps=1e-12,
)


def clip_tokenizer():
    """CLIP's tokenizer as a transformers class."""
    from transformers import CLIPTokenizer

    vocabulary, merges = clip_vocabulary()
    return CLIPTokenizer(vocab=vocabulary, merges=merges)


def hf_clip(size: Literal["H", "L"], device: torch.device) -> HFClipModel:
    """CLIP ViT-H/14 or OpenAI's ViT-L/14 with random weights, and its tokenizer."""
    return HFClipModel(architectures.clip(size), clip_tokenizer(), device)


def random_imagereward(device: torch.device, **common) -> ImageReward:
    """BLIP ViT-L/16 and BERT-base with random weights; every word of a prompt is one token."""
    from transformers import BertTokenizer, BlipVisionConfig, BlipVisionModel

    config = BlipVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=224,
        patch_size=16,
        layer_norm_eps=1e-6,
    )
    networks: tuple[nn.Module, nn.Module, nn.Module] = (
        BlipVisionModel(config),
        blip_text_model(BERT_BASE, config.hidden_size),
        linear_head(HEAD_WIDTHS),
    )
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(PROMPT.replace(",", " ,").split()))]
    return ImageReward(networks, BertTokenizer(vocab={word: k for k, word in enumerate(words)}), device, **common)


def _hpsv2(device: torch.device, **common) -> Scorer:
    return HPSv2(OpenClipModel(*build_open_clip("hpsv2", VIT_H), device), device, **common)


FULL_SIZE: dict[str, Callable[..., Scorer]] = {
    "hpsv2": _hpsv2,
    "imagereward": random_imagereward,
    "pickscore": lambda device, **common: PickScore(hf_clip("H", device), device, **common),
    "aesthetic": lambda device, **common: Aesthetic(hf_clip("L", device), linear_head(HEAD_WIDTHS), device, **common),
    "clip_score": lambda device, **common: ClipScore(hf_clip("H", device), device, **common),
}


@dataclass(frozen=True)
class Load:
    """What is scored: `batch` random images of side `resolution` with one prompt, `repeats` times."""

    batch: int
    repeats: int
    resolution: int


def measure(scorer: Scorer, load: Load, device: torch.device) -> dict:
    """Images per second of one call with the batch and of one call per image (median over the repeats).

    On a CPU a second is one of the process's CPU time, summed over its threads, so that the machine's other work does not
    count; on a GPU it is one of the wall clock.
    """
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(load.batch, 3, load.resolution, load.resolution, generator=draw).to(device)
    prompts = [PROMPT] * load.batch

    def seconds(run: Callable[[], object]) -> float:
        times = []
        for _ in range(load.repeats):
            _wait(device)
            start = clock()
            run()
            _wait(device)
            times.append(clock() - start)
        return statistics.median(times)

    scorer.score(images[:1], prompts[:1])
    together = seconds(lambda: scorer.score(images, prompts))
    alone = seconds(lambda: [scorer.score(images[k : k + 1], prompts[k : k + 1]) for k in range(load.batch)])
    return {
        "clock": "wall" if device.type == "cuda" else "CPU time",
        "batch": load.batch,
        "repeats": load.repeats,
        "resolution": load.resolution,
        "images_per_second_batched": round(load.batch / together, 3),
        "images_per_second_one_at_a_time": round(load.batch / alone, 3),
        "speedup": round(alone / together, 2),
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
