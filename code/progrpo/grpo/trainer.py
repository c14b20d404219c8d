"""The GRPO loop for both model families and every method: sample groups, select, score, update; on accelerate.

Shape letters: P prompts of this rank, K survivors per prompt, N = P K samples, T denoising steps,
B (sample, step) pairs of a micro-batch.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from progrpo.config import Run
from progrpo.errors import UserError
from progrpo.files import to_json, write_text
from progrpo.grpo.backbone import Backbone, Text
from progrpo.grpo.checkpoint import GracefulStop, StateStore
from progrpo.grpo.groups import Cut, plan_of, policy_of, roll_out, scoring
from progrpo.grpo.micro_batch import Pairs, check_batches, micro_batch_of, micro_batches
from progrpo.grpo.objective import advantages, clipped_surrogate, step_kl
from progrpo.grpo.previews import preview_decoder, require_agreement
from progrpo.grpo.progress import UpdateStatistics, batch_arithmetic, measure, metrics_text, progress_line
from progrpo.grpo.prompt_stream import PromptStream
from progrpo.grpo.rollout import Clock, Policy, TrajectoryNoise
from progrpo.grpo.samplers import log_prob, step_mean
from progrpo.grpo.samples import Samples
from progrpo.grpo.sharding import average_gradients, gathered, whole
from progrpo.grpo.text_cache import TextCache
from progrpo.grpo.training_state import latest_of_all, put_back, state_of
from progrpo.grpo.tuning import MovingAverage, Tuning, copy_into, optimizer_of, require_finite
from progrpo.rewards.base import Scorer

Log = Callable[[dict[str, Any], dict[str, float]], None]  # numbers of an iteration, and its seconds by part


class Stopped(Exception):
    """A signal asked the training to stop; its state is saved as far as it can be."""


class Trainer:
    """One run: `train()` goes from the last saved state to the last iteration.

    Everything an iteration does follows from (seed, iteration) and the weights, so a resumed run repeats an uninterrupted one bit for
    bit. Rank r of W owns the prompts r, r + W, ... of an iteration, and an update takes consecutive prompts of every rank: the
    samples of an update do not depend on W.
    """

    def __init__(self, run: Run, seed: int, backbone: Backbone, reward: Scorer, prompts: list[str], out: Path):
        self.run, self.seed, self.backbone, self.reward = run, seed, backbone, reward
        self.prompts, self.out = prompts, out
        AcceleratorState._reset_state()  # a training before, in this process, may have had another precision
        self.accelerator = Accelerator(
            mixed_precision={"fp32": "no"}.get(backbone.model.precision, backbone.model.precision),
            cpu=backbone.device.type == "cpu",
        )
        self.accelerator.gradient_accumulation_steps = 1  # not the environment's: `_accumulate` weighs
        check_batches(run, self.accelerator.num_processes)
        # Every rank draws the same adapter initialisation, whatever its number.
        torch.manual_seed(seed)
        self.tuning = Tuning(backbone, run.lora, run.objective.kl_beta > 0, run.speed.merged_adapters)
        if run.gradient_checkpointing:
            backbone.denoiser.enable_gradient_checkpointing()
        # A detached branch needs a call of its own, and sampling rounds as training does.
        self.one_call = run.speed.batched_guidance and run.objective.unconditional_gradient
        self.micro_batch = micro_batch_of(run, backbone, self.accelerator.num_processes)
        if run.speed.shard and self.accelerator.num_processes > 1:
            self.tuning.shard()
        optimizer = optimizer_of(self.tuning.parameters, run.optimizer, run.speed.fused_optimizer)
        # Sharded weights bring their gradients together themselves.
        wrap = self.accelerator.prepare_model
        self.model = backbone.denoiser if self.tuning.sharded else wrap(backbone.denoiser, device_placement=False)
        self.optimizer = self.accelerator.prepare(optimizer)
        self.average = MovingAverage(self.tuning.parameters, run.ema) if run.ema else None
        self.table = backbone.table(run.sampling)  # of the first iteration, when the window of stochastic steps moves
        self.plan, self.preview = plan_of(run.group), preview_decoder(backbone, run.previews)
        if run.speed.compile:
            self.tuning.compile()
        self.stream = PromptStream(len(prompts), run.prompts_per_iteration, seed)
        self.store = StateStore(out / "state")
        self.stop = GracefulStop()
        self.texts: TextCache | None = None
        self.iteration, self.updates, self.saved_iteration = 0, 0, -1
        self.milestones = {*run.snapshots, run.iterations}  # whose states are saved
        # Bounds what rounding does to a log-probability; a larger difference is another policy.
        self.rounding = 1e-4 if backbone.dtype == torch.float32 else 1e-2
        self.rescoring = False  # whether old log-probabilities are scored again in training's batches
        self.start_of_iteration: dict | None = None  # its state, while the weights are no longer those of its start
        self.metrics: list[str] = []
        self.timings: list[str] = []
        self.log: Log | None = None

    # ---------------------------------------------------------------- the loop

    def train(self, snapshot: Callable[[], None] = lambda: None, log: Log | None = None) -> None:
        """Run all iterations, and `snapshot()` after those of `run.snapshots`, on every rank; on the first, `log` each iteration.

        Stopped after a signal, UserError for a reward that is no number or a ratio that is not 1.
        """
        if self.accelerator.is_main_process:
            print(batch_arithmetic(self.run, self.accelerator.num_processes, self.micro_batch), flush=True)
        self.log = log
        self._restore()
        self._encode_once()
        with self.stop:  # the last write too: a launcher that sees one rank leave sends the others a signal
            try:
                while True:
                    if self.iteration in self.run.snapshots:
                        self.store.finish()  # its state is on disk before its weights are published
                        snapshot()
                    if self.iteration == self.run.iterations:
                        break
                    self._train_iteration()
                    if self.iteration % self.run.save_every == 0 or self.iteration in self.milestones:
                        self._save()
                    self._stop_if_asked()
            finally:
                self.store.finish()

    def _train_iteration(self) -> None:
        clock = Clock(self.backbone.device)
        with clock.part("rollout"):
            samples = self._sample()
        with clock.part("update"):
            statistics = self._update(samples)
        line = {"iteration": self.iteration + 1, **measure(samples.rollout, statistics, self.accelerator.gather)}
        metrics = metrics_text(line)
        averaged = self.average.values if self.average else []
        require_finite([*self.tuning.parameters, *averaged], f"iteration {self.iteration + 1}: the trained weights")
        seconds = {**samples.rollout.seconds, **clock.seconds}
        self.iteration += 1
        self.start_of_iteration = None
        self.metrics.append(metrics)
        self.timings.append(to_json({"iteration": self.iteration, **seconds}, "the timings"))
        if self.accelerator.is_main_process:
            self._write_logs()
            if self.log:
                self.log(line, seconds)
            print(progress_line(line, seconds, self.run.iterations), flush=True)

    # ---------------------------------------------------------------- sampling

    def _owned(self, iteration: int) -> tuple[range, list[str]]:
        """This rank's prompts of an iteration: their positions in it, and they themselves."""
        owned = range(self.accelerator.process_index, self.run.prompts_per_iteration, self.accelerator.num_processes)
        stream = self.stream.iteration(iteration)
        return owned, [self.prompts[stream[position]] for position in owned]

    def _encode_once(self) -> None:
        """Where texts are cached: encode what the iterations to come need, and let the encoders go."""
        if self.run.speed.text_cache:
            ahead = (self._owned(iteration)[1] for iteration in range(self.iteration, self.run.iterations))
            self.texts = TextCache(self.backbone, Path(self.run.speed.text_cache))
            self.texts.fill([prompt for prompts in ahead for prompt in prompts])
            self.backbone.release_encoders()

    def _sample(self) -> Samples:
        run, backbone = self.run, self.backbone
        owned, prompts = self._owned(self.iteration)
        clock = Clock(backbone.device)
        with clock.part("encode"):
            text = self.texts.read(prompts) if self.texts else backbone.encode(prompts)
        noise = TrajectoryNoise(
            self.seed, self.iteration, list(owned), backbone.latent_shape, run.sampling.shared_initial_noise
        )
        self.table = backbone.table(run.sampling, self.iteration)
        cut, check = self._cut(), self.preview is not None and self.iteration % run.previews.check_every == 0
        try:
            rollout = roll_out(self._policy(text, prompts), self.table, self.plan, noise, cut, check)
        except ValueError as error:
            raise UserError(
                f"iteration {self.iteration + 1}: scorer {self.reward.name}: {error};"
                f" first prompt {prompts[0]!r}; check the scorer's weights and the learning rate"
            ) from error
        rollout.seconds |= clock.seconds
        require_agreement(rollout, run.previews, self.accelerator.gather)
        advantage = self._advantages(rollout.rewards).flatten()
        counted = (advantage != 0) | (run.objective.zero_advantages == "keep")
        samples = Samples(rollout, text, advantage, rollout.log_probs, counted)
        if self.rescoring:
            samples.old_log_probs = self._rescore(samples)
        return samples

    def _cut(self) -> Cut:
        speed = self.run.speed
        batch = self.run.sampling_batch or self.micro_batch
        return Cut(batch, speed.decode_batch, speed.prompts_at_once, speed.states_on_host)

    def _policy(self, text: Text, prompts: list[str]) -> Policy:
        score, scale = scoring(self.reward, prompts), self.run.sampling.guidance_scale
        policy = policy_of(self.backbone, self.table, text, scale, score, self.preview, self.one_call)

        def predict(*arguments) -> Tensor:
            self._stop_if_asked()
            return policy.predict(*arguments)

        return replace(policy, predict=predict)

    def _advantages(self, rewards: Tensor) -> Tensor:
        settings = self.run.objective
        return advantages(
            rewards,
            std=settings.advantage_std,
            unbiased=settings.advantage_unbiased,
            eps=settings.advantage_epsilon,
            clamp=settings.advantage_clamp,
            population=self.accelerator.gather(rewards),
        )

    def _rescore(self, samples: Samples) -> Tensor:
        """Old log-probabilities (N, T) of the survivors under the weights that sampled them, by the very calls of training.

        Its micro-batches, and with gradients, without which a compiled or fused kernel may round otherwise. UserError when they
        differ from those of sampling by more than rounding.
        """
        old = samples.rollout.log_probs.clone()  # those of steps that are not trained stay
        size = len(old) // self.run.updates_per_iteration
        for start in range(0, len(old), size):
            for pairs in self._micro_batches(start, size):
                with self._gradients_apart():
                    mean = self._mean(samples, pairs, self.model, self.run.objective.unconditional_gradient).detach()
                meant = pairs.rows[: pairs.count], pairs.steps[: pairs.count]  # what fills up may round otherwise
                old[meant] = self._log_prob(samples, pairs, mean)[: pairs.count]
        drift = (old - samples.rollout.log_probs).abs().max()
        drift = self.accelerator.gather(drift[None]).max()  # all ranks refuse, or none: else one waits for the others
        if not drift <= self.rounding:
            self._refuse(drift)
        return old

    # ---------------------------------------------------------------- update

    def _mean(self, samples: Samples, pairs: Pairs, denoiser: nn.Module | None, both_gradients: bool = False) -> Tensor:
        """Means (B, C, H, W) of the pairs' transitions from the recorded states under a denoiser (None: the trained one)."""
        x = samples.before(pairs)
        output = self.backbone.predict(
            x,
            self.table.timesteps[pairs.steps],
            samples.text_of(pairs),
            self.run.sampling.guidance_scale,
            denoiser=denoiser,
            unconditional_gradient=both_gradients,
            one_call=self.one_call,
        )
        return step_mean(self.table, pairs.steps, x, output)

    def _log_prob(self, samples: Samples, pairs: Pairs, mean: Tensor) -> Tensor:
        """Log-probability (B,) of the pairs' recorded transitions under these means."""
        return log_prob(self.table, pairs.steps, samples.after(pairs), mean)

    def _update(self, samples: Samples) -> UpdateStatistics:
        """All optimizer updates of an iteration; the first is on-policy, and its likelihood ratio must be 1."""
        statistics = UpdateStatistics()
        size = len(samples.advantages) // self.run.updates_per_iteration
        for update in range(self.run.updates_per_iteration):
            self._accumulate(samples, update * size, size, statistics)
            if update == 0 and not self._on_policy(statistics):
                self.rescoring = True
                samples.old_log_probs = self._rescore(samples)
                self.optimizer.zero_grad(set_to_none=True)
                statistics = UpdateStatistics()
                self._accumulate(samples, 0, size, statistics)
                self._on_policy(statistics)
            norm = self.accelerator.clip_grad_norm_(self.tuning.parameters, self.run.optimizer.max_grad_norm)
            self._keep_start()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            norm = whole(torch.as_tensor(norm).detach())
            if self.accelerator.scaler and not norm.isfinite():  # fp16 skips what overflowed, a fused kernel unseen
                continue
            statistics.grad_norm.append(norm)
            if self.average:
                self.average.update(self.tuning.parameters, self.updates)
            self.updates += 1
        return statistics

    def _accumulate(self, samples: Samples, start: int, size: int, statistics: UpdateStatistics) -> None:
        """Gradient of one update: all its micro-batches and trained steps, of the samples that count on any rank."""
        counted = self.accelerator.gather(samples.counted[start : start + size].sum()[None]).float().sum().clamp(min=1)
        total = counted / self.accelerator.num_processes * len(self.run.trained(self.iteration))
        for pairs in self._micro_batches(start, size):
            self._stop_if_asked()
            with nullcontext() if pairs.last else self._gradients_apart():
                self._backward(samples, pairs, total, statistics)
        if self.tuning.sharded:
            average_gradients(self.tuning.parameters)

    def _gradients_apart(self) -> AbstractContextManager:
        """While entered, each rank keeps its gradients; but of what is sharded, whole ones would fill a GPU."""
        return nullcontext() if self.tuning.sharded else self.accelerator.no_sync(self.model)

    def _micro_batches(self, start: int, size: int) -> Iterator[Pairs]:
        steps = self.run.trained(self.iteration)
        return micro_batches(start, size, steps, self.micro_batch, self.backbone.device)

    def _backward(self, samples: Samples, pairs: Pairs, total: Tensor, statistics: UpdateStatistics) -> None:
        """Add the gradient of the pairs' share of a loss that is the mean over `total` pairs."""
        settings, count = self.run.objective, pairs.count
        mean = self._mean(samples, pairs, self.model, settings.unconditional_gradient)
        surrogate = clipped_surrogate(
            self._log_prob(samples, pairs, mean)[:count],
            samples.old_log_probs[pairs.rows, pairs.steps][:count],
            samples.advantages[pairs.rows][:count],
            settings.clip_range,
        )
        loss = surrogate.loss
        if settings.kl_beta > 0:
            with torch.no_grad(), self.tuning.reference() as reference:
                mean_ref = self._mean(samples, pairs, reference)
            kl = step_kl(self.table, pairs.steps, mean, mean_ref, settings.kl_form)[:count]
            loss = loss + settings.kl_beta * kl
            statistics.kl.append(kl.detach())
        statistics.ratio.append(surrogate.ratio)
        statistics.clipped.append(surrogate.clipped.float())
        statistics.loss.append(loss.detach())
        self.accelerator.backward((loss * samples.counted[pairs.rows][:count]).sum() / total)

    def _on_policy(self, statistics: UpdateStatistics) -> bool:
        """Whether the first update's likelihood ratio is 1.

        False asks for scoring the old log-probabilities again: the deviation has the size of rounding, because this machine's kernels
        round a row otherwise at another place of the batch. UserError: it is larger, or it stays.
        """
        error = self.accelerator.gather((torch.cat(statistics.ratio) - 1).abs().max()[None]).max()
        statistics.first_ratio_error = error
        # Same weights, same batches: equal bits in float32; autocast kernels get a tenth of the clip range.
        if error <= (0.0 if self.backbone.dtype == torch.float32 else self.run.objective.clip_range / 10):
            return True
        if self.rescoring or not error <= self.rounding:
            self._refuse(error)
        return False

    def _refuse(self, error: Tensor) -> NoReturn:
        raise UserError(
            f"iteration {self.iteration + 1}: the likelihood ratio of the first, on-policy update is 1 +- {error.item():.3g}, not 1:"
            " training does not evaluate the policy that sampled (dropout, another precision, or a kernel that is not deterministic);"
            " use precision fp32"
        )

    # ---------------------------------------------------------------- records and resume

    def _write_logs(self) -> None:
        write_text(self.out / "metrics.jsonl", "".join(line + "\n" for line in self.metrics))
        write_text(self.out / "timings.jsonl", "".join(line + "\n" for line in self.timings))

    def _save(self) -> None:
        state, behind = self.start_of_iteration, self.run.speed.background_save
        if state is None:
            state = self._copied_state() if behind or self.tuning.sharded else state_of(self)
        if self.accelerator.is_main_process:
            (self.store.save_behind if behind else self.store.save)(self.iteration, state)
        self.saved_iteration = self.iteration

    def _copied_state(self) -> dict:
        """The state in memory of its own on the first rank, an empty one on the others; of sharded weights a collective call."""
        if self.accelerator.is_main_process:
            return self.store.copied(state_of(self))
        if self.tuning.sharded:
            gathered(state_of(self))
        return {}

    def _restore(self) -> None:
        if found := latest_of_all(self):
            put_back(self, *found)
            if self.accelerator.is_main_process:
                self._write_logs()
                print(f"resuming after iteration {self.iteration} of {self.run.iterations}", flush=True)

    def _keep_start(self) -> None:
        """Before the first update of an iteration whose start is not on disk: copy that state, for a signal may come."""
        if self.start_of_iteration is None and self.saved_iteration < self.iteration:
            self.start_of_iteration = self._copied_state()

    def _stop_if_asked(self) -> None:
        """After a signal: save the state at the start of this iteration, unless it is on disk already, and leave."""
        asked = self.stop.requested
        if self.tuning.sharded:  # all leave at one place, or none: a call gathers weights of every rank
            asked = bool(self.accelerator.gather(torch.tensor([asked], device=self.backbone.device)).any())
        if asked:
            if self.saved_iteration < self.iteration:
                self._save()
            if self.tuning.sharded:  # none leaves before the state is written, else a launcher ends the one that writes
                self.store.finish()
                self.accelerator.wait_for_everyone()
            raise Stopped

    @property
    def moved_average(self) -> MovingAverage | None:
        """The average once it has moved: until then it is the base model, whatever was trained."""
        return self.average if self.average and self.updates >= self.average.config.every else None

    def load_average(self) -> None:
        """Put the averaged weights in the place of the last ones for good."""
        if average := self.moved_average:
            copy_into(self.tuning.parameters, average.values)
