"""One read-only checkout for all tests of this folder."""

from pathlib import Path

import pytest

from checkout import make_checkout


@pytest.fixture(scope="session")
def checkout(tmp_path_factory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture
def own_checkout(tmp_path) -> Path:
    """A checkout that the test may change."""
    return make_checkout(tmp_path / "checkout")
