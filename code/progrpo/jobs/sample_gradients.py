"""The sampling side of the gradient study: pools of trajectories under a base model, with the geometry of their gradients.

A trajectory's gradient is that of its log-probability, averaged over the trained steps, by what the run `gradients_of` trains, before
training. It is never stored: its inner products are all that the study of selection rules asks for.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from progrpo.config import Analysis, Config, Run
from progrpo.devices import choose_device
from progrpo.errors import UserError
from progrpo.files import write_atomic
from progrpo.grpo.backbone import Backbone, Text, load_backbone
from progrpo.grpo.rollout import Rollout
from progrpo.grpo.samplers import log_prob, step_mean
from progrpo.grpo.tuning import Tuning
from progrpo.jobs.loading import scorer_of
from progrpo.jobs.sample_rewards import first_prompts, sample_pool
from progrpo.provenance import provenance

ROWS = 144  # (sample, step) pairs of a backward pass that sums over trajectories


def sample_gradients(config: Config, name: str, out: Path, device_name: str) -> None:
    """Write rewards (P, N), previews (P, N, T), projections (P, N) and grams (P, N, N) of an analysis as an .npz.

    The projections are on the gradient of whole pools of as many other prompts, so that a pool's noise is not its own direction.
    UserError: an analysis that the tier lacks, one whose steps are not those of its run, too few prompts.
    """
    analysis = config.get_analysis(name)
    run = config.get_run(str(analysis.gradients_of))
    steps = [(section.sampling.steps, section.sampling.noisy()) for section in (analysis, run)]
    if steps[0] != steps[1]:
        told = ", but ".join(f"{count} denoising steps with noise in {noisy}" for count, noisy in steps)
        raise UserError(f"analyses.{name}.sampling: {told} of {analysis.gradients_of}; the gradients are of its steps")
    prompts = first_prompts(config, analysis, 2 * analysis.prompt_count)
    device = choose_device(device_name)
    backbone = load_backbone(config.models[analysis.model], device)
    scorer = scorer_of(config.scorers[analysis.scorer], device)
    torch.manual_seed(analysis.seed)
    gradients = _Gradients(backbone, run, analysis)

    def pool(number: int) -> tuple[Rollout, Text]:
        with torch.no_grad():
            rollout = sample_pool(backbone, scorer, [prompts[number]], number, analysis, None)
        return rollout, backbone.encode([prompts[number]])

    direction: Tensor | float = 0.0
    for number in range(analysis.prompt_count, 2 * analysis.prompt_count):
        direction = direction + gradients.of_group(*pool(number))
        print(f"{name}: direction {number + 1 - analysis.prompt_count}/{analysis.prompt_count} prompts", flush=True)
    columns: dict[str, list] = {key: [] for key in ("rewards", "previews", "projections", "grams")}
    for number in range(analysis.prompt_count):
        rollout, text = pool(number)
        each = gradients.of_trajectories(rollout, text)
        previews = torch.stack([stage.rewards[0] for stage in rollout.stages], dim=-1)
        measured = {"rewards": rollout.rewards[0], "previews": previews}
        measured |= {"projections": each @ direction, "grams": each @ each.T}
        for key, value in measured.items():
            columns[key].append(value.cpu().numpy())
        print(f"{name}: pool {number + 1}/{analysis.prompt_count}", flush=True)
    record = json.dumps(provenance(analysis, analysis.seed, backbone.device))
    arrays = {key: np.stack(values).astype(np.float32) for key, values in columns.items()}
    write_atomic(out, lambda file: np.savez_compressed(file, provenance=np.array(record), **arrays))  # type: ignore[arg-type]


class _Gradients:
    """Gradients of a pool's trajectories, flat, by the parameters that a run trains."""

    def __init__(self, backbone: Backbone, run: Run, analysis: Analysis):
        self.backbone, self.trained, self.sampling = backbone, run.trained(), analysis.sampling
        self.parameters = Tuning(backbone, run.lora, keep_reference=False).parameters
        self.table = backbone.table(analysis.sampling)

    def _log_probs(self, rollout: Rollout, text: Text, rows: Tensor) -> Tensor:
        """Log-probabilities (rows x steps,) of the trajectories `rows` of one prompt, trajectory by trajectory."""
        steps = torch.tensor(self.trained, device=rows.device).repeat(len(rows))
        rows = rows.repeat_interleave(len(self.trained))
        x = rollout.states[rows, steps]
        prompt = text.rows(torch.zeros_like(rows))
        output = self.backbone.predict(x, self.table.timesteps[steps], prompt, self.sampling.guidance_scale)
        return log_prob(self.table, steps, rollout.states[rows, steps + 1], step_mean(self.table, steps, x, output))

    def _gradient(self, value: Tensor) -> Tensor:
        return torch.cat([part.flatten() for part in torch.autograd.grad(value, self.parameters)])

    def of_trajectories(self, rollout: Rollout, text: Text) -> Tensor:
        """(N, parameters): of the mean log-probability of each of N trajectories."""
        numbers = torch.arange(len(rollout.states), device=rollout.states.device)
        return torch.stack([self._gradient(self._log_probs(rollout, text, n[None]).mean()) for n in numbers])

    def of_group(self, rollout: Rollout, text: Text) -> Tensor:
        """(parameters,): of a whole group, sum over its N trajectories of (R - mean) / N times the mean log-probability."""
        rewards = rollout.rewards[0].to(rollout.states.device)
        weights = (rewards - rewards.mean()) / len(rewards)
        total: Tensor | float = 0.0
        for rows in torch.arange(len(rewards), device=rewards.device).split(max(1, ROWS // len(self.trained))):
            values = self._log_probs(rollout, text, rows).view(len(rows), -1).mean(dim=1)
            total = total + self._gradient((weights[rows] * values).sum())
        return torch.as_tensor(total)
