"""Expand and prune on a fake model: what is called how often, who survives, and that a trajectory's noise is its own."""

from functools import partial

import official_schedules
import pytest
import torch

from progrpo.errors import UserError
from progrpo.grpo.ovf import best_of_n, optimal_variance_filter, uniform
from progrpo.grpo.rollout import Policy, PruningPlan, TrajectoryNoise, expand_and_prune, in_batches
from progrpo.grpo.samplers import log_prob, preview, step_mean

SHAPE = (1, 2, 2)
START = (torch.tensor([0]), torch.tensor([0]))  # the first trajectory of the first prompt
FLOW = official_schedules.flow(10, 0.7).to(dtype=torch.float32)
DIFFUSION = official_schedules.ddim(50, 1.0).to(dtype=torch.float32)
PRO = PruningPlan(48, ((5, 24), (7, 12)))
FLASH = PruningPlan(24, ((5, 16), (7, 12)))
PRO_SD14 = PruningPlan(48, ((30, 32), (40, 8)))


class CountingModel:
    """A model of x that rounds alike in any batch; the reward is the mean pixel. Counts its rows, padding included."""

    def __init__(self):
        self.rows = 0

    def predict(self, x, step, prompt):
        self.rows += len(x)
        return 0.3 * x / (1 + x.abs()) + 0.01 * prompt.view(-1, 1, 1, 1)

    def policy(self) -> Policy:
        return Policy(self.predict, lambda latents: latents, lambda images, prompt: images.flatten(1).mean(1))


def roll(table, plan, prompts=2, batch=8, seed=0):
    model = CountingModel()
    rollout = expand_and_prune(
        model.policy(), table, plan, TrajectoryNoise(seed, 0, list(range(prompts)), SHAPE), batch
    )
    return rollout, model


@pytest.mark.parametrize(
    ("table", "plan", "calls", "decodes"),
    [
        (FLOW, PRO, 840, 84),
        (FLOW, FLASH, 680, 52),
        (DIFFUSION, PRO_SD14, 3480, 88),
        (FLOW, PruningPlan(24), 1200, 24),
        (DIFFUSION, PruningPlan(16), 4000, 16),
    ],
)
def test_calls_per_prompt_are_the_published_accounting(table, plan, calls, decodes):
    rollout, model = roll(table, plan)
    training = 4 * table.steps * rollout.rewards.shape[1]  # the paper's four equivalents per trained step
    assert rollout.counters.denoiser / 2 + training == calls
    assert rollout.counters.decoder / 2 == rollout.counters.reward / 2 == decodes
    assert model.rows == rollout.counters.denoiser  # the group sizes divide by the batch: nothing was padded


@pytest.mark.parametrize(
    ("table", "plan", "sampling"),
    [(FLOW, PRO, 396), (FLOW, FLASH, 228), (DIFFUSION, PRO_SD14, 1920)],
)
def test_recomputing_previews_costs_equation_22_as_written(table, plan, sampling):
    (n0, n1, n2), (t1, t2) = (plan.size, *[k for _, k in plan.stages]), [t for t, _ in plan.stages]
    literal = n0 * t1 + n1 * (t2 - t1) + n2 * (table.steps - t2) + n0 + n1
    rollout, _ = roll(table, PruningPlan(plan.size, plan.stages, preview="recompute"))
    assert rollout.counters.denoiser / 2 == literal == sampling


def test_three_accountings_of_one_schedule():
    stages = ((4, 18), (6, 12))
    reuse, _ = roll(FLOW, PruningPlan(24, stages), prompts=1, batch=6)
    recompute, _ = roll(FLOW, PruningPlan(24, stages, preview="recompute"), prompts=1, batch=6)
    assert (reuse.counters.denoiser, recompute.counters.denoiser) == (192, 222)


@pytest.mark.parametrize(("table", "plan"), [(FLOW, PRO), (DIFFUSION, PRO_SD14)])
def test_reuse_and_recompute_keep_the_same_survivors_bit_for_bit(table, plan):
    reuse, _ = roll(table, plan)
    recompute, _ = roll(table, PruningPlan(plan.size, plan.stages, preview="recompute"))
    assert torch.equal(reuse.trajectories, recompute.trajectories)
    assert torch.equal(reuse.states, recompute.states)
    assert torch.equal(reuse.log_probs, recompute.log_probs)


def test_a_survivor_is_unchanged_when_others_are_removed():
    pruned, _ = roll(FLOW, PRO)
    full, _ = roll(FLOW, PruningPlan(48))
    all_states = full.states.view(2, 48, *full.states.shape[1:])
    kept = torch.stack([all_states[p, pruned.trajectories[p]] for p in range(2)]).flatten(0, 1)
    assert torch.equal(pruned.states, kept)


def test_a_prompt_does_not_depend_on_the_prompts_beside_it():
    both, _ = roll(FLOW, PRO, prompts=2)
    model = CountingModel()
    shifted = Policy(
        lambda x, step, prompt: model.predict(x, step, prompt + 1), *list(vars(model.policy()).values())[1:]
    )
    alone = expand_and_prune(shifted, FLOW, PRO, TrajectoryNoise(0, 0, [1], SHAPE), 8)
    assert torch.equal(alone.states, both.states[12:])


def test_selection_maximises_the_variance_of_previews_and_stages_record_it():
    rollout, _ = roll(FLOW, PRO)
    first = rollout.stages[0]
    assert first.rewards.shape == (2, 48)
    assert first.kept.shape == (2, 24)
    assert torch.equal(first.kept, optimal_variance_filter(first.rewards, 24))
    assert not torch.equal(first.kept, best_of_n(first.rewards, 24))
    assert [stage.step for stage in rollout.stages] == [5, 7]


def test_a_stage_at_the_last_step_selects_on_terminal_rewards():
    static, model = roll(FLOW, PruningPlan(24, ((10, 12),)))
    full, _ = roll(FLOW, PruningPlan(24))
    assert static.counters.denoiser == 2 * 240
    assert model.rows == 2 * 240
    assert torch.equal(static.rewards, full.rewards.gather(1, static.stages[0].kept))
    assert torch.equal(static.trajectories, static.stages[0].kept)


@pytest.mark.parametrize("rule", [uniform, best_of_n])
def test_other_rules_keep_as_many_and_are_repeatable(rule):
    plan = PruningPlan(24, ((5, 16), (7, 12)), rule=rule)
    first, second = roll(FLOW, plan)[0], roll(FLOW, plan)[0]
    assert torch.equal(first.trajectories, second.trajectories)
    assert first.rewards.shape == (2, 12)


@pytest.mark.parametrize(
    ("kept", "what"),
    [
        ([[0, 1, 2]] * 2, r"\(2, 3\), not torch.int64 \(2, 4\)"),
        ([[0.0, 1.0, 2.0, 3.0]] * 2, "torch.float32"),
        ([[0, 1, 2, 6]] * 2, "within 0..5"),
        ([[-1, 1, 2, 3]] * 2, "must ascend within"),
        ([[0, 1, 1, 3]] * 2, "must ascend within"),
    ],
)
def test_a_rule_that_keeps_no_ascending_subset_is_named(kept, what):
    def careless(rewards, keep, seeds):
        return torch.tensor(kept)

    with pytest.raises(UserError, match=f"selection rule careless: kept .*{what}"):
        roll(FLOW, PruningPlan(6, ((5, 4),), rule=careless))


class Careless:
    """A rule that is an object, which has no name of its own."""

    def __call__(self, rewards, keep, seeds):
        return torch.zeros(len(rewards), keep, dtype=torch.long)


@pytest.mark.parametrize(("rule", "name"), [(Careless(), "Careless"), (partial(Careless()), "partial")])
def test_a_careless_rule_without_a_name_is_named_by_its_class(rule, name):
    with pytest.raises(UserError, match=f"selection rule {name}: kept "):
        roll(FLOW, PruningPlan(6, ((5, 4),), rule=rule))


def test_shared_initial_noise_is_one_noise_for_all():
    noise = TrajectoryNoise(0, 3, [0, 1], SHAPE, shared_initial=True)
    initial = noise.initial(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]))
    assert torch.equal(initial[0], initial[1])
    assert torch.equal(initial[0], initial[2])
    later = noise.draw(torch.tensor([0, 0]), torch.tensor([0, 1]))
    assert not torch.equal(later[0], later[1])
    other = TrajectoryNoise(0, 4, [0, 1], SHAPE, shared_initial=True).initial(torch.tensor([0]), torch.tensor([0]))
    assert not torch.equal(initial[:1], other)


@pytest.mark.parametrize("together", [1, 2, 3])
def test_initial_noise_is_shared_by_so_many_prompts_after_one_another(together):
    """Whoever has which prompts: position in the iteration decides, as where each of DanceGRPO's GPUs has one noise for its own."""
    prompts, trajectories = torch.arange(6).repeat_interleave(2), torch.arange(2).repeat(6)
    noise = TrajectoryNoise(0, 3, list(range(6)), SHAPE, shared_initial=together)
    initial = noise.initial(prompts, trajectories)
    alike = torch.tensor([[torch.equal(a, b) for a in initial] for b in initial])
    assert torch.equal(alike, prompts[:, None] // together == prompts // together)
    other_rank = TrajectoryNoise(0, 3, [5, 2], SHAPE, shared_initial=together).initial(torch.arange(2), torch.ones(2))
    assert torch.equal(other_rank, initial[[10, 4]])
    assert torch.equal(noise.of(slice(4, 6)).initial(torch.arange(2), torch.zeros(2)), initial[[8, 10]])
    assert not torch.equal(noise.draw(*START), noise.initial(*START))


def test_the_batch_size_pads_the_last_call_and_counts_no_padding():
    rollout, model = roll(FLOW, PruningPlan(6, ((5, 4),)), prompts=1, batch=4)
    assert rollout.counters.denoiser == 6 * 6 + 4 * 4
    assert model.rows == 8 * 6 + 4 * 4
    assert torch.equal(rollout.states, roll(FLOW, PruningPlan(6, ((5, 4),)), prompts=1, batch=2)[0].states)


def test_batches_cover_every_row_once():
    rows = [r for r, (part,) in in_batches(4, torch.arange(10)) if len(part) == 4]
    assert [(r.start, r.stop) for r in rows] == [(0, 4), (4, 8), (8, 10)]


def test_a_reward_that_is_no_number_names_its_trajectory():
    def score(images, prompt):
        rewards = images.flatten(1).mean(1)
        rewards[3] = float("nan")
        return rewards

    policy = Policy(CountingModel().predict, lambda latents: latents, score)
    with pytest.raises(ValueError, match=r"\(0, 3\)"):
        expand_and_prune(policy, FLOW, PruningPlan(8), TrajectoryNoise(0, 0, [0], SHAPE), 8)


def test_every_selection_and_every_noise_has_its_own_seed():
    """Of the run, the iteration, the prompt and the step, or the trajectory: no two share one."""
    seeds = []

    def watched(rewards, keep, given):
        seeds.extend(given)
        return uniform(rewards, keep, given)

    noises = [TrajectoryNoise(seed, iteration, [0, 5], SHAPE) for seed in (0, 1) for iteration in (0, 1)]
    for noise in noises:
        expand_and_prune(CountingModel().policy(), FLOW, PruningPlan(6, ((5, 5), (7, 4)), rule=watched), noise, 8)
    assert len(set(seeds)) == len(seeds) == 2 * 2 * 2 * 2
    first = [torch.equal(a.initial(*START), b.initial(*START)) for a in noises for b in noises if a is not b]
    assert not any(first)


def test_shared_initial_noise_is_that_of_the_run_and_the_iteration():
    noises = [TrajectoryNoise(s, i, [0], SHAPE, shared_initial=True).initial(*START) for s in (0, 1) for i in (0, 1)]
    assert len({tuple(noise.flatten().tolist()) for noise in noises}) == 4


def test_a_trajectory_draws_new_noise_at_every_step():
    noise = TrajectoryNoise(0, 0, [0], SHAPE)
    assert not torch.equal(noise.draw(*START), noise.draw(*START))


def test_log_probabilities_are_those_of_the_recorded_states():
    rollout, _ = roll(FLOW, PRO)
    model, prompt = CountingModel(), torch.arange(2).repeat_interleave(12)
    for step in range(FLOW.steps):
        x = rollout.states[:, step]
        mean = step_mean(FLOW, step, x, model.predict(x, step, prompt))
        torch.testing.assert_close(rollout.log_probs[:, step], log_prob(FLOW, step, rollout.states[:, step + 1], mean))


def test_a_stage_sees_the_rewards_of_previews():
    rollout, _ = roll(FLOW, PruningPlan(6, ((5, 4),)))
    full, _ = roll(FLOW, PruningPlan(6))
    x, prompt = full.states[:, 5], torch.arange(2).repeat_interleave(6)
    previews = preview(FLOW, 5, x, CountingModel().predict(x, 5, prompt))
    torch.testing.assert_close(rollout.stages[0].rewards.flatten(), previews.flatten(1).mean(1))
