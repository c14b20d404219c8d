"""Folders that know what they were begun with, their lock, and hashes of what decides a result."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from progrpo import identity
from progrpo.errors import UserError
from progrpo.files import sha256, write_json
from progrpo.identity import Folder, Start, cached_sha256, differences, hash_files, hash_results, spoilt_file

ANEW = Start(if_changed="begin-anew")
WITH = {"seed": 0, "sampling": {"steps": 4, "noise": 0.7}}


@pytest.fixture
def folder(tmp_path) -> Folder:
    """A folder of results, begun with `WITH`, beside a file of somebody else's."""
    folder = Folder(tmp_path / "run", ("state", "*.jsonl"))
    folder.claim(WITH, Start(fingerprint="a"))
    (folder.path / "state").mkdir()
    (folder.path / "state" / "1.pt").write_text("state")
    (folder.path / "metrics.jsonl").write_text("{}")
    (folder.path / "notes.txt").write_text("mine")
    return folder


def refusal(folder: Folder, identity: dict, start: Start = identity.REFUSE) -> str:
    with pytest.raises(UserError) as refused:
        folder.claim(identity, start)
    assert len(str(refused.value).splitlines()) == 1
    assert (folder.path / "state" / "1.pt").is_file()
    return str(refused.value)


def test_a_folder_goes_on_with_what_it_was_begun_with(folder):
    for fingerprint in (None, "a"):
        folder.claim(WITH, Start(fingerprint=fingerprint))
    assert (folder.path / "state" / "1.pt").is_file()
    assert json.loads(folder.begun.read_text()) == {"identity": WITH, "fingerprint": "a"}


def test_a_refusal_names_every_key_that_differs(folder):
    assert "sampling.noise: 0.7 is not 0.5;" in refusal(folder, {**WITH, "sampling": {"steps": 4, "noise": 0.5}})
    assert "seed: 0 is not none;" in refusal(folder, {"sampling": WITH["sampling"]})
    assert "extra.key: none is not 1;" in refusal(folder, {**WITH, "extra": {"key": 1}})
    assert "fingerprint: a is not b;" in refusal(folder, WITH, Start(fingerprint="b"))


def test_results_without_a_record_are_not_gone_on_with(folder):
    for content in (None, "{", "[]", '{"identity": 1}'):
        folder.begun.unlink() if content is None else folder.begun.write_text(content)
        assert "no begun.json that tells" in refusal(folder, WITH)


def test_begin_anew_drops_the_results_and_nothing_else(folder):
    folder.claim({**WITH, "seed": 1}, ANEW)
    assert {path.name for path in folder.path.iterdir()} == {"begun.json", "notes.txt"}
    folder.claim({**WITH, "seed": 1}, Start(fingerprint="c"))


def test_a_folder_without_results_takes_what_it_is_given(folder):
    folder.claim({}, ANEW)
    folder.claim(WITH, Start())
    assert json.loads(folder.begun.read_text())["identity"] == WITH


def test_an_empty_folder_that_the_workflow_made_for_an_output_is_no_result(tmp_path, capsys):
    folder = Folder(tmp_path, ("final",))
    (tmp_path / "final").mkdir()
    folder.claim(WITH, Start())
    assert capsys.readouterr().out == ""


def test_results_side_by_side_are_claimed_apart(tmp_path):
    a, b = (Folder(tmp_path, (f"{name}.*",), prefix=f"{name}.") for name in ("a", "b"))
    for folder in (a, b):
        folder.claim(WITH, Start())
        (tmp_path / f"{folder.begun.name[0]}.json").write_text("{}")
    a.claim({}, ANEW)
    assert not (tmp_path / "a.json").exists()
    assert (tmp_path / "b.json").exists()


HOLD = """
import sys, time
from pathlib import Path
from progrpo.identity import Folder
with Folder(Path(sys.argv[1]), ()).held(wait=False):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_by_a_line_that_names_the_first(tmp_path):
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(UserError) as refused, Folder(tmp_path, ()).held(wait=False):
            pass
        line = str(refused.value)
        assert f"held by process {first.pid} on {socket.gethostname()} since 20" in line
        assert len(line.splitlines()) == 1
    finally:
        first.kill()
        first.wait()
    with Folder(tmp_path, ()).held(wait=False):  # a lock ends with its process, even killed
        assert f"process {os.getpid()} " in (tmp_path / "lock").read_text()


def test_waiting_ends_with_the_first_process(tmp_path, capsys):
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "held\n"
    second = subprocess.Popen(
        [sys.executable, "-c", HOLD.replace("wait=False", "wait=True"), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert f"held by process {first.pid} " in second.stdout.readline()
        first.kill()
        assert second.stdout.readline() == "held\n"
    finally:
        for process in (first, second):
            process.kill()
            process.wait()


def test_files_that_decide_nothing_are_not_hashed(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    before = hash_files(tmp_path, "model")
    assert before == {"unet/config.json": sha256(tmp_path / "unet" / "config.json")}
    for name in ("README.md", ".cache", "fetched.json"):
        (tmp_path / name).write_text("x")
    assert hash_files(tmp_path, "model") == before
    with pytest.raises(UserError, match=r"no model; fetch it"):
        hash_files(tmp_path / "absent", "model")


def test_a_large_file_is_hashed_once_and_again_when_it_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "CACHED_FROM", 1)
    monkeypatch.setattr(identity, "SETTLED_NS", -1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    first = cached_sha256(file)
    monkeypatch.setattr(identity, "sha256", lambda path: pytest.fail("hashed again"))
    assert cached_sha256(file) == first
    monkeypatch.setattr(identity, "sha256", sha256)
    file.write_bytes(b"two")
    assert cached_sha256(file) == sha256(file) != first


@pytest.mark.parametrize("home", ["read-only", "a user without one"])
def test_without_a_home_to_write_in_large_files_are_hashed_and_the_variable_is_named(
    tmp_path, monkeypatch, capsys, home
):
    monkeypatch.setattr(identity, "CACHED_FROM", 1)
    monkeypatch.setattr(identity, "SETTLED_NS", -1)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home == "read-only":
        monkeypatch.setenv("HOME", "/proc")  # read-only for root, too
    else:
        monkeypatch.delenv("HOME")
        monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    assert cached_sha256(file) == sha256(file)
    error = capsys.readouterr().err
    assert "set XDG_CACHE_HOME" in error
    assert len(error.splitlines()) == 1


def publish(final: Path) -> None:
    (final / "unet").mkdir(parents=True)
    (final / "unet" / "model.safetensors").write_bytes(b"weights")
    write_json(final / "provenance.json", {"files": hash_results(final)})


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda final: (final / "unet" / "model.safetensors").write_bytes(b"weightS"), "model.safetensors: sha256"),
        (lambda final: (final / "unet" / "model.safetensors").unlink(), "model.safetensors: sha256"),
        (lambda final: (final / "other.safetensors").write_bytes(b"w"), "other.safetensors: sha256: none is not"),
        (lambda final: (final / "provenance.json").unlink(), "no provenance.json"),
        (lambda final: (final / "provenance.json").write_text("{"), "not valid JSON"),
        (lambda final: (final / "provenance.json").write_text("{}"), "records no weights"),
        (lambda final: (final / "provenance.json").write_text("[]"), "records no weights"),
        (lambda final: (final / "provenance.json").write_text('{"files": [1]}'), "records no weights"),
    ],
)
def test_weights_that_are_not_the_published_ones_are_named(tmp_path, spoil, named):
    publish(tmp_path / "final")
    assert spoilt_file(tmp_path / "final") is None
    spoil(tmp_path / "final")
    assert named in spoilt_file(tmp_path / "final")


def test_a_section_on_one_side_only_is_told_by_its_keys():
    assert differences({"ema": None}, {"ema": {"decay": 0.9}}) == ["ema.decay: none is not 0.9"]
    assert differences({"a": 1}, {"a": 2}) == ["a: 1 is not 2"]
    assert differences({"a": None, "b": 1}, {"b": 1}) == ["a: none is not none"]  # never nothing: it was another


def test_a_command_that_is_no_text_can_hold_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["progrpo", "train", "--out", "n\udcff"])
    folder, other = Folder(tmp_path / "run", ("*",)), Folder(tmp_path / "run", ("*",))
    with folder.held(wait=False):
        assert "n\\udcff" in other.lock(0)
