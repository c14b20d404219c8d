"""What all tests share, and their order."""

import pytest
import torch

# One thread for each test process: tests run side by side, and the sums of a run do not depend on the
# machine's cores.
torch.set_num_threads(1)

# Chains of one worker and long single tests: they begin first, so that none is left alone at the end.
LONG = (
    "slurm",
    "publishing",
    "dag",
    "test_trainer",
    "rehearsal",
    "dvc",
    "fuzz",
    "test_ranks",
    "faults",
    "round_trip",
    "test_speed",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest first; `make test` keeps xdist from sorting by the number of tests."""
    items.sort(key=lambda item: next((rank for rank, name in enumerate(LONG) if _is_of(item, name)), len(LONG)))


def _is_of(item: pytest.Item, name: str) -> bool:
    group = item.get_closest_marker("xdist_group")
    return name == group.args[0] if group else name in item.path.name
