"""Every way of being fast against the plain way: the same samples, the same gradient, a first ratio of exactly 1."""

import pytest
import torch
from test_gradient import BETA, FAMILIES, accumulated, configuration, moved, trainer_of

import tiny
from progrpo.config import Group
from progrpo.grpo.micro_batch import cheapest_batch, saved_bytes_per_row
from progrpo.grpo.progress import UpdateStatistics


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tiny.make_models(tmp_path_factory.mktemp("models"))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_of_several_steps_give_the_gradient_of_one_step_at_a_time(models, tmp_path, family):
    """Of 8 pairs, 4 fill one step, 6 cut through a step and leave a rest, 8 are all; sampling is the same."""
    results = []
    for pairs in (4, 6, 8):
        trainer = trainer_of(configuration(tmp_path, models, family, BETA, True, pairs), tmp_path / "out")
        samples = moved(trainer)
        statistics = UpdateStatistics()
        trainer._accumulate(samples, 0, 4, statistics)
        gradient = torch.cat([parameter.grad.flatten() for parameter in trainer.tuning.parameters])
        results.append((samples, gradient, torch.cat(statistics.loss)))
    (plain, gradient, loss), *others = results
    assert len(loss) == 8
    for samples, other, its_loss in others:
        assert torch.equal(samples.rollout.states, plain.rollout.states)
        assert relative(other, gradient) < 1e-6
        torch.testing.assert_close(its_loss, loss, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("together", [False, True], ids=["two calls", "one call"])
def test_the_first_ratio_is_exactly_one_in_pairs(models, tmp_path, family, together):
    speed = {"batched_guidance": together}
    config = configuration(tmp_path, models, family, BETA, True, 6, sampling_batch=None, speed=speed)
    trainer = trainer_of(config, tmp_path / "out")
    statistics = trainer._update(trainer._sample())
    assert statistics.first_ratio_error == 0
    assert trainer.one_call == together


@pytest.mark.parametrize("family", FAMILIES)
def test_one_call_for_both_branches_gives_the_gradient_of_two(models, tmp_path, family):
    gradients = []
    for together in (False, True):
        speed = {"batched_guidance": together}
        trainer = trainer_of(configuration(tmp_path, models, family, BETA, True, 4, speed=speed), tmp_path / "out")
        samples = moved(trainer)
        calls = []
        trainer.backbone.denoiser.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        gradients.append((accumulated(trainer, samples)[0], len(calls)))
    (two, calls_of_two), (one, calls_of_one) = gradients
    assert calls_of_one == calls_of_two / 2
    assert relative(one, two) < 1e-4  # samples differ by the rounding of sampling too


def test_a_detached_branch_is_never_part_of_one_call(models, tmp_path):
    speed = {"batched_guidance": True}
    trainer = trainer_of(configuration(tmp_path, models, "flow", 0.0, False, 4, speed=speed), tmp_path / "out")
    assert not trainer.one_call


def test_old_log_probabilities_are_scored_again_only_when_the_ratio_is_not_one(models, tmp_path, monkeypatch):
    """Another batch while sampling is no reason by itself."""
    trainer = trainer_of(configuration(tmp_path, models, "flow", 0.0, True, 4), tmp_path / "out")
    monkeypatch.setattr(trainer, "_rescore", lambda samples: pytest.fail("scored again"))
    trainer._sample()


def test_the_cheapest_batch_fills_calls_and_stays_within_the_limit():
    assert cheapest_batch([64] * 20, [608] * 2, 10**6) == 64  # DanceGRPO of tier mini
    assert cheapest_batch([64] * 20, [608] * 2, 40) == 32
    assert cheapest_batch([64] * 20, [608] * 2, 5) == 5
    assert cheapest_batch([6], [6], 100) == 8
    with pytest.raises(ValueError, match="not even one"):
        cheapest_batch([64], [64], 0)


def test_bytes_kept_per_row_are_those_of_a_known_graph():
    weight = torch.ones(1000, requires_grad=True)
    assert saved_bytes_per_row(lambda rows: (torch.ones(rows, 1000) * weight).exp().sum()) == 2 * 4000


def test_auto_keeps_within_the_memory_and_says_when_nothing_fits(models, tmp_path):
    sizes = {}
    for memory in (1e-4, 2.0):
        speed = {"memory_gb": memory}
        config = configuration(tmp_path, models, "flow", 0.0, True, "auto", sampling_batch=None, speed=speed)
        sizes[memory] = trainer_of(config, tmp_path / "out").micro_batch
    assert 1 <= sizes[1e-4] < sizes[2.0] == 8


def test_active_trajectories_are_those_before_a_step_prunes():
    assert Group(size=4, pruning=({"step": 2, "keep": 3}, {"step": 3, "keep": 2})).active(4) == [4, 4, 4, 3]
