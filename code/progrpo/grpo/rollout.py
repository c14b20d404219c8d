"""Expand and prune: sample a group of trajectories per prompt, preview, select, go on with the survivors.

Shape letters: P prompts, G trajectories started per prompt, K survivors per prompt, N rows active at a step (P times the current
group), T denoising steps, C x H x W a latent, B rows of one model call (the last batch is padded, so that every call has one shape
and no bit of a trajectory depends on which others are still alive).
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from progrpo.errors import UserError
from progrpo.grpo.ovf import SelectionRule, check_finite, check_kept, optimal_variance_filter
from progrpo.grpo.samplers import StepTable, log_prob, preview, step_mean, step_sample


@dataclass(frozen=True)
class Policy:
    """What a rollout needs of a model; every function takes and returns B rows.

    predict(x (B, C, H, W), step, prompt (B,)) -> guided model output (B, C, H, W); decode(latents) -> images (B, 3, H', W') in
    [0, 1]; score(images, prompt (B,)) -> rewards (B,). `prompt` holds indices 0..P-1 of the rollout's prompts. preview decodes
    previews, where that is done otherwise than by `decode`.
    """

    predict: Callable[[Tensor, int, Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    score: Callable[[Tensor, Tensor], Tensor]
    preview: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class PruningPlan:
    """Group size G_max, stages (completed denoising steps, trajectories kept) in order, selection rule, and preview mode.

    A stage at step T selects on terminal rewards. preview "reuse": a survivor's next step uses the model output that made its
    preview, so that every active trajectory costs one call per step. "recompute": the paper's equation (22) as written, one
    additional call for every active trajectory at a pruning step.
    """

    size: int
    stages: tuple[tuple[int, int], ...] = ()
    rule: SelectionRule = optimal_variance_filter
    preview: str = "reuse"


@dataclass
class Counters:
    """Trajectories sent through each network (padding not counted)."""

    denoiser: int = 0
    decoder: int = 0
    reward: int = 0


@dataclass
class Stage:
    """What one selection saw: the step, the rewards (P, n) of the candidates, and which of them (P, k) were kept.

    plain: the same candidates' rewards (P, n) with the decoder of `Policy.decode`, where they were compared.
    """

    step: int
    rewards: Tensor
    kept: Tensor
    plain: Tensor | None = None


@dataclass
class Rollout:
    """The survivors of P groups, prompt by prompt.

    states: (P K, T + 1, C, H, W) float32, from the initial noise to the final latent; log_probs: (P K, T) float32, 0 where a step
    adds no noise; rewards: (P, K) terminal rewards; trajectories: (P, K) their indices among the G started; stages: one per
    selection; seconds: by part.
    """

    states: Tensor
    log_probs: Tensor
    rewards: Tensor
    trajectories: Tensor
    stages: list[Stage]
    counters: Counters
    seconds: dict[str, float] = field(default_factory=dict)


class TrajectoryNoise:
    """Standard normal noise that belongs to its trajectory: (seed, iteration, prompt, trajectory) alone decides it.

    `prompts` are the prompts' positions in the iteration over all ranks; `shape` is that of one latent. With `shared_initial` all
    trajectories of an iteration start from one noise, or with a number those of so many prompts after one another: DanceGRPO draws
    one on each GPU, for the prompts of that GPU.
    """

    def __init__(self, seed: int, iteration: int, prompts: list[int], shape: tuple, shared_initial: bool | int = False):
        self.key, self.prompts, self.shape, self.shared_initial = (seed, iteration), prompts, shape, shared_initial
        self._generators: dict[tuple[int, int], torch.Generator] = {}

    def of(self, part: slice) -> "TrajectoryNoise":
        """The same noise for some of the prompts."""
        return TrajectoryNoise(*self.key, self.prompts[part], self.shape, self.shared_initial)

    def seed_of(self, *path: int) -> int:
        """A seed that depends on the whole path of numbers: 63 bits, of which torch's generator on the CPU uses the lower 32.

        Two trajectories may thus, rarely, have the same noise: among 4,608 of an iteration (Pro-GRPO on SD3.5-M, tier paper) in one
        iteration of 400, among 384 (tier mini) in one of 58,000.
        """
        words = np.random.SeedSequence((*self.key, *path)).generate_state(1, np.uint64)
        return int(words[0] >> np.uint64(1))

    def draw(self, prompt: Tensor, trajectory: Tensor) -> Tensor:
        """The next noise (N, C, H, W) of each of N trajectories, on the CPU."""
        return torch.stack([self._next(p, g) for p, g in zip(prompt.tolist(), trajectory.tolist(), strict=True)])

    def initial(self, prompt: Tensor, trajectory: Tensor) -> Tensor:
        """The initial noise (N, C, H, W) of each of N trajectories, on the CPU."""
        if not self.shared_initial:
            return self.draw(prompt, trajectory)
        return torch.stack([self._shared(self.prompts[p]) for p in prompt.tolist()])

    def _shared(self, position: int) -> Tensor:
        """The initial noise (C, H, W) that a prompt shares with others."""
        part = 0 if self.shared_initial is True else position // self.shared_initial
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(self.seed_of(2**31, part)))

    def _next(self, prompt: int, trajectory: int) -> Tensor:
        key = (self.prompts[prompt], trajectory)
        if key not in self._generators:
            self._generators[key] = torch.Generator().manual_seed(self.seed_of(*key))
        return torch.randn(self.shape, generator=self._generators[key])


class Clock:
    """Seconds by part, with the device synchronised at both ends of a part."""

    now = staticmethod(time.perf_counter)  # a comparison on a shared CPU counts the process's own time instead

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the seconds of the enclosed work to `name`."""
        self._synchronise()
        start = self.now()
        yield
        self._synchronise()
        self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - start

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def in_batches(size: int, *tensors: Tensor) -> Iterator[tuple[slice, tuple[Tensor, ...]]]:
    """(rows, tensors of exactly `size` rows) over all rows; the last batch repeats its first row to fill up."""
    count = len(tensors[0])
    for start in range(0, count, size):
        rows = slice(start, min(start + size, count))
        index = torch.arange(start, rows.stop)
        index = torch.cat([index, index[:1].expand(size - len(index))]).to(tensors[0].device)
        yield rows, tuple(tensor[index] for tensor in tensors)


def regrouped(parts: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The rows of all parts in their order, `size` at a time; the last tensor has what is left."""
    waiting: Tensor | None = None
    for part in parts:
        waiting = part if waiting is None else torch.cat([waiting, part])
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    if waiting is not None and len(waiting):
        yield waiting


class _Sampling:
    """The state of one rollout between two steps."""

    def __init__(
        self,
        policy: Policy,
        table: StepTable,
        plan: PruningPlan,
        noise: TrajectoryNoise,
        batch: int,
        decode_batch: int,
    ):
        self.policy, self.table, self.plan, self.noise = policy, table, plan, noise
        self.batch, self.decode_batch = batch, decode_batch
        device = table.std.device
        self.prompts = len(noise.prompts)
        self.prompt = torch.arange(self.prompts).repeat_interleave(plan.size)  # (N,) on the CPU, as is trajectory
        self.trajectory = torch.arange(plan.size).repeat(self.prompts)
        self.selections = len(plan.stages)  # to come
        self.survivors = None if self.selections else self._room()
        # After 0, 1, ... steps, each (N, C, H, W): on their own while trajectories are still dropped, then parts of `survivors`.
        self.states = [self._store(0, noise.initial(self.prompt, self.trajectory).to(device))]
        self.log_probs = torch.zeros(len(self.prompt), table.steps, device=device)
        self.counters, self.clock = Counters(), Clock(device)
        self.stages: list[Stage] = []

    def _room(self) -> Tensor:
        """Where the states (P K, T + 1, C, H, W) of the trajectories that stay to the end are kept."""
        return torch.empty(len(self.prompt), self.table.steps + 1, *self.noise.shape, device=self.table.std.device)

    def _store(self, step: int, state: Tensor) -> Tensor:
        """The state (N, C, H, W) where it stays: in its place among the survivors', once it is known who they are."""
        if self.survivors is None:
            return state
        self.survivors[:, step] = state
        return self.survivors[:, step]

    def outputs(self, step: int) -> Tensor:
        """Model outputs (N, C, H, W) at the states that enter `step`."""
        x = self.states[step]
        self.counters.denoiser += len(x)
        prompt = self.prompt.to(x.device)
        with self.clock.part("denoiser"):
            parts = [
                self.policy.predict(rows_x, step, rows_prompt)[: rows.stop - rows.start]
                for rows, (rows_x, rows_prompt) in in_batches(self.batch, x, prompt)
            ]
            return torch.cat(parts)

    def rewards_of(self, latents: Tensor, decode: Callable[[Tensor], Tensor]) -> Tensor:
        """Rewards (P, n) of the decoded latents (N, C, H, W); ValueError names entries that are not finite."""
        self.counters.decoder += len(latents)
        self.counters.reward += len(latents)
        prompt = self.prompt.to(latents.device)

        def images() -> Iterator[Tensor]:
            for rows, (x,) in in_batches(self.decode_batch, latents):
                with self.clock.part("decoder"):
                    part = decode(x)[: rows.stop - rows.start]
                yield part

        scores, scored = [], max(self.batch, self.decode_batch)  # at once, however few are decoded at once
        for group, of_prompt in zip(regrouped(images(), scored), prompt.split(scored), strict=True):
            with self.clock.part("reward"):
                scores.append(self.policy.score(group, of_prompt).float())
        rewards = torch.cat(scores).view(self.prompts, -1)
        check_finite(rewards)
        return rewards

    def preview_rewards(self, step: int, outputs: Tensor, check: bool) -> tuple[Tensor, Tensor | None]:
        """Rewards (P, n) of the previews from the model outputs (N, C, H, W); to `check`, also with the decoder of final images."""
        latents, decode = preview(self.table, step, self.states[step], outputs), self.policy.preview
        rewards = self.rewards_of(latents, decode or self.policy.decode)
        return rewards, self.rewards_of(latents, self.policy.decode) if check and decode else None

    def select(self, step: int, keep: int, rewards: Tensor, plain: Tensor | None = None) -> Tensor:
        """Keep `keep` candidates of each prompt by the plan's rule; returns the kept rows (N',) on the device."""
        seeds = [self.noise.seed_of(p, 2**31 + step) for p in self.noise.prompts]
        kept = self.plan.rule(rewards, keep, seeds).cpu()  # (P, keep)
        try:
            check_kept(kept, rewards, keep)
        except ValueError as error:
            name = getattr(self.plan.rule, "__name__", type(self.plan.rule).__name__)  # an object has its class's
            raise UserError(f"selection rule {name}: {error}") from None
        self.stages.append(Stage(step, rewards.cpu(), kept, None if plain is None else plain.cpu()))
        rows = (kept + torch.arange(self.prompts)[:, None] * rewards.shape[1]).flatten()
        self.prompt, self.trajectory = self.prompt[rows], self.trajectory[rows]
        rows = rows.to(self.log_probs.device)
        self.log_probs = self.log_probs[rows]
        self.selections -= 1
        if not self.selections:
            self.survivors = self._room()
        for k in range(len(self.states)):  # one after the other, so that no second copy of all of them exists
            self.states[k] = self._store(k, self.states[k][rows])
        return rows

    def advance(self, step: int, outputs: Tensor) -> None:
        """Take one denoising step with the model outputs (N, C, H, W) and record states and log-probabilities."""
        x, noisy = self.states[step], step in self.table.noisy
        noise = self.noise.draw(self.prompt, self.trajectory).to(x.device) if noisy else torch.zeros_like(x)
        state = torch.empty_like(x) if self.survivors is None else self.survivors[:, step + 1]
        for rows, (rows_x, rows_m, rows_noise) in in_batches(self.batch, x, outputs, noise):
            count = rows.stop - rows.start
            mean = step_mean(self.table, step, rows_x, rows_m)
            sample = step_sample(self.table, step, mean, rows_noise)
            state[rows] = sample[:count]
            if noisy:
                self.log_probs[rows, step] = log_prob(self.table, step, sample, mean)[:count]
        self.states.append(state)


@torch.no_grad()
def expand_and_prune(
    policy: Policy,
    table: StepTable,
    plan: PruningPlan,
    noise: TrajectoryNoise,
    batch: int,
    decode_batch: int | None = None,
    check_previews: bool = False,
) -> Rollout:
    """Sample G trajectories for each prompt of `noise` and prune them stage by stage; paper, section 4.3.

    t_i is the number of completed denoising steps: the preview is taken from the model output at x_{t_i}. `batch` is the number of
    rows of every model call, `decode_batch` of the decoder's where it differs. To `check_previews` the first previews are decoded a
    second time, by `policy.decode`. ValueError names (prompt, trajectory) of a reward that is not finite.
    """
    sampling = _Sampling(policy, table, plan, noise, batch, decode_batch or batch)
    keep_at = dict(plan.stages)
    for step in range(table.steps):
        outputs = sampling.outputs(step)
        if step in keep_at:
            rewards, plain = sampling.preview_rewards(step, outputs, check_previews and not sampling.stages)
            kept = sampling.select(step, keep_at[step], rewards, plain)
            outputs = sampling.outputs(step) if plan.preview == "recompute" else outputs[kept]
        sampling.advance(step, outputs)
    rewards = sampling.rewards_of(sampling.states[table.steps], policy.decode)
    if table.steps in keep_at:
        rows = sampling.select(table.steps, keep_at[table.steps], rewards)
        rewards = rewards.flatten()[rows].view(len(noise.prompts), -1)
    assert sampling.survivors is not None  # the last selection made room for them
    return Rollout(
        states=sampling.survivors,
        log_probs=sampling.log_probs,
        rewards=rewards,
        trajectories=sampling.trajectory.view(len(noise.prompts), -1),
        stages=sampling.stages,
        counters=sampling.counters,
        seconds=sampling.clock.seconds,
    )
