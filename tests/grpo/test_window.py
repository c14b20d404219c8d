"""A window of stochastic steps: all steps as a window are the training without one; a smaller one trains its steps alone."""

import official_schedules
import pytest
import torch
from test_gradient import FAMILIES, accumulated, configuration, moved, trainer_of

import tiny
from progrpo.config import Run, Sampling
from progrpo.cost.budget import NETWORKS, iteration_tflop
from progrpo.errors import UserError
from progrpo.grpo.samplers import log_prob, step_mean, windowed

STEPS = 3
FLOW = {"flow": (official_schedules.flow, 0.7), "diffusion": (official_schedules.ddim, 1.0)}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tiny.make_models(tmp_path_factory.mktemp("models"))


def with_window(folder, models, family, window, **more):
    noise = FAMILIES[family][1]
    sampling = {"steps": STEPS, "guidance_scale": 3.0, "noise": noise, "window": window}
    config = configuration(folder, models, family, 0.7, True, 4, sampling=sampling, **more)
    return trainer_of(config, folder / "out")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_window_of_all_steps_is_the_training_without_one(models, tmp_path, family):
    results = []
    for window in (None, {"length": STEPS}):
        trainer = with_window(tmp_path, models, family, window)
        samples = moved(trainer)
        results.append((samples.rollout.states, samples.old_log_probs, accumulated(trainer, samples)[0]))
    assert all(torch.equal(plain, windowed) for plain, windowed in zip(*results, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_steps_of_a_window_alone_are_random_scored_and_trained(models, tmp_path, family):
    trainer = with_window(tmp_path, models, family, {"start": 1, "length": 1})
    samples = trainer._sample()
    rollout = samples.rollout
    assert (rollout.log_probs[:, 1] != 0).all()
    assert (rollout.log_probs[:, [0, 2]] == 0).all()
    statistics = trainer._update(samples)
    assert statistics.first_ratio_error == 0
    assert len(torch.cat(statistics.ratio)) == len(samples.advantages)  # one trained step of each
    assert rollout.counters.denoiser == 2 * (
        3 * 3
    )  # the ODE's steps are calls like any other: none was pruned before step 2


@pytest.mark.parametrize("family", FLOW)
def test_outside_the_window_a_step_is_the_ode(family):
    schedule, noise = FLOW[family]
    sde, ode = schedule(10, noise), schedule(10, 0.0)
    table = windowed(sde, ode, range(2, 4))
    for step in range(10):
        of = sde if step in (2, 3) else ode
        assert (table.mean_x[step], table.mean_m[step], table.std[step]) == (
            of.mean_x[step],
            of.mean_m[step],
            of.std[step],
        )
    x = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    assert log_prob(table, 2, x, step_mean(table, 2, x, x)).isfinite().all()
    with pytest.raises(ValueError, match="no log-probability"):
        log_prob(table, 4, x, x)
    for wrong in (range(0), range(8, 11)):
        with pytest.raises(ValueError, match="window"):
            windowed(sde, ode, wrong)


def test_a_window_moves_one_step_after_so_many_iterations_and_stays_at_the_end():
    sampling = Sampling(steps=5, guidance_scale=1.0, noise=0.7, window={"start": 1, "length": 2, "every": 3})
    starts = [sampling.noisy(iteration).start for iteration in range(12)]
    assert starts == [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3]
    assert all(len(sampling.noisy(iteration)) == 2 for iteration in range(12))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_moved_window_trains_the_steps_where_it_is(models, tmp_path, family):
    more = {"objective": {"clip_range": 0.02}, "iterations": 2}
    trainer = with_window(tmp_path, models, family, {"length": 1, "every": 1}, **more)
    trainer.iteration = 1
    samples = trainer._sample()
    assert (samples.rollout.log_probs[:, 1] != 0).all()
    assert (samples.rollout.log_probs[:, [0, 2]] == 0).all()
    assert trainer._update(samples).first_ratio_error == 0


REFUSED = {
    "beyond": ({"start": 2, "length": 2}, {}, "at most steps"),
    "deterministic": ({"length": 2}, {"noise": 0.0}, "noise > 0"),
    "nothing trained": ({"start": 2, "length": 1}, {}, "leaves none"),
    "all trajectories one": ({"start": 1, "length": 2}, {"shared_initial_noise": True}, "still one"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_window_that_cannot_be_is_one_line(models, tmp_path, case):
    window, change, expected = REFUSED[case]
    sampling = {"steps": STEPS, "guidance_scale": 1.0, "noise": 0.7, "window": window} | change
    group = {"size": 3, "pruning": [{"step": 1, "keep": 2}]}
    with pytest.raises(UserError, match=expected):
        configuration(tmp_path, models, "flow", 0.0, True, 4, sampling=sampling, group=group)


def test_the_cost_model_counts_the_steps_of_the_window():
    run = tiny.FLOW | {"sampling": tiny.FLOW["sampling"], "objective": {}}
    window = run | {"sampling": tiny.FLOW["sampling"] | {"window": {"start": 1, "length": 1}}}
    plain, short = (iteration_tflop(Run.model_validate(r | {"model": "m"}), NETWORKS["flow"]) for r in (run, window))
    assert short["update"] == pytest.approx(plain["update"] / 4)
    assert short["denoising"] == plain["denoising"]
