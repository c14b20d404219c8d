"""Training of the miniature scorers on ladders of rendered scenes; three CPU minutes each.

The preference scorers (PickScore, HPS, ImageReward) learn graded preferences between images of one prompt. Two
auxiliary readouts, thrown away after training, make them learn what a contrastive loss alone finds slowly
(relations, above all): one reads from an image which kinds are where, and from a prompt where they should be; one
reads the prompt's words back.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progrpo.errors import UserError
from progrpo.miniature.checker import EMPTY, KINDS
from progrpo.miniature.prompts import CLASSES, COLORS, TEXTURES, balanced, training_records
from progrpo.miniature.scenes import GRID, SIZE
from progrpo.miniature.scorer_blip import BlipReward
from progrpo.miniature.scorer_degradations import DEGRADATIONS, degrade, severity
from progrpo.miniature.scorer_models import AestheticClip, HFClip, OpenClip, save_folder
from progrpo.miniature.scorer_pairs import CELLS, DEFECTS, RUNGS, Ladders, draw_batch, make_ladders, scene_kinds
from progrpo.rewards.preprocess import clip_pixels

LADDERS = 8000
HARD_TAGS = ("position", "counting", "texture")
TEXT_BATCH, TEXT_RATE = 128, 5e-3
SHARPNESS = 4.0  # logits of the preference for one defect less
READOUT_WEIGHT, WORDS_WEIGHT = 50.0, 1.0
IMAGES = RUNGS + 3  # per prompt: the ladder, a degraded copy, a cross-fade, another prompt's image
FOREIGN_DEFECTS = 2.5
BEST_RATING = 6.5
LEAST_STEPS = 20


def training_ladders(seed: int) -> Ladders:
    """8,000 ladders: 60 % balanced over the training prompts' tags, 40 % over their hard tags."""
    records = training_records()
    hard = [record for record in records if record["tag"] in HARD_TAGS]
    chosen = [
        balanced(part, round(share * LADDERS), seed + k)
        for k, (part, share) in enumerate(((records, 0.6), (hard, 0.4)))
    ]
    return make_ladders(list(itertools.chain(*chosen)), seed)


LOOKS = (*itertools.product(CLASSES, COLORS), *itertools.product(CLASSES, TEXTURES))


def scene_summary(scenes: Tensor) -> Tensor:
    """(B, 180) of scenes (B, 9): per class and colour, and per class and texture, how many objects there are, and the
    sums of their columns and rows counted from the middle."""
    looks = torch.tensor(
        [[float(look in (kind[:2], kind[::2])) for look in LOOKS] for kind in KINDS] + [[0.0] * len(LOOKS)]
    )
    assert len(looks) == EMPTY + 1
    cells = torch.arange(CELLS)
    places = torch.stack([torch.ones(CELLS), cells % GRID - 1.0, cells // GRID - 1.0], 1)
    return torch.einsum("bck,cp->bkp", looks[scene_kinds(scenes)], places).flatten(1)


class Readouts(nn.Module):
    """Auxiliary linear readouts: a scene's summary from image and text embeddings, a prompt's tokens from its own."""

    def __init__(self, image_width: int, text_width: int, tokens: int, vocabulary: int):
        super().__init__()
        summary = 3 * len(LOOKS)
        self.scene = nn.Linear(image_width, summary)
        self.asked = self.scene if image_width == text_width else nn.Linear(text_width, summary)
        self.words = nn.Linear(text_width, tokens * vocabulary)
        self.vocabulary = vocabulary

    def text_loss(self, text: Tensor, tokens: Tensor, summary: Tensor) -> Tensor:
        """From text embeddings (P, D): the expected summary (P, 180) of a faithful scene, and the tokens (P, T)."""
        words = F.cross_entropy(self.words(text).view(-1, self.vocabulary), tokens.flatten())
        return READOUT_WEIGHT * F.mse_loss(self.asked(text), summary) + WORDS_WEIGHT * words

    def image_loss(self, image: Tensor, summary: Tensor) -> Tensor:
        """From image embeddings (B, D) their scenes' summary (B, 180)."""
        return READOUT_WEIGHT * F.mse_loss(self.scene(image), summary)


def ladder_images(scenes: Tensor, degradation_cost: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(images (P, 7, 3, 24, 24), defects (P, 7)) of P ladders (P, 4, 9).

    The images: the ladder, its first scene degraded, a cross-fade of its first two, and another prompt's first.
    Half of the rows are slightly degraded as a whole, because generated images are never as crisp as rendered ones.
    """
    count = len(scenes)
    clean = draw_batch(scenes.view(-1, CELLS)).view(count, RUNGS, 3, SIZE, SIZE)
    share = torch.rand(count, generator=generator)
    faithful = clean[:, 0]
    mixed = torch.lerp(faithful, clean[:, 1], share.view(-1, 1, 1, 1))
    images = torch.cat([clean, torch.stack([faithful, mixed, faithful.roll(1, 0)], 1)], 1)
    edits = torch.tensor([*map(float, DEFECTS), 0.0, 0.0, FOREIGN_DEFECTS]).repeat(count, 1)
    edits[:, RUNGS + 1] = share

    kinds = torch.randint(len(DEGRADATIONS), (count, 1), generator=generator).repeat(1, IMAGES)
    strength = 0.3 * torch.rand(count, 1, generator=generator).repeat(1, IMAGES)
    kinds[torch.rand(count, generator=generator) < 0.5] = -1
    kinds[:, RUNGS] = torch.randint(len(DEGRADATIONS), (count,), generator=generator)
    strength[:, RUNGS] = torch.rand(count, generator=generator)
    degraded = degrade(images.flatten(0, 1), kinds.flatten(), strength.flatten(), generator)
    return degraded.view_as(images), edits + degradation_cost * severity(kinds, strength)


def preference_loss(scores: Tensor, defects: Tensor) -> Tensor:
    """Graded Bradley-Terry loss over all pairs of a row of (P, K): P(i beats j) = sigmoid(4 (defects_j - defects_i)).

    The divergence from the targets: 0 when the scores are -4 times the defects plus a constant of the row.
    """
    upper = torch.ones(scores.shape[1], scores.shape[1], dtype=torch.bool).triu(1)
    logits = (scores[:, :, None] - scores[:, None])[:, upper]
    target = torch.sigmoid(SHARPNESS * (defects[:, None] - defects[:, :, None]))[:, upper]
    entropy = F.binary_cross_entropy(target, target)
    return F.binary_cross_entropy_with_logits(logits, target) - entropy


def _optimiser(parameters: list[nn.Parameter], rate: float, steps: int):
    optimiser = torch.optim.AdamW(parameters, rate, betas=(0.9, 0.98), weight_decay=0.01)
    return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)


def _step(loss: Tensor, parameters: list[nn.Parameter], optimiser, schedule) -> None:
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    schedule.step()


def train_text(model: Any, readouts: Readouts, data: tuple[Tensor, Tensor], steps: int, draw: torch.Generator):
    """First the text tower alone, on (tokens (N, T), summaries (N, 180)): cheap, and relations need many steps."""
    tokens, summaries = data
    parameters = [*model.text_parameters(), *readouts.parameters()]
    optimiser, schedule = _optimiser(parameters, TEXT_RATE, steps)
    for _ in range(steps):
        k = torch.randint(len(tokens), (TEXT_BATCH,), generator=draw)
        _step(readouts.text_loss(model.text(tokens[k]), tokens[k], summaries[k]), parameters, optimiser, schedule)


def train_preference(recipe: "Recipe", ladders: Ladders, seed: int, log: Callable[[str], None]) -> Any:
    """A trained preference scorer."""
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    model = recipe.build()
    tokens = model.tokens([record["prompt"] for record in ladders.records])
    summaries = scene_summary(ladders.scenes[:, 0])
    with torch.no_grad():
        _, image, text = model.scores(torch.zeros(1, 1, 3, SIZE, SIZE), tokens[:1])
    readouts = Readouts(image.shape[-1], text.shape[-1], tokens.shape[1], len(model.tokenizer))
    train_text(model, readouts, (tokens, summaries), recipe.steps, draw)
    parameters = [*model.parameters(), *readouts.parameters()]
    optimiser, schedule = _optimiser(parameters, recipe.rate, recipe.steps)
    for step in range(1, recipe.steps + 1):
        k = torch.randint(len(tokens), (recipe.prompts,), generator=draw)
        images, defects = ladder_images(ladders.scenes[k], recipe.degradation_cost, draw)
        scores, image, text = model.scores(_pixels(images), tokens[k])
        preference = preference_loss(scores, defects)
        rungs = image.view(len(k), IMAGES, -1)[:, :RUNGS].flatten(0, 1)
        auxiliary = readouts.image_loss(rungs, scene_summary(ladders.scenes[k].view(-1, CELLS)))
        auxiliary = auxiliary + readouts.text_loss(text, tokens[k], summaries[k])
        _step(preference + auxiliary, parameters, optimiser, schedule)
        _progress(step, recipe, log, f"preference {preference:.4f} readouts {auxiliary:.4f}")
    return model.eval()


def _pixels(images: Tensor) -> Tensor:
    """Normalised pixels of images (..., 3, S, S) in [0, 1]."""
    return clip_pixels(images.flatten(0, -4), images.shape[-1]).view_as(images)


def train_contrastive(recipe: "Recipe", ladders: Ladders, seed: int, log: Callable[[str], None]) -> Any:
    """A CLIP: images of prompts against the prompts of a batch, both ways, without hard negatives.

    Half of the images are degraded, so quality hardly matters to it. Images of one prompt are positives of each
    other's.
    """
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    model = recipe.build()
    tokens = model.tokens([record["prompt"] for record in ladders.records])
    parameters = list(model.parameters())
    optimiser, schedule = _optimiser(parameters, recipe.rate, recipe.steps)
    for step in range(1, recipe.steps + 1):
        k = torch.randint(len(tokens), (recipe.prompts,), generator=draw)
        kinds = torch.randint(len(DEGRADATIONS), k.shape, generator=draw)
        kinds[torch.rand(k.shape, generator=draw) < 0.5] = -1
        images = degrade(draw_batch(ladders.scenes[k, 0]), kinds, torch.rand(k.shape, generator=draw), draw)
        image = F.normalize(model.image(_pixels(images)), dim=-1)
        logits = model.scale() * image @ F.normalize(model.text(tokens[k]), dim=-1).T
        same = (tokens[k][:, None] == tokens[k]).all(-1).float()
        target = same / same.sum(1, keepdim=True)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        _step(loss, parameters, optimiser, schedule)
        _progress(step, recipe, log, f"contrastive {loss:.4f}")
    return model.eval()


def train_rating(recipe: "Recipe", ladders: Ladders, seed: int, log: Callable[[str], None]) -> Any:
    """An aesthetic predictor: regression on ratings 6.5 for a crisp image down to 1.7 for the worst degradation."""
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    model = recipe.build()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser, schedule = _optimiser(parameters, recipe.rate, recipe.steps)
    scenes = ladders.scenes.view(-1, CELLS)
    for step in range(1, recipe.steps + 1):
        k = torch.randint(len(scenes), (recipe.prompts,), generator=draw)
        kinds = torch.randint(-1, len(DEGRADATIONS), k.shape, generator=draw)
        strength = torch.rand(k.shape, generator=draw)
        images = degrade(draw_batch(scenes[k]), kinds, strength, draw)
        rating = BEST_RATING - recipe.degradation_cost * severity(kinds, strength)
        loss = F.mse_loss(model.ratings(_pixels(images)) + BEST_RATING, rating)
        _step(loss, parameters, optimiser, schedule)
        _progress(step, recipe, log, f"squared error {loss:.4f}")
    with torch.no_grad():
        model.head[-1].bias += BEST_RATING
    return model.eval()


def _progress(step: int, recipe: "Recipe", log: Callable[[str], None], losses: str) -> None:
    if step % 100 == 0 or step == recipe.steps:
        log(f"step {step}/{recipe.steps} {losses}")


@dataclass(frozen=True)
class Recipe:
    """How one scorer is trained; `degradation_cost` is that of severity 1, in wrong edits or in rating points."""

    build: Callable[[], Any]  # one of the models of scorer_models and scorer_blip; `train` knows which interface it has
    train: Callable[["Recipe", Ladders, int, Callable[[str], None]], Any]
    degradation_cost: float
    steps: int = 1500
    prompts: int = 32
    rate: float = 3e-3


RECIPES = {
    "pickscore": Recipe(HFClip, train_preference, degradation_cost=1.2),
    "hpsv2": Recipe(OpenClip, train_preference, degradation_cost=1.8),
    "imagereward": Recipe(BlipReward, train_preference, degradation_cost=1.0, prompts=24),
    "clip_score": Recipe(HFClip, train_contrastive, degradation_cost=0.0, prompts=128),
    "aesthetic": Recipe(AestheticClip, train_rating, degradation_cost=4.0, prompts=128),
}


def train_scorer(name: str, out: Path, steps: int | None = None, seed: int = 0, log=print) -> None:
    """Train the miniature scorer `name` and save it to the folder `out`, in the official layout.

    UserError: an unknown name, too few steps.
    """
    if name not in RECIPES:
        raise UserError(f"scorer {name!r} has no miniature; use one of {', '.join(RECIPES)}")
    if steps is not None and steps < LEAST_STEPS:
        raise UserError(f"steps: {steps} is too few for the learning rate's warm-up; give at least {LEAST_STEPS}")
    recipe = RECIPES[name]
    recipe = recipe if steps is None else replace(recipe, steps=steps)
    start = time.process_time()
    model = recipe.train(recipe, training_ladders(seed), seed, lambda line: log(f"{name}: {line}"))
    save_folder(model, out)
    size = sum(file.stat().st_size for file in out.iterdir())
    log(f"{name}: {out}: {size / 1e6:.2f} MB after {time.process_time() - start:.0f} CPU seconds")
