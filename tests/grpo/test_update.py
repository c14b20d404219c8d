"""What surrounds the gradient in an update: whose samples, which advantages, clipping, the average, and what a resume brings back."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import patch_optimizer_step
from test_gradient import configuration, moved, trainer_of

import tiny
from progrpo.errors import UserError
from progrpo.grpo.objective import advantages
from progrpo.grpo.ovf import uniform
from progrpo.grpo.rollout import TrajectoryNoise
from progrpo.grpo.trainer import Trainer, check_batches
from progrpo.grpo.training_state import KERNELS, state_of

REWARDS = torch.tensor([[1.0, 3.0, 4.0], [2.0, 2.5, 9.0]])


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return tiny.make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def make(models, tmp_path):
    """A trainer of the small flow run with changes: two updates of two samples each."""

    def build(family: str = "flow", out: str = "out", **more) -> Trainer:
        more = {"updates_per_iteration": 2, **more}
        return trainer_of(configuration(tmp_path, models, family, 0.0, True, 2, **more), tmp_path / out)

    return build


def equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def test_the_updates_of_an_iteration_train_on_all_samples_once(make, monkeypatch):
    trainer = make()
    samples, seen = moved(trainer), []
    monkeypatch.setattr(trainer, "_on_policy", lambda statistics: True)
    monkeypatch.setattr(
        trainer, "_backward", lambda samples, pairs, *_: seen.append((pairs.rows.tolist(), pairs.steps.tolist()))
    )
    monkeypatch.setattr(trainer.optimizer, "step", lambda: seen.append("update"))
    trainer._update(samples)
    first, second = ([([start, start + 1], [step] * 2) for step in (0, 1)] for start in (0, 2))
    assert seen == [*first, "update", *second, "update"]


def test_a_snapshots_state_is_on_disk_before_its_weights_are_published(make):
    """Else a kill between the two leaves a snapshot of a history that a GPU does not repeat bit for bit."""
    trainer, states = make(iterations=2, snapshots=[1], save_every=2), []
    trainer.train(lambda: states.append(sorted(path.name[:6] for path in trainer.store.folder.glob("*.pt"))))
    assert states == [["000001"]]


def test_ranks_that_find_other_states_refuse_together(make, monkeypatch):
    trainer = make(iterations=2)
    trainer.train()
    resumed = make(iterations=2)
    monkeypatch.setattr(resumed.accelerator, "gather", lambda own: torch.cat([own, own - 1]))
    with pytest.raises(UserError, match=r"state: ranks found the states of different iterations \(1, 2\); start again"):
        resumed._restore()
    assert resumed.iteration == 0


def test_an_update_clips_its_own_gradient_and_leaves_none(make, monkeypatch):
    trainer = make(optimizer={"learning_rate": 1e-3, "max_grad_norm": 1e-3})
    norms, samples = [], trainer._sample()

    def step():
        norms.append(torch.stack([p.grad.norm() for p in trainer.tuning.parameters]).norm().item())

    monkeypatch.setattr(trainer.optimizer, "step", step)
    statistics = trainer._update(samples)
    assert norms == pytest.approx([1e-3, 1e-3], rel=1e-3)
    assert all(norm > 2e-3 for norm in statistics.grad_norm)  # before clipping
    assert all(p.grad is None for p in trainer.tuning.parameters)


def test_the_average_sees_every_global_step_of_all_iterations(make, monkeypatch):
    trainer = make(iterations=2, ema={"decay": 0.9, "every": 1})
    steps, update = [], trainer.average.update
    monkeypatch.setattr(trainer.average, "update", lambda parameters, s: (steps.append(s), update(parameters, s)))
    trainer.train()
    assert steps == [0, 1, 2, 3]
    assert not equal(trainer.average.values, trainer.tuning.parameters)
    averaged = [value.clone() for value in trainer.average.values]
    trainer.load_average()
    assert equal(averaged, [p.detach() for p in trainer.tuning.parameters])


def test_an_average_that_has_not_moved_is_not_published(make):
    """Until its first move it is the base model: a short training would publish nothing that it learnt."""
    trainer = make(iterations=1, ema={"decay": 0.9, "every": 3})  # of two updates
    before = [p.detach().clone() for p in trainer.tuning.parameters]
    trainer.train()
    trained = [p.detach().clone() for p in trainer.tuning.parameters]
    assert trainer.moved_average is None
    assert equal(trainer.average.values, before)
    trainer.load_average()
    assert equal(trained, [p.detach() for p in trainer.tuning.parameters])
    assert not equal(trained, before)


def with_scaler(trainer: Trainer, monkeypatch) -> Trainer:
    """The trainer as it is in fp16, with a real scaler of gradients, over weights in float32."""
    accelerator, optimizer, scaler = trainer.accelerator, trainer.optimizer, torch.amp.GradScaler("cpu")
    monkeypatch.setattr(type(accelerator), "mixed_precision", "fp16")
    accelerator.native_amp, accelerator.scaler, optimizer.scaler = True, scaler, scaler
    optimizer._accelerate_step_called, optimizer._optimizer_original_step_method = False, optimizer.optimizer.step
    optimizer._optimizer_patched_step_method = patch_optimizer_step(optimizer, optimizer.optimizer.step)
    return trainer


@pytest.mark.parametrize("fused", [False, True])
def test_an_update_that_overflows_in_fp16_is_none(make, monkeypatch, fused):
    trainer = make(iterations=2, ema={"decay": 0.9, "every": 1}, speed={"fused_optimizer": fused})
    with_scaler(trainer, monkeypatch)
    before, steps, clip = (
        [p.detach().clone() for p in trainer.tuning.parameters],
        [],
        trainer.accelerator.clip_grad_norm_,
    )

    def clip_first_overflowing(parameters, norm):
        if trainer.accelerator.scaler.get_scale() == 65536:
            parameters[0].grad[0, 0] = float("inf")
        else:
            assert trainer.updates or equal(before, [p.detach() for p in trainer.tuning.parameters])
        return clip(parameters, norm)

    monkeypatch.setattr(trainer.accelerator, "clip_grad_norm_", clip_first_overflowing)
    monkeypatch.setattr(trainer.average, "update", lambda parameters, s: steps.append(s))
    trainer.train()
    assert steps == [0, 1, 2]
    assert trainer.updates == 3
    assert trainer.accelerator.scaler.get_scale() == 32768


@pytest.mark.parametrize("fused", [False, True])
def test_a_resumed_training_computes_as_it_was_told_when_it_was_resumed(make, fused):
    make(speed={"fused_optimizer": not fused}, iterations=2).train()
    resumed = make(speed={"fused_optimizer": fused}, iterations=2)
    own = [{key: group[key] for key in KERNELS} for group in resumed.optimizer.param_groups]
    resumed._restore()
    assert resumed.iteration == 2
    assert [{key: group[key] for key in KERNELS} for group in resumed.optimizer.param_groups] == own
    assert bool(own[0]["fused"]) == fused


def test_no_variable_of_the_environment_divides_the_gradient(make, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert make().accelerator.gradient_accumulation_steps == 1


def test_the_denoiser_stays_on_the_device_of_its_pipeline(make, monkeypatch):
    """Accelerate's own is the first GPU, and a pipeline may lie on the second."""
    monkeypatch.setattr(Accelerator, "device", property(lambda self: torch.device("meta")))
    trainer = make()
    assert {p.device for p in trainer.backbone.denoiser.parameters()} == {trainer.backbone.device}


@pytest.mark.parametrize("std", ["group", "global"])
@pytest.mark.parametrize("clamp", [0.7, 5.0])
def test_advantages_are_those_of_the_configuration(make, std, clamp):
    settings = {"advantage_std": std, "advantage_unbiased": True, "advantage_epsilon": 0.5, "advantage_clamp": clamp}
    trainer = make(objective={"trained_fraction": 0.7, **settings})
    expected = advantages(REWARDS, std=std, unbiased=True, eps=0.5, clamp=clamp)
    assert torch.equal(trainer._advantages(REWARDS), expected)


def test_the_optimizer_is_that_of_the_configuration(make):
    settings = {"learning_rate": 2e-3, "betas": (0.8, 0.95), "epsilon": 1e-5, "weight_decay": 0.03}
    group = make(optimizer=settings).optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == tuple(settings.values())


def test_noise_is_new_in_every_iteration_and_for_every_seed_and_shared_only_where_asked(make):
    def initial(trainer: Trainer, iteration: int, seed: int = 0) -> torch.Tensor:
        trainer.iteration, trainer.seed = iteration, seed
        return trainer._sample().rollout.states[:, 0]

    sampling = {"steps": 3, "guidance_scale": 1.0, "noise": 1.0}
    for shared in (True, 1, False):
        trainer = make("diffusion", sampling={**sampling, "shared_initial_noise": shared})
        first = initial(trainer, 0)
        assert torch.equal(first[0], first[1]) == bool(shared)  # of one prompt
        assert torch.equal(first[0], first[-1]) == (shared is True)
        assert not torch.equal(first, initial(trainer, 1))
        assert not torch.equal(first, initial(trainer, 0, seed=1))
        assert torch.equal(first, initial(trainer, 0))


def test_a_resumed_trainer_has_the_whole_state(make, capsys):
    changes = {"iterations": 2, "ema": {"decay": 0.9, "every": 1}}
    trained, resumed = make(**changes), make(**changes)
    trained.rescoring = True
    trained.train()
    resumed._restore()
    assert "resuming after iteration 2 of 2" in capsys.readouterr().out
    assert equal(state_of(resumed), state_of(trained))
    assert (resumed.iteration, resumed.updates, resumed.saved_iteration) == (2, 4, 2)


def test_a_rollout_is_that_of_the_configured_group(make):
    pruning = [{"step": 1, "keep": 4}, {"step": 2, "keep": 2}]
    trainer = make(group={"size": 6, "pruning": pruning, "rule": "uniform", "preview": "recompute"})
    samples, noise = trainer._sample(), TrajectoryNoise(0, 0, [0, 1], trainer.backbone.latent_shape)
    assert [stage.step for stage in samples.rollout.stages] == [1, 2]
    for stage, keep in zip(samples.rollout.stages, (4, 2), strict=True):
        seeds = [noise.seed_of(prompt, 2**31 + stage.step) for prompt in (0, 1)]
        assert torch.equal(stage.kept, uniform(stage.rewards, keep, seeds))
    assert asdict(samples.rollout.counters)["denoiser"] == 2 * (6 + 6 + 4 + 4 + 2)


def test_batches_that_do_not_divide_name_the_number(make):
    run = make().run  # 2 prompts, 2 updates
    check_batches(run, 1)
    with pytest.raises(UserError, match=r"multiple of ranks x updates_per_iteration \(2 x 2\)"):
        check_batches(run, 2)
