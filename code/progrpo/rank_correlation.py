"""How well two scores agree in the ranking of a group."""

import numpy as np
from scipy import stats


def rank_correlations(previews: np.ndarray, terminal: np.ndarray) -> np.ndarray:
    """Spearman correlation of (P, N, T) previews with (P, N) terminal rewards per prompt and step: (P, T).

    NaN where a prompt's previews or terminal rewards are all equal: such a group has no ranking to agree with.
    """
    ranks = stats.rankdata(previews, axis=1)
    reference = stats.rankdata(terminal, axis=1)[:, :, None]
    ranks, reference = ranks - ranks.mean(axis=1, keepdims=True), reference - reference.mean(axis=1, keepdims=True)
    norm = np.sqrt((ranks**2).sum(axis=1) * (reference**2).sum(axis=1))
    return np.divide((ranks * reference).sum(axis=1), norm, out=np.full(norm.shape, np.nan), where=norm > 0)
