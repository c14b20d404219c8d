"""Rolling prompts out in parts, decoding in other batches, keeping states on the host: less memory, the same numbers."""

from dataclasses import replace

import pytest
import torch
from test_gradient import FAMILIES, accumulated, configuration, moved, trainer_of
from test_rollout import FLOW, PRO, SHAPE, CountingModel

import tiny
from progrpo.grpo.groups import Cut, roll_out
from progrpo.grpo.rollout import PruningPlan, TrajectoryNoise, expand_and_prune
from progrpo.grpo.samplers import StepTable

PLANS = {"pruned": PRO, "unpruned": PruningPlan(6), "static": PruningPlan(6, ((10, 4),))}
SPEEDS = {
    "parts": {"prompts_at_once": 1},
    "host": {"states_on_host": True},
    "decoder": {"decode_batch": 3},
    "all": {"prompts_at_once": 1, "states_on_host": True, "decode_batch": 1},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tiny.make_models(tmp_path_factory.mktemp("models"))


def roll(plan: PruningPlan, cut: Cut, table: StepTable = FLOW):
    return roll_out(CountingModel().policy(), table, plan, TrajectoryNoise(0, 0, [4, 1, 7], SHAPE), cut)


@pytest.mark.parametrize("at_once", [1, 2, 3, 5])
@pytest.mark.parametrize("plan", PLANS)
def test_prompts_in_parts_give_the_rollout_of_all_at_once(plan, at_once):
    whole = expand_and_prune(CountingModel().policy(), FLOW, PLANS[plan], TrajectoryNoise(0, 0, [4, 1, 7], SHAPE), 4)
    parts = roll(PLANS[plan], Cut(4, prompts=at_once))
    for name in ("states", "log_probs", "rewards", "trajectories"):
        assert torch.equal(getattr(parts, name), getattr(whole, name)), name
    assert parts.counters == whole.counters
    for mine, expected in zip(parts.stages, whole.stages, strict=True):
        assert torch.equal(mine.rewards, expected.rewards)
        assert torch.equal(mine.kept, expected.kept)
    assert parts.seconds.keys() == whole.seconds.keys()


@pytest.mark.parametrize("decode_batch", [1, 3, 5, 100])
def test_the_decoder_has_its_own_batch_and_the_scorer_is_not_cut_by_it(decode_batch):
    policy, decoded, scored = CountingModel().policy(), [], []

    def decode(latents):
        decoded.append(len(latents))
        return latents

    def score(images, prompt):
        scored.append(len(images))
        return policy.score(images, prompt)

    cut = Cut(4, decode_batch)
    noise = TrajectoryNoise(0, 0, [4, 1, 7], SHAPE)
    other = roll_out(replace(policy, decode=decode, score=score), FLOW, PruningPlan(6), noise, cut)
    assert decoded == [decode_batch] * -(-18 // decode_batch)  # however many are scored at once, calls are filled up
    of_score = min(18, max(4, decode_batch))
    assert scored == [of_score] * (18 // of_score) + [18 % of_score] * (18 % of_score > 0)
    assert torch.equal(other.rewards, roll(PruningPlan(6), Cut(4)).rewards)


class Peak(torch.utils._python_dispatch.TorchDispatchMode):
    """The most bytes of latents that were alive at a time, of tensors made under this mode."""

    def __init__(self):
        super().__init__()
        self.alive: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        import weakref

        out = function(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.untyped_storage()._cdata not in self.alive:
            storage = out.untyped_storage()
            self.alive[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self.alive.pop, storage._cdata, None)
            self.most = max(self.most, sum(self.alive.values()))
        return out


def test_pruned_trajectories_leave_no_states_and_no_copy_of_all_is_made():
    """48 -> 24 -> 12 of 10 steps: 288 states at the first selection are the most, where 48 x 11 + 24 x 11 were held."""
    shape = (16, 16, 16)
    noise, one = TrajectoryNoise(0, 0, [0], shape), 16**3 * 4
    with Peak() as peak:
        rollout = roll_out(CountingModel().policy(), FLOW, PRO, noise, Cut(8))
    assert rollout.states.shape == (12, 11, *shape)
    assert peak.most < (48 * 6 + 5 * 48) * one  # and some tensors of one step: outputs, previews, noise


@pytest.mark.parametrize("way", SPEEDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_that_saves_memory_has_the_same_samples_and_gradient(models, tmp_path, family, way):
    results = []
    for speed in ({}, SPEEDS[way]):
        trainer = trainer_of(configuration(tmp_path, models, family, 0.7, True, 4, speed=speed), tmp_path / "out")
        samples = moved(trainer)
        results.append((samples.rollout.states, samples.rollout.rewards, accumulated(trainer, samples)[0]))
    (*sampled, gradient), (*its_sampled, its_gradient) = results
    for name, plain, saving in zip(("states", "rewards"), sampled, its_sampled, strict=True):
        assert (saving - plain).abs().max() < 1e-4 * plain.abs().max(), name
    assert (its_gradient - gradient).norm() < 1e-3 * gradient.norm()
    assert trainer._update(trainer._sample()).first_ratio_error == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_gives_the_gradient_of_the_plain_way(models, tmp_path, family):
    gradients, kept = [], []
    for on in (False, True):
        config = configuration(tmp_path, models, family, 0.7, True, 4, gradient_checkpointing=on)
        trainer = trainer_of(config, tmp_path / "out")
        samples, saved = moved(trainer), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t):
            gradients.append(accumulated(trainer, samples)[0])
        kept.append(sum(saved))
        assert trainer._update(trainer._sample()).first_ratio_error == 0
    assert kept[1] < kept[0] / 2
    assert (gradients[1] - gradients[0]).norm() < 1e-3 * gradients[0].norm()


def test_the_fused_optimizer_takes_the_same_step(models, tmp_path):
    weights = []
    for fused in (False, True):
        speed = {"fused_optimizer": fused}
        trainer = trainer_of(configuration(tmp_path, models, "flow", 0.7, True, 4, speed=speed), tmp_path / "out")
        before = [p.detach().clone() for p in trainer.tuning.parameters]
        trainer._update(trainer._sample())
        weights.append(torch.cat([(p - b).flatten() for p, b in zip(trainer.tuning.parameters, before, strict=True)]))
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-3, atol=1e-6)
