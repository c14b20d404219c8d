"""What an iteration trains on: the survivors of a rollout, seen as rows of micro-batches.

Shape letters: P prompts, K survivors per prompt, N = P K samples, T denoising steps, B (sample, step) pairs of a micro-batch.
"""

from dataclasses import dataclass

from torch import Tensor

from progrpo.grpo.backbone import Text
from progrpo.grpo.micro_batch import Pairs
from progrpo.grpo.rollout import Rollout


@dataclass
class Samples:
    """The survivors' rollout, the texts of their P prompts, their advantages (N,), old log-probabilities (N, T), and which count (N,).

    An update's loss is the mean over the samples that count, of all ranks.
    """

    rollout: Rollout
    text: Text
    advantages: Tensor
    old_log_probs: Tensor
    counted: Tensor

    def before(self, pairs: Pairs) -> Tensor:
        """States (B, C, H, W) that the pairs' transitions start from, on the device of the pairs."""
        return self._state(pairs.rows, pairs.steps)

    def after(self, pairs: Pairs) -> Tensor:
        """States (B, C, H, W) that the pairs' transitions ended in."""
        return self._state(pairs.rows, pairs.steps + 1)

    def text_of(self, pairs: Pairs) -> Text:
        """The prompts of the pairs' samples; a text is stored once per prompt, not per survivor."""
        return self.text.rows(pairs.rows // self.rollout.rewards.shape[1])

    def _state(self, rows: Tensor, steps: Tensor) -> Tensor:
        states = self.rollout.states  # perhaps on the host
        return states[rows.to(states.device), steps.to(states.device)].to(rows.device)
