"""What all tests share."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

# One thread for each test process: tests run side by side, and the sums of a run do not depend on the
# machine's cores.
torch.set_num_threads(1)

SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """`shared("golden")`: that folder of reference data beside the repository; skips the test without it."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"the reference data ../shared/{name} is not beside this repository")
        return path

    return find
