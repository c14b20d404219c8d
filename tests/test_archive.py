"""What an archive reads (CITATION.cff, codemeta.json, CHANGELOG.md, third-party page, Dockerfile) says what the project says."""

import importlib.util
import json
import re
import tomllib

import pytest
import yaml

from checkout import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
CODEMETA = json.loads((ROOT / "codemeta.json").read_text())


def test_citation_and_codemeta_name_the_same_software():
    paper = CITATION["preferred-citation"]
    assert CITATION["version"] == CODEMETA["version"] == PROJECT["version"]
    assert CITATION["license"] == CODEMETA["license"].rpartition("/")[2] == PROJECT["license"]
    assert CITATION["title"] == CODEMETA["name"]
    assert [author["name"] for author in CITATION["authors"]] == [author["name"] for author in CODEMETA["author"]]
    assert CODEMETA["referencePublication"]["name"] == paper["title"]
    assert CODEMETA["referencePublication"]["identifier"] == paper["identifiers"][0]["value"]
    assert CODEMETA["referencePublication"]["datePublished"] == str(paper["year"])


def test_codemeta_says_what_pyproject_says():
    assert CODEMETA["identifier"] == PROJECT["name"]
    assert CODEMETA["description"] == PROJECT["description"]
    assert CODEMETA["runtimePlatform"] == f"Python {PROJECT['requires-python']}"


def test_the_changelog_has_the_version():
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert PROJECT["version"] in headings


@pytest.fixture(scope="module")
def third_party():
    spec = importlib.util.spec_from_file_location("third_party", ROOT / "docs" / "third_party.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_third_party_page_follows_manifest_and_lock(third_party):
    page = third_party.PAGE.read_text()
    assert "\n".join(third_party.downloads()) in page
    listed = re.findall(r"^\| (\S+) \| (\S+) \| [^|]+ \|$", page, flags=re.MULTILINE)
    assert third_party.packages() == [pair for pair in listed if pair[0] not in ("package", "---")]


def test_the_image_has_the_python_of_the_lock_and_runs_the_two_commands():
    recipe = (ROOT / "Dockerfile").read_text()
    locked = re.search(r"Python (\d+\.\d+)", (ROOT / "requirements.txt").read_text()).group(1)
    assert re.search(r"^FROM python:(\d+\.\d+)", recipe, flags=re.MULTILINE).group(1) == locked
    assert "make reproduce && make test" in recipe
