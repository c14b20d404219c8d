"""The miniature world's checker as a scorer."""

import numpy as np
import pytest
import torch

from progrpo.errors import UserError
from progrpo.miniature.prompts import balanced, held_out_records
from progrpo.miniature.scenes import render
from progrpo.rewards import load_scorer

CHECKER = "progrpo.miniature.scene_checker:SceneChecker"

RECORDS = balanced(held_out_records(), 21, 0)
NAMES = [record["prompt"] for record in RECORDS]


@pytest.fixture(scope="module")
def rendered():
    """A faithful image of each record: (21, 3, 24, 24) in [0, 1]."""
    draw = np.random.default_rng(0)
    return torch.stack([torch.tensor(render(r, draw)).permute(2, 0, 1).float() / 255 for r in RECORDS])


@pytest.mark.parametrize("mode", ["soft", "strict"])
def test_faithful_images_score_above_those_of_other_prompts(rendered, mode):
    scorer = load_scorer(CHECKER, None, mode=mode, batch_size=8)
    own, other = scorer.score(rendered, NAMES), scorer.score(rendered.roll(1, 0), NAMES)
    assert (own >= other).all()
    assert own.mean() > 0.9 > other.mean()


def test_strict_is_0_or_1_and_soft_falls_with_the_image(rendered):
    strict, soft = (load_scorer(CHECKER, None, mode=m) for m in ("strict", "soft"))
    assert set(strict.score(rendered, NAMES).tolist()) == {1.0}
    faded = [soft.score(torch.lerp(rendered, torch.ones_like(rendered), share), NAMES).mean() for share in (0, 0.6, 1)]
    assert faded[0] > faded[1] > faded[2]


def test_what_it_cannot_judge_is_one_line(rendered):
    scorer = load_scorer(CHECKER, None)
    with pytest.raises(UserError, match="'a photo of a cat' is no prompt of the miniature world"):
        scorer.score(rendered[:1], ["a photo of a cat"])
    with pytest.raises(UserError, match=r"images are \(32, 32\); it reads 24 x 24"):
        scorer.score(torch.zeros(1, 3, 32, 32), NAMES[:1])
    with pytest.raises(UserError, match="mode 'hard' is unknown; use one of soft, strict"):
        load_scorer(CHECKER, None, mode="hard")
