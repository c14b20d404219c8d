"""The names of precisions."""

from typing import get_args

from progrpo.config import Precision
from progrpo.devices import DTYPES


def test_every_precision_of_the_configuration_has_its_type():
    assert set(DTYPES) == set(get_args(Precision))
