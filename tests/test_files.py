"""Text as people have it is read or refused in one true line; writes are whole or absent and leave nothing behind."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import time

import pytest

from progrpo.errors import UserError
from progrpo.files import JUST_MADE, TEMPORARY, read_json, read_jsonl, read_text, write_json, write_jsonl, write_text


def write(tmp_path, data: bytes):
    path = tmp_path / "file"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1}\n{"a": 2}\n',
        b'\xef\xbb\xbf{"a": 1}\n{"a": 2}',
        b'{"a": 1}\r\n\r\n{"a": 2}\r\n',
        b'{"a": 1}\r{"a": 2}\r',
        b'\n  \n{"a": 1}\n\n{"a": 2}\n\n',
    ],
)
def test_byte_order_marks_line_ends_and_blank_lines_do_not_matter(tmp_path, data):
    assert [line["a"] for _, line in read_jsonl(write(tmp_path, data))] == [1, 2]


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_a_newline_ends_a_line(tmp_path, character):
    assert read_text(write(tmp_path, f"a{character}b\n".encode())) == f"a{character}b\n"


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85"])
def test_unusual_separators_stay_in_json_strings(tmp_path, character):
    path = write(tmp_path, json.dumps({"a": f"x{character}y"}, ensure_ascii=False).encode())
    assert read_json(path) == {"a": f"x{character}y"}
    assert list(read_jsonl(path)) == [(1, {"a": f"x{character}y"})]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"ok\ncaf\xe9", "file:2: not UTF-8 text"),
        (b"\xff\xfea\0", "not UTF-8 text but UTF-16"),
        ("{}".encode("utf-32"), "not UTF-8 text but UTF-32"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "the key 'b' stands twice"),
        (b"ok\na\0b", "file:2: holds a NUL byte"),
        (b'{"a":\n1', "file:2: not valid JSON"),
        (b"", "file: empty"),
        (b'{"a": NaN}', "NaN is not a finite number"),
        (b'{"a": -Infinity}', "-Infinity is not a finite number"),
        (b'{"a": 1e999}', "1e999 is not a finite number"),
        (b'{"a": "\\ud800"}', "lone surrogate"),
        (b"[" * 100000, "nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", "not valid JSON"),
    ],
)
def test_what_is_no_json_is_refused_by_its_true_cause(tmp_path, data, message):
    with pytest.raises(UserError, match=message) as error:
        read_json(write(tmp_path, data))
    assert "\n" not in str(error.value)


def test_a_bad_line_is_named(tmp_path):
    for bad in (b'{"a"', b"[1]", b'{"a": NaN}', b'{"a": "\\udc00"}'):
        with pytest.raises(UserError, match=r"file:3: "):
            list(read_jsonl(write(tmp_path, b'{"a": 1}\n\n' + bad + b"\n")))


def test_missing_files_and_folders_are_named(tmp_path):
    for path, message in ((tmp_path / "none", "no such file"), (tmp_path, "cannot be read")):
        with pytest.raises(UserError, match=message):
            read_text(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_text(f"{tmp_path}/a\0b")


def test_nan_is_never_written(tmp_path):
    for value in (float("nan"), float("inf")):
        with pytest.raises(UserError, match="nothing is written"):
            write_json(tmp_path / "a.json", {"a": value})
        with pytest.raises(UserError, match=r"a\.jsonl:2: .*nothing is written"):
            write_jsonl(tmp_path / "a.jsonl", [{}, {"a": [value]}])
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
from progrpo.files import write_atomic
write_atomic(sys.argv[1], lambda file: (file.write(b"half"), file.flush(), os.kill(os.getpid(), signal.SIGKILL)))
"""


def test_the_temporary_file_of_a_killed_write_is_removed_by_the_next_start(tmp_path):
    for name in ("a.json", "b.json"):
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / name)], check=False)
    litter = list(tmp_path.iterdir())
    assert [path.name.startswith(TEMPORARY) for path in litter] == [True, True]
    living = tmp_path / f"{TEMPORARY}living"
    living.write_bytes(b"")
    for path in (*litter, living):
        os.utime(path, (0, time.time() - JUST_MADE - 1))
    with open(living, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        write_text(tmp_path / "c.json", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [living.name, "c.json"]


def test_a_name_that_fits_no_file_system_is_not_called_a_full_disk(tmp_path):
    write_text(tmp_path / ("x" * 255), "")
    for path in (tmp_path / ("x" * 256), tmp_path / ("x" * 255) / "y", f"{tmp_path}/a\0b"):
        with pytest.raises(UserError, match="name another file"):
            write_text(path, "")


def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_text(tmp_path / "a", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="make room"):
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
