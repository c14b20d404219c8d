"""The list of mutants fits the code: `make mutants` itself takes minutes and is not part of the suite."""

from collections import Counter
from pathlib import Path

import pytest
from mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("file", sorted({mutant.file for mutant in MUTANTS}))
def test_every_mutant_changes_one_place_and_stays_python(file):
    text = (ROOT / file).read_text()
    for mutant in (m for m in MUTANTS if m.file == file):
        changed = mutant.applied_to(text)
        assert changed != text
        compile(changed, file, "exec")


def test_every_named_test_file_exists():
    for mutant in MUTANTS:
        assert (ROOT / mutant.tests.split()[0]).is_file(), mutant.tests


def test_there_are_enough_of_them_and_few_are_judged():
    assert len(MUTANTS) >= 60
    assert max(Counter((m.file, m.old, m.new) for m in MUTANTS).values()) == 1
    assert sum(bool(m.judged) for m in MUTANTS) <= 0.03 * len(MUTANTS)


def test_an_old_text_that_is_gone_or_not_alone_is_an_error():
    with pytest.raises(ValueError, match="a.py: 'x' occurs 2 times, not once"):
        Mutant("a.py", "t.py", "x", "y").applied_to("x x")
