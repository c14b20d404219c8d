"""Advantages, clipped surrogate and KL: reference numbers, zero patterns, identities."""

import math
from pathlib import Path

import numpy as np
import official_schedules
import pytest
import torch

from progrpo.grpo.objective import advantages, clipped_surrogate, gaussian_kl, step_kl

FLOW = {"std": "global", "unbiased": False, "eps": 1e-4}
DANCE = {"std": "group", "unbiased": True, "eps": 1e-8}
SURVIVORS = {"std": "group", "unbiased": False, "eps": 1e-4}
GOLDEN = Path(__file__).parents[1] / "data" / "golden"


def rewards_like(prompts, count, seed=0, dtype=torch.float64):
    return torch.randn(prompts, count, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("global_std", [True, False])
def test_flow_grpo_advantages_are_the_reference(global_std):
    with np.load(GOLDEN / "advantages.npz") as golden:
        names = golden["prompts"]
        rows = torch.from_numpy(np.stack([np.flatnonzero(names == name) for name in np.unique(names)]))
        rewards = torch.from_numpy(golden["rewards"])[rows]
        expected = torch.from_numpy(golden[f"flow_adv_global_std_{global_std}"])[rows]
    actual = advantages(rewards, **(FLOW if global_std else SURVIVORS))
    torch.testing.assert_close(actual[..., None].expand_as(expected), expected, rtol=1e-9, atol=1e-12)


def test_dancegrpo_advantages_are_the_reference():
    with np.load(GOLDEN / "advantages.npz") as golden:
        rewards, expected = (torch.from_numpy(golden[name]).view(4, 16) for name in ("dance_rewards", "dance_adv"))
    torch.testing.assert_close(advantages(rewards, **DANCE), expected, rtol=1e-9, atol=1e-12)


def test_advantages_by_hand():
    rewards = torch.tensor([[1.0, 3.0], [4.0, 4.0]], dtype=torch.float64)
    unit = {"eps": 1e-12, "unbiased": False}
    expected = torch.tensor([[-1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(advantages(rewards, std="group", **unit), expected)
    std_of_all = math.sqrt((2**2 + 0 + 1 + 1) / 4)
    torch.testing.assert_close(advantages(rewards, std="global", **unit), expected / std_of_all)
    everywhere = torch.tensor([0.0, 10.0])  # std 5, of rewards on all ranks
    torch.testing.assert_close(advantages(rewards, std="global", population=everywhere, **unit), expected / 5)
    assert advantages(rewards, std="global", population=everywhere, clamp=0.1, **unit).tolist() == [[-0.1, 0.1], [0, 0]]


@pytest.mark.parametrize("setting", [FLOW, DANCE, SURVIVORS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.1, 1 / 3, -7.77, 1e6 + 0.1, 0.0])
def test_equal_rewards_have_exactly_no_advantage(setting, dtype, value):
    rewards = rewards_like(3, 7, dtype=dtype)
    rewards[1] = value
    actual = advantages(rewards, **setting)
    assert (actual[1] == 0).all()
    assert (actual[0] != 0).all()
    assert actual.dtype == dtype


def test_group_advantages_ignore_offset_factor_and_other_groups():
    rewards = rewards_like(4, 12)
    setting = {"std": "group", "unbiased": False, "eps": 1e-12}
    expected = advantages(rewards, **setting)
    torch.testing.assert_close(advantages(3 * rewards - 5, **setting), expected)
    torch.testing.assert_close(advantages(rewards[2:3], **setting), expected[2:3])
    torch.testing.assert_close(expected.mean(dim=1), torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(expected.std(dim=1, correction=0), torch.ones(4, dtype=torch.float64))


def test_ranks_agree_when_they_share_the_population():
    rewards = rewards_like(6, 12)
    ranks = [advantages(part, population=rewards, **FLOW) for part in rewards.chunk(3)]
    assert torch.equal(torch.cat(ranks), advantages(rewards, **FLOW))


def test_bad_advantage_input_is_named():
    rewards = rewards_like(2, 3)
    for changed, message in [({"std": "batch"}, "batch"), ({"eps": 0}, "eps")]:
        with pytest.raises(ValueError, match=message):
            advantages(rewards, **(FLOW | changed))
    for wrong in (rewards[0], rewards[None]):
        with pytest.raises(ValueError, match=r"rewards must be \(P, K\)"):
            advantages(wrong, **DANCE)
    with pytest.raises(ValueError, match="two rewards"):
        advantages(rewards[:, :1], **DANCE)
    with pytest.raises(ValueError, match="floating-point"):
        advantages(torch.ones(2, 3, dtype=torch.long), **DANCE)
    with pytest.raises(ValueError, match="non-finite"):
        advantages(rewards, population=torch.tensor([math.nan]), **FLOW)
    rewards[1, 2] = math.inf
    with pytest.raises(ValueError, match=r"\(1, 2\)"):
        advantages(rewards, **DANCE)


def surrogate_and_gradient(log_ratio, advantage, clip_range=0.1):
    log_prob = (torch.tensor(log_ratio, dtype=torch.float64) - 1.5).requires_grad_()
    old = torch.full_like(log_prob, -1.5)
    result = clipped_surrogate(log_prob, old, torch.tensor(advantage, dtype=torch.float64), clip_range)
    result.loss.sum().backward()
    return result, log_prob.grad


def test_the_gradient_vanishes_exactly_where_clipping_wins():
    log_ratio = [0.3, 0.3, -0.3, -0.3, 0.05, 0.05, 0.0, 0.3, -0.3]
    advantage = [1.0, -1.0, 1.0, -1.0, 2.0, -2.0, 2.0, 0.0, 0.0]
    result, gradient = surrogate_and_gradient(log_ratio, advantage)
    ratio = torch.tensor(log_ratio, dtype=torch.float64).exp()
    active = torch.tensor([False, True, True, False, True, True, True, False, False])
    expected = torch.where(active, -torch.tensor(advantage, dtype=torch.float64) * ratio, 0)
    torch.testing.assert_close(gradient, expected)
    assert (gradient[~active] == 0).all()
    assert result.clipped.tolist() == [True] * 4 + [False] * 3 + [True] * 2


def test_a_ratio_beyond_all_numbers_gives_no_nan():
    log_ratio, advantage = [1000.0, 1000.0, -1000.0, -1000.0], [0.0, 1.0, 0.0, -1.0]
    result, gradient = surrogate_and_gradient(log_ratio, advantage)
    assert result.loss.isfinite().all()
    assert (gradient == 0).all()


def test_surrogate_by_hand():
    ratio = [1.5, 1.5, 0.5, 0.5, 9.0]
    result, _ = surrogate_and_gradient([math.log(r) for r in ratio], [2.0, -2.0, 2.0, -2.0, -1.0])
    torch.testing.assert_close(result.ratio, torch.tensor(ratio, dtype=torch.float64))
    torch.testing.assert_close(result.loss, torch.tensor([-2.2, 3.0, -1.0, 1.8, 9.0], dtype=torch.float64))
    assert not result.ratio.requires_grad


def test_on_policy_the_gradient_is_the_policy_gradient():
    log_prob = torch.randn(8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    advantage = rewards_like(1, 8, dtype=torch.float32)[0]
    result = clipped_surrogate(log_prob, log_prob.clone(), advantage, 1e-4)
    result.loss.sum().backward()
    assert (result.ratio == 1).all()
    assert not result.clipped.any()
    assert torch.equal(log_prob.grad, -advantage)


def test_only_the_new_log_probability_gets_a_gradient():
    log_prob, old, advantage = (torch.zeros(3).requires_grad_() for _ in range(3))
    clipped_surrogate(log_prob, old, advantage + 1, 0.1).loss.sum().backward()
    assert log_prob.grad is not None
    assert old.grad is None
    assert advantage.grad is None


def test_kl_is_the_divergence_of_two_normals():
    mean, mean_ref = rewards_like(3, 20, seed=1).view(3, 5, 4), rewards_like(3, 20, seed=2).view(3, 5, 4)
    std = torch.tensor(0.3, dtype=torch.float64)
    normal, reference = (torch.distributions.Normal(m, std) for m in (mean, mean_ref))
    expected = torch.distributions.kl_divergence(normal, reference).mean(dim=(1, 2))
    torch.testing.assert_close(gaussian_kl(mean, mean_ref, std), expected)


def test_the_two_forms_of_the_kl_differ_by_the_step_size():
    sigmas = official_schedules.flow_sigmas(10)
    table = official_schedules.flow(10, 0.7)
    mean, mean_ref = rewards_like(10, 6, seed=1), rewards_like(10, 6, seed=2)
    rows = torch.arange(10)
    code, paper = (step_kl(table, rows, mean, mean_ref, form) for form in ("code", "paper"))
    torch.testing.assert_close(code, paper * -sigmas.diff(), rtol=1e-12, atol=0)
    ddim = official_schedules.ddim(10, 1.0)
    assert torch.equal(step_kl(ddim, rows, mean, mean_ref, "code"), step_kl(ddim, rows, mean, mean_ref, "paper"))
    with pytest.raises(ValueError, match="'code' or 'paper'"):
        step_kl(table, 0, mean, mean_ref, "exact")


def test_kl_gradients_agree_with_finite_differences_and_spare_the_reference():
    table = official_schedules.flow(10, 0.7)
    mean, mean_ref = rewards_like(2, 6, seed=1).requires_grad_(), rewards_like(2, 6, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: step_kl(table, 4, m, mean_ref.detach()), mean)
    step_kl(table, 4, mean, mean_ref).sum().backward()
    assert mean_ref.grad is None
