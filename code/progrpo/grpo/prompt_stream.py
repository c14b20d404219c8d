"""Which prompts an iteration trains on: a stream of fresh permutations that any process can compute for any iteration."""

import functools

import numpy as np


class PromptStream:
    """An endless sequence of permutations of `count` prompts, seeded by (seed, pass); iteration i takes the next `batch` of it.

    Stateless: iteration i is the same after a resume and on every rank (Flow-GRPO's prefetching loader repeats the first batch).
    """

    def __init__(self, count: int, batch: int, seed: int):
        self.count, self.batch, self.seed = count, batch, seed
        self._permutation = functools.lru_cache(maxsize=2)(self._permute)

    def _permute(self, number: int) -> np.ndarray:
        return np.random.default_rng((self.seed, number)).permutation(self.count)

    def iteration(self, iteration: int) -> list[int]:
        """Indices (batch,) of the prompts of one iteration."""
        positions = range(iteration * self.batch, (iteration + 1) * self.batch)
        return [int(self._permutation(k // self.count)[k % self.count]) for k in positions]
