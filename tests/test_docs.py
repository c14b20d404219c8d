"""The documentation names what exists, and nothing of the machine it was written on."""

import re

import pytest

from checkout import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_that_a_page_names_exists(page):
    named = set(re.findall(r"\b(?:\w+/)*\w+\.py\b", page.read_text()))
    assert named
    missing = [name for name in named if not any((root / name).is_file() for root in (ROOT, ROOT / "code" / "progrpo"))]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_holds_a_path_of_a_machine(page):
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|mnt)/", page.read_text())
