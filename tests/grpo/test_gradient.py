"""The gradient step as an equation: what the trainer accumulates is the gradient of one loss over all samples, written out here."""

from pathlib import Path

import pytest
import torch

import tiny
from progrpo.config import Config, load_config
from progrpo.errors import UserError
from progrpo.grpo.backbone import load_backbone
from progrpo.grpo.progress import UpdateStatistics, metrics_text
from progrpo.grpo.samplers import log_prob, step_mean
from progrpo.grpo.trainer import Samples, Trainer
from ranks import run_group

GUIDANCE, CLIP, BETA = 3.0, 0.02, 0.7
SMALL = {  # 2 prompts x 2 survivors, 2 of 3 steps trained: one update of 4 samples
    "prompts_per_iteration": 2,
    "updates_per_iteration": 1,
    "iterations": 1,
    "group": {"size": 3, "pruning": [{"step": 2, "keep": 2}]},
}
FAMILIES = {"flow": (tiny.FLOW, 0.7), "diffusion": (tiny.DIFFUSION, 1.0)}


class Brightness:
    """A reward that any model can raise: the mean pixel; for some prompt the same for all images."""

    name = "brightness"
    constant_for: str | None = None

    def score(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        constant = torch.tensor([prompt == self.constant_for for prompt in prompts])
        return images.flatten(1).mean(1).masked_fill(constant, 0.5)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return tiny.make_models(tmp_path_factory.mktemp("models"))


def configuration(
    folder: Path, models: Path, family: str, beta: float, both: bool, micro_batch: int, zero: str = "keep", **more
) -> Config:
    base, noise = FAMILIES[family]
    run = base | SMALL | {"micro_batch": micro_batch, "sampling_batch": 2}
    run["sampling"] = {"steps": 3, "guidance_scale": GUIDANCE, "noise": noise}
    run["objective"] = {"clip_range": CLIP, "kl_beta": beta, "trained_fraction": 0.7, "unconditional_gradient": both}
    run["objective"]["zero_advantages"] = zero
    return load_config(tiny.write_config(folder / "config.yaml", models, run=run | more))


def trainer_of(config: Config, out: Path) -> Trainer:
    run = config.runs["run"]
    backbone = load_backbone(config.models[run.model], torch.device("cpu"), train_all_weights=run.lora is None)
    trainer = Trainer(run, 0, backbone, Brightness(), ["a red circle", "a blue square", "two circles"], out)
    if run.objective.zero_advantages == "drop":
        trainer.reward.constant_for = trainer.prompts[trainer.stream.iteration(0)[0]]
    return trainer


def moved(trainer: Trainer) -> Samples:
    """Samples of an iteration, after which the weights have moved: ratios on both sides of the clip range, and a KL."""
    samples = trainer._sample()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.tuning.parameters:
            size = 0.1 if trainer.run.lora else 0.02 * parameter.std().nan_to_num(0)
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return samples


def accumulated(trainer: Trainer, samples: Samples) -> tuple[torch.Tensor, float]:
    """(the gradient as one vector, the mean of the recorded losses) of an update over all samples."""
    statistics = UpdateStatistics()
    trainer._accumulate(samples, 0, len(samples.advantages), statistics)
    gradient = torch.cat([parameter.grad.flatten() for parameter in trainer.tuning.parameters])
    trainer.optimizer.zero_grad(set_to_none=True)
    return gradient, torch.cat(statistics.loss).mean().item()


def denoise(backbone, x, step, table, text):
    if backbone.model.family == "diffusion":
        return backbone.denoiser(x, table.timesteps[step], text.embeddings).sample
    timestep = table.timesteps[step].expand(len(x))
    return backbone.denoiser(
        x, encoder_hidden_states=text.embeddings, pooled_projections=text.pooled, timestep=timestep
    ).sample


def whole_loss(trainer: Trainer, samples: Samples, untrained) -> torch.Tensor:
    """mean over samples and trained steps of max(-A r, -A clip(r)) + beta KL, from the recorded states; no batches."""
    run, backbone, table = trainer.run, trainer.backbone, trainer.table
    states, rewards = samples.rollout.states, samples.rollout.rewards.double()
    spread = rewards.std(1, correction=0, keepdim=True)
    advantage = ((rewards - rewards.mean(1, keepdim=True)) / (spread + 1e-4)).flatten().float()
    prompts = [trainer.prompts[k] for k in trainer.stream.iteration(0)]
    rows = [prompt for prompt in prompts for _ in range(rewards.shape[1])]

    def mean_of(step, model, both):
        x = states[:, step]
        conditional = denoise(model, x, step, table, model.encode(rows))
        unconditional = denoise(model, x, step, table, model.encode([""] * len(rows)))
        unconditional = unconditional if both else unconditional.detach()
        return step_mean(table, step, x, (1 - GUIDANCE) * unconditional + GUIDANCE * conditional)

    terms = []
    for step in range(2):
        mean = mean_of(step, backbone, run.objective.unconditional_gradient)
        new = log_prob(table, step, states[:, step + 1], mean)
        ratio = (new - samples.rollout.log_probs[:, step]).exp()
        terms.append(torch.max(-advantage * ratio, -advantage * ratio.clamp(1 - CLIP, 1 + CLIP)))
        if run.objective.kl_beta:
            with torch.no_grad():
                reference = mean_of(step, untrained, True)
            difference = (mean - reference).pow(2).flatten(1).mean(1)
            std = (table.kl_std if run.objective.kl_form == "code" else table.std)[step]
            terms[-1] = terms[-1] + run.objective.kl_beta * difference / (2 * std**2)
    counts = (advantage != 0) | (run.objective.zero_advantages == "keep")
    return torch.stack(terms)[:, counts].mean()


@pytest.mark.parametrize("both", [True, False], ids=["both gradients", "unconditional detached"])
@pytest.mark.parametrize("beta", [0.0, BETA])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_accumulated_gradient_is_that_of_the_whole_loss(models, tmp_path, family, beta, both):
    check_gradient(configuration(tmp_path, models, family, beta, both, micro_batch=2), tmp_path)


def test_the_kl_may_be_the_papers(models, tmp_path):
    """With the step's size in its denominator, which the public code leaves out."""
    config = configuration(tmp_path, models, "flow", BETA, True, micro_batch=2)
    objective = config.runs["run"].objective.model_dump() | {"kl_form": "paper"}
    check_gradient(configuration(tmp_path, models, "flow", BETA, True, micro_batch=2, objective=objective), tmp_path)


def test_without_samples_of_zero_advantage_the_whole_loss_is_the_mean_of_the_others(models, tmp_path):
    """Their KL goes with them."""
    samples = check_gradient(configuration(tmp_path, models, "flow", BETA, True, micro_batch=3, zero="drop"), tmp_path)
    assert samples.counted.tolist() == [False, False, True, True]


def test_where_no_sample_counts_the_gradient_is_zero(models, tmp_path):
    more = {"prompts_per_iteration": 1}
    config = configuration(tmp_path, models, "flow", BETA, True, micro_batch=2, zero="drop", **more)
    trainer = trainer_of(config, tmp_path / "out")
    assert not accumulated(trainer, moved(trainer))[0].any()


def test_the_mean_is_over_the_samples_that_count_on_all_ranks(models, tmp_path, monkeypatch):
    """Of four ranks one has two that count: its share is four times the mean, which the mean over ranks makes whole again."""
    trainer = trainer_of(
        configuration(tmp_path, models, "flow", BETA, True, micro_batch=2, zero="drop"), tmp_path / "out"
    )
    samples = moved(trainer)
    alone, _ = accumulated(trainer, samples)
    monkeypatch.setattr(type(trainer.accelerator), "num_processes", property(lambda self: 4))
    monkeypatch.setattr(trainer.accelerator, "gather", lambda count: torch.cat([count, count.new_zeros(3)]))
    shared, _ = accumulated(trainer, samples)
    assert (shared - 4 * alone).norm() < 1e-5 * shared.norm()


def check_gradient(config: Config, tmp_path: Path) -> Samples:
    trainer = trainer_of(config, tmp_path / "out")
    samples = moved(trainer)
    gradient, value = accumulated(trainer, samples)
    untrained = load_backbone(trainer.backbone.model, torch.device("cpu"))
    loss = whole_loss(trainer, samples, untrained)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, trainer.tuning.parameters)])
    if samples.counted.all():
        assert value == pytest.approx(loss.item(), rel=1e-3, abs=1e-5)
    assert (gradient - expected).norm() < 1e-3 * expected.norm()
    assert expected.norm() > 0
    return samples


@pytest.mark.parametrize("family", FAMILIES)
def test_detaching_the_unconditional_branch_changes_the_gradient_and_no_bit_of_the_value(models, tmp_path, family):
    results = []
    for both in (True, False):
        trainer = trainer_of(configuration(tmp_path, models, family, BETA, both, micro_batch=2), tmp_path / "out")
        results.append(accumulated(trainer, moved(trainer)))
    (gradient, value), (detached, same_value) = results
    assert value == same_value
    assert (gradient - detached).norm() > 0.1 * gradient.norm()


def test_samples_lie_on_both_sides_of_the_clip_range(models, tmp_path):
    """Else the tests above would not see the clipping."""
    for family in FAMILIES:
        trainer = trainer_of(configuration(tmp_path, models, family, BETA, True, micro_batch=4), tmp_path / "out")
        statistics = UpdateStatistics()
        trainer._accumulate(moved(trainer), 0, 4, statistics)
        ratio = torch.cat(statistics.ratio)
        assert (ratio - 1).abs().min() < CLIP < (ratio - 1).abs().max()


def test_updates_on_a_simple_reward_raise_it(models, tmp_path):
    """All weights are trained: the untrained transformer hardly sees its attention."""
    more = {"iterations": 6, "optimizer": {"learning_rate": 3e-3}, "lora": None, "ema": None, "group": {"size": 8}}
    trainer = trainer_of(configuration(tmp_path, models, "flow", 0.0, True, micro_batch=16, **more), tmp_path / "out")
    before = trainer._sample().rollout.rewards
    trainer.train()
    trainer.iteration = 0  # the noise of the first samples again
    after = trainer._sample().rollout.rewards
    assert after.mean() > before.mean() + 2 * before.std()


def test_weights_that_are_not_finite_end_the_training_before_anything_is_saved(models, tmp_path, monkeypatch):
    trainer = trainer_of(configuration(tmp_path, models, "flow", 0.0, True, micro_batch=4), tmp_path / "out")
    monkeypatch.setattr(trainer.optimizer, "step", lambda: trainer.tuning.parameters[0].data.fill_(float("nan")))
    with pytest.raises(UserError, match="iteration 1: the trained weights are not finite"):
        trainer.train()
    assert not (tmp_path / "out").exists()


def test_metrics_that_are_not_finite_are_named():
    with pytest.raises(UserError, match="iteration 4: kl, grad_norm: "):
        metrics_text({"iteration": 4, "loss": 0.5, "kl": float("inf"), "grad_norm": float("nan")})


RANK = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import torch
import test_gradient
from progrpo.config import load_config
trainer = test_gradient.trainer_of(load_config(sys.argv[3]), Path(sys.argv[4]) / "out")
gradient, _ = test_gradient.accumulated(trainer, test_gradient.moved(trainer))
if trainer.accelerator.is_main_process:
    torch.save(gradient, Path(sys.argv[4]) / "gradient.pt")
trainer.accelerator.wait_for_everyone()
import os
os._exit(0)
"""


@pytest.mark.parametrize("zero", ["keep", "drop"])
def test_two_ranks_accumulate_the_gradient_of_one(models, tmp_path, zero):
    """Also where fewer samples of one rank count than of the other."""
    more = {"prompts_per_iteration": 4}
    config = configuration(tmp_path, models, "flow", BETA, False, micro_batch=2, zero=zero, **more)
    trainer = trainer_of(config, tmp_path / "out")
    gradient, _ = accumulated(trainer, moved(trainer))
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    here = Path(__file__).parent
    arguments = [script, here, here.parent, tmp_path / "config.yaml", tmp_path]
    statuses, errors = run_group([arguments] * 2, tmp_path / "out")
    assert statuses == [0, 0], errors
    ranks = torch.load(tmp_path / "gradient.pt", weights_only=True)
    assert (ranks - gradient).norm() < 1e-3 * gradient.norm()
