"""The gradient study on synthetic pools that follow the law, and on pools that do not."""

import numpy as np
import pytest

from progrpo.analysis.gradient_signal import Arm, Pools, analyse, moments, survivors

PROMPTS, SIZE, STEPS, WIDTH = 64, 16, 4, 300


def pools(signal: float = 0.4, loud: float = 0.0, seed: int = 0) -> Pools:
    """Gradients that are noise plus `signal` times the reward along one direction; `loud`: noise grows with |R|."""
    generator = np.random.default_rng(seed)
    rewards = generator.normal(size=(PROMPTS, SIZE))
    noise = generator.normal(size=(PROMPTS, SIZE, WIDTH)) * (1 + loud * np.abs(rewards[..., None]))
    noise[..., 0] += signal * rewards
    previews = np.stack([rewards + generator.normal(size=rewards.shape) * (STEPS - t) for t in range(STEPS)], axis=-1)
    return Pools(rewards, previews, noise[..., 0], noise @ noise.transpose(0, 2, 1))


STAGES = ((2, 8), (3, 4))


def test_power_and_projection_are_those_of_the_gradient_itself():
    generator = np.random.default_rng(1)
    rewards, gradients = generator.normal(size=(1, 6)), generator.normal(size=(1, 6, 5))
    own = Pools(rewards, rewards[..., None], gradients[..., 2], gradients @ gradients.transpose(0, 2, 1))
    kept = np.array([[0, 3, 5]])
    g = sum((rewards[0, k] - rewards[0, kept[0]].mean()) * gradients[0, k] for k in kept[0]) / 3
    assert moments(own, kept)[0] == pytest.approx([rewards[0, kept[0]].var(), g @ g, g[2]])


def test_pools_that_follow_the_law_show_it():
    result = analyse(pools(), STAGES, {}, None)
    assert result["noise"]["value"] < 1.2
    assert result["signal"]["expected"] == pytest.approx(2.66 / 0.75, rel=0.15)  # OVF and random, 4 of 16 Gaussians
    assert result["signal"]["low"] < result["signal"]["expected"] < result["signal"]["high"]
    assert result["signal"]["low"] > 1.3
    order = {row["rule"]: row["predicted"] for row in result["rules"]}
    assert order["uniform"] == 1 < order["pruned"] < order["ovf"]


def test_noise_that_grows_with_the_reward_breaks_the_law():
    assert analyse(pools(loud=1.0), STAGES, {}, None)["noise"]["low"] > 1.25


def test_predictions_go_as_the_root_of_number_and_variance():
    arms = {
        "plain": Arm(16),
        "half": Arm(8),
        "oracle": Arm(16, ((STEPS, 4),)),
        "random": Arm(16, ((2, 8), (3, 4)), "uniform"),
        "large": Arm(32),
        "longer": Arm(8, iterations=3),
    }
    predicted = analyse(pools(), STAGES, arms, "plain")["arms"]
    assert predicted.pop("longer") == pytest.approx(3 * predicted["half"])  # progress is linear in iterations
    assert set(predicted) == {"plain", "half", "oracle", "random"}  # 16 trajectories say nothing of 32
    assert predicted["plain"] == 1
    assert predicted["half"] == pytest.approx(np.sqrt(8 * 7 / 8 / (16 * 15 / 16)), rel=0.05)
    assert predicted["random"] == pytest.approx(np.sqrt(4 * 3 / 4 / (16 * 15 / 16)), rel=0.05)
    assert predicted["oracle"] > predicted["random"]


def test_a_stage_sees_the_preview_of_its_step():
    own = pools()
    kept = survivors(own, Arm(SIZE, ((1, 2),)))
    proxies = np.take_along_axis(own.previews[:, :, 1], kept, 1)
    assert np.array_equal(proxies.max(1), own.previews[:, :, 1].max(1))


def test_pools_that_do_not_fit_are_refused():
    own = pools()
    with pytest.raises(ValueError, match="grams has shape"):
        Pools(own.rewards, own.previews, own.projections, own.grams[:, :4, :4])


def test_rewards_that_are_all_equal_are_refused():
    own = pools()
    equal = np.full_like(own.rewards, 0.1)
    with pytest.raises(ValueError, match="every prompt's rewards are equal"):
        analyse(Pools(equal, np.zeros_like(own.previews), own.projections, own.grams), STAGES, {}, None)
