"""What scorers have in common: the protocol, checked input, batches, precision, an error for a score like NaN."""

import abc
import pickle
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from progrpo.devices import DTYPES
from progrpo.errors import UserError

TF32 = "tf32"
SLACK = 0.1  # by which pixels may leave [0, 1]: resized or decoded ones overshoot, and scorers clamp them


@contextmanager
def tf32_products() -> Iterator[None]:
    """While entered, float32 matrix products on a GPU take TF32; a CPU computes as before."""
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    settings.fp32_precision = TF32
    try:
        yield
    finally:
        settings.fp32_precision = before


class Scorer(Protocol):
    """Anything that scores images against prompts."""

    name: str

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores (B,) float32 of images (B, 3, H, W) in [0, 1] for B prompts, on the device of the images."""
        ...


class BatchedScorer(abc.ABC):
    """A scorer that runs in batches of `batch_size` on `device`; a sub-class defines `score_batch`.

    One that reads weights names in `files` what its score depends on in their folder, and has a `load` of its own, whose
    keyword-only arguments are the `options` of the configuration.

    Weights stay float32; `precision` fp16 or bf16 runs the networks under autocast, as the reference code of HPSv2
    does, and every similarity and final layer in float32. tf32 rounds the factors of matrix products on a GPU to 10 bits.
    """

    files: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str, device: torch.device | str, precision: str = "fp32", batch_size: int = 16):
        if precision not in (*DTYPES, TF32):
            raise UserError(f"{name}: precision {precision!r} is unknown; use one of {', '.join((*DTYPES, TF32))}")
        if batch_size < 1:
            raise UserError(f"{name}: batch_size {batch_size} must be at least 1")
        self.name, self.device, self.batch_size = name, torch.device(device), batch_size
        self.dtype, self.tf32 = DTYPES.get(precision, torch.float32), precision == TF32

    @classmethod
    def load(cls, path: Any, device: torch.device | str, **common) -> Self:
        """The scorer on a device, without weights; `common` are precision and batch size."""
        return cls(cls.__name__, device, **common)

    @abc.abstractmethod
    def score_batch(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores (b,) of at most `batch_size` images (b, 3, H, W) in [0, 1], b prompts."""

    def autocast(self) -> AbstractContextManager:
        """The context in which the networks run."""
        if self.tf32:
            return tf32_products()
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    @torch.no_grad()
    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores (B,) float32 of images (B, 3, H, W) in [0, 1] for B prompts, on the device of the images.

        UserError: images of another shape or type, another number of prompts or of scores, a pixel or a score that is not finite.
        """
        self._check_input(images, prompts)
        parts = [
            self._score_part(images[i : i + self.batch_size], prompts[i : i + self.batch_size])
            for i in range(0, len(images), self.batch_size)
        ]
        scores = torch.cat(parts) if parts else torch.zeros(0)
        self._check_finite(scores, prompts, "the score", "use precision fp32 or check the scorer's weights")
        return scores.to(images.device)

    def _score_part(self, images: Tensor, prompts: list[str]) -> Tensor:
        """`score_batch` as (b,) float32; UserError for what is not one number for each image."""
        returned: Any = self.score_batch(images, prompts)
        try:
            scores = real_numbers(returned)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # nothing, words, rows of several lengths
            what = type(returned).__name__
            raise UserError(f"{self.name}: returned {what} for {len(images)} images; return one number each") from error
        if scores.shape != (len(images),):
            raise UserError(
                f"{self.name}: returned {tuple(scores.shape)} for {len(images)} images; return one number each"
            )
        return scores

    def _check_input(self, images: Tensor, prompts: list[str]) -> None:
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise UserError(
                f"{self.name}: images must be a float tensor (B, 3, H, W) in [0, 1], not {images.dtype}"
                f" {tuple(images.shape)}"
            )
        if len(images) != len(prompts):
            raise UserError(f"{self.name}: {len(images)} images but {len(prompts)} prompts; give one prompt per image")
        self._check_finite(images, prompts, "the image", "check the model that made it")
        if len(images) and not (images.min() >= -SLACK and images.max() <= 1 + SLACK):
            raise UserError(
                f"{self.name}: images must lie in [0, 1], not {float(images.min()):.3g} to {float(images.max()):.3g};"
                " divide bytes by 255, and bring a decoder's [-1, 1] to [0, 1]"
            )

    def _check_finite(self, values: Tensor, prompts: list[str], what: str, remedy: str) -> None:
        finite = values.isfinite().flatten(1).all(1) if values.ndim > 1 else values.isfinite()
        if not bool(finite.all()):
            first = int((~finite).nonzero()[0])
            raise UserError(f"{self.name}: {what} for prompt {prompts[first]!r} is not finite; {remedy}")


def real_numbers(returned: Any) -> Tensor:
    """A tensor, an array of numpy's or pandas' or a list as float32; TypeError for complex numbers, whose other half would be lost."""
    if isinstance(returned, Tensor):
        values = returned.to_dense()
    elif hasattr(returned, "__array__"):
        array = np.asarray(returned)
        if array.dtype.kind not in "biufO":
            raise TypeError(f"{array.dtype} is no kind of real number")
        values = torch.from_numpy(np.array(array, dtype=np.float64))
    else:
        values = torch.as_tensor(returned)
    if values.is_complex():
        raise TypeError("complex numbers")
    return values.to(torch.float32)


def unique_prompts(prompts: list[str]) -> tuple[list[str], Tensor]:
    """(distinct prompts in order, (B,) index of each prompt among them): a group of images shares one embedding."""
    index = {prompt: k for k, prompt in enumerate(dict.fromkeys(prompts))}
    return list(index), torch.tensor([index[prompt] for prompt in prompts])


def require_file(scorer: str, path: Path) -> Path:
    """The path, when a file is there; UserError names scorer, path and remedy."""
    if not path.is_file():
        raise UserError(f"{scorer}: {path}: no such file; fetch the weights (progrpo fetch) or set the scorer's `path`")
    return path


def load_weights(scorer: str, path: Path) -> dict[str, Tensor]:
    """A state dict from a .pt/.pth file, on the CPU, unwrapped from a dict with the key `state_dict`.

    UserError: no such file, not a state dict, or pickled objects beyond tensors, which could run code.
    """
    try:
        state = torch.load(require_file(scorer, path), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{scorer}: {path}: cannot be read ({reason}); fetch it again") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{scorer}: {path} is truncated or holds more than tensors; fetch it again, or save its state_dict alone,"
            " where you trust the file"
        ) from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{scorer}: {path}: not a state dict of tensors; fetch it again")
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def load_state(scorer: str, path: Path, module: torch.nn.Module, state: dict[str, Tensor]) -> None:
    """Load a state dict strictly; UserError names the first key that is missing, unexpected or of another shape."""
    expected = module.state_dict()
    for key in [*expected, *state]:
        if key not in state:
            raise UserError(f"{scorer}: {path}: key {key!r} is missing; the file is for another architecture")
        if key not in expected:
            raise UserError(f"{scorer}: {path}: unexpected key {key!r}; the file is for another architecture")
        if state[key].shape != expected[key].shape:
            raise UserError(
                f"{scorer}: {path}: {key} has shape {tuple(state[key].shape)}, the architecture needs"
                f" {tuple(expected[key].shape)}"
            )
    for key, value in state.items():
        if value.isnan().any():  # masks hold -inf
            raise UserError(f"{scorer}: {path}: {key} holds NaN; fetch the file again")
    module.load_state_dict(state)


def freeze(module: Any, device: torch.device) -> Any:
    """The module in float32 on the device, in evaluation mode, without gradients."""
    return module.float().to(device).eval().requires_grad_(False)
