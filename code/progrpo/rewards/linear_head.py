"""The head of ImageReward and of the LAION aesthetic predictor: five linear layers, dropout, no activation."""

from pathlib import Path

from torch import Tensor, nn

from progrpo.errors import UserError
from progrpo.rewards.base import load_state

LINEAR_LAYERS = (0, 2, 4, 6, 7)  # indices of the linear layers among the dropouts, in both originals


def linear_head(widths: tuple[int, ...]) -> nn.Sequential:
    """The head for widths (input, four hidden, 1); 768, 1024, 128, 64, 16, 1 in both originals."""
    first, second, third, fourth, fifth = (nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
    return nn.Sequential(first, nn.Dropout(0.2), second, nn.Dropout(0.2), third, nn.Dropout(0.1), fourth, fifth)


def load_linear_head(scorer: str, path: Path, state: dict[str, Tensor]) -> nn.Sequential:
    """The head of a state dict with keys `layers.0.weight` ...; its widths are read from the shapes.

    UserError: a key is missing or a shape does not fit.
    """
    state = {key.removeprefix("layers."): value for key, value in state.items()}
    try:
        outputs = [state[f"{k}.weight"].shape[0] for k in LINEAR_LAYERS]
        head = linear_head((state["0.weight"].shape[1], *outputs))
    except KeyError as error:
        raise UserError(f"{scorer}: {path}: key {error} of the linear head is missing; fetch the file again") from None
    load_state(scorer, path, head, state)
    return head
