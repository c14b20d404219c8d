"""The moving average of trained weights."""

import pytest
import torch

from progrpo.config import Ema
from progrpo.grpo.tuning import MovingAverage


def test_the_average_follows_the_published_decay_and_interval():
    parameter = torch.zeros(1)
    average = MovingAverage([parameter], Ema(decay=0.9, every=2))
    parameter.fill_(1.0)
    average.update([parameter], 1)
    assert average.values[0].item() == 0  # not an eighth, here second, update
    average.update([parameter], 2)
    assert average.values[0].item() == pytest.approx(1 - 3 / 12)
    average.values[0].zero_()
    average.update([parameter], 1000)
    assert average.values[0].item() == pytest.approx(0.1)


def test_the_average_is_a_copy():
    parameter = torch.zeros(1)
    average = MovingAverage([parameter], Ema())
    parameter.fill_(5.0)
    assert average.values[0].item() == 0
