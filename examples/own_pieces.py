"""A reward and a selection rule of one's own; own_pieces.yaml names them, with this folder on PYTHONPATH."""

import torch

from progrpo.rewards.base import BatchedScorer


class Redness(BatchedScorer):
    """How much more red than green and blue there is."""

    def score_batch(self, images, prompts):
        return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


def best_and_random(rewards, keep, seeds):
    """The best trajectory of each prompt and a random choice of the others: (P, N) -> (P, keep), ascending."""
    draws = [torch.rand(rewards.shape[1], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    order = torch.stack(draws).scatter(1, rewards.cpu().argmax(dim=1, keepdim=True), 2.0)
    return order.topk(keep, dim=1).indices.sort(dim=1).values
