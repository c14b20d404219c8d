"""The manifest, and downloads from a local web server: resumed, verified, refused."""

import gzip
import hashlib
import http.server
import json
import re
import resource
import threading
from pathlib import Path

import pytest
import yaml

from progrpo.cli import main
from progrpo.errors import UserError
from progrpo.files import sha256
from progrpo.weights import fetch as fetching
from progrpo.weights.fetch import fetch
from progrpo.weights.manifest import Entry, find_entry, human_size, packaged_manifest, read_manifest

CONTENT = bytes(range(256)) * 40
HASH = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; `limit` cuts an answer short, `ranges` False ignores ranges."""

    limit, ranges, log = None, True, []

    def do_GET(self):
        """Answer with what is left from the asked offset."""
        asked = self.headers.get("Range")
        type(self).log.append(asked)
        if self.path != "/weights.bin":
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.end_headers()
            return
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.limit])

    def log_message(self, *_):
        """Stay quiet."""


@pytest.fixture
def server():
    handler = type("Handler", (Handler,), {"log": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        handler.url = f"http://127.0.0.1:{web.server_port}/{{file}}"
        yield handler
        web.shutdown()


def entry(url=None, files=None, **fields):
    fields = {"kind": "models", "revision": "1", "bytes": len(CONTENT), "licence": "MIT", "use": "a test", **fields}
    return Entry(url=url, files=files or {"weights.bin": HASH}, **fields)


def test_a_download_is_verified_and_recorded(server, tmp_path, capsys):
    (path,) = fetch("weights", entry(server.url), tmp_path)
    assert path.read_bytes() == CONTENT
    record = json.loads((tmp_path / "fetched.json").read_text())
    assert record["files"]["weights.bin"] == {"sha256": HASH, "bytes": len(CONTENT)}
    out = capsys.readouterr().out
    assert "licence MIT" in out
    assert "10.2 kB" in out


def test_what_is_there_and_right_is_not_downloaded_again(server, tmp_path):
    fetch("weights", entry(server.url), tmp_path)
    fetch("weights", entry(server.url), tmp_path)
    assert server.log == [None]


def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "CHUNK", 1000)
    server.limit = 3000
    with pytest.raises(UserError, match="run the command again to go on"):
        fetch("weights", entry(server.url), tmp_path)
    assert not (tmp_path / "weights.bin").exists()
    kept = (tmp_path / "weights.bin.part").stat().st_size
    assert 0 < kept <= 3000
    server.limit = None
    (path,) = fetch("weights", entry(server.url), tmp_path)
    assert server.log == [None, f"bytes={kept}-"]
    assert path.read_bytes() == CONTENT
    assert not (tmp_path / "weights.bin.part").exists()


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(server, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be written \(File too large\); make room"):
            fetch("weights", entry(server.url), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "weights.bin").exists()
    (path,) = fetch("weights", entry(server.url), tmp_path)
    assert path.read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(server, tmp_path):
    (tmp_path / "weights.bin.part").write_bytes(b"x" * 100)
    server.ranges = False
    (path,) = fetch("weights", entry(server.url), tmp_path)
    assert path.read_bytes() == CONTENT


def test_a_text_that_a_server_would_pack_goes_on_where_it_stopped(server, tmp_path):
    class Packing(server):
        """Packs what it sends, ranges of the packed bytes, unless it is asked for the bytes as they are."""

        def do_GET(self):
            """Answer with what is left of the packed content."""
            if self.headers.get("Accept-Encoding") == "identity":
                super().do_GET()
                return
            packed = gzip.compress(CONTENT)
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if 0 < start < len(packed) else 416 if start else 200)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(packed[start:])))
            self.end_headers()
            self.wfile.write(packed[start:])

    (tmp_path / "weights.bin.part").write_bytes(CONTENT[:100])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Packing) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        (path,) = fetch("weights", entry(f"http://127.0.0.1:{web.server_port}/{{file}}"), tmp_path)
        web.shutdown()
    assert path.read_bytes() == CONTENT
    assert server.log == ["bytes=100-"]


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"too long"])
def test_a_part_that_is_complete_or_too_long(server, tmp_path, part):
    (tmp_path / "weights.bin.part").write_bytes(part)
    (path,) = fetch("weights", entry(server.url), tmp_path)
    assert path.read_bytes() == CONTENT


def test_a_wrong_hash_leaves_nothing_under_the_final_name(server, tmp_path):
    with pytest.raises(UserError, match=f"sha256 is {HASH}, expected 0000"):
        fetch("weights", entry(server.url, {"weights.bin": "0000"}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_hash_does_not_replace_a_good_file(server, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"good")
    with pytest.raises(UserError, match="refused"):
        fetch("weights", entry(server.url, {"weights.bin": "0000"}), tmp_path)
    assert (tmp_path / "weights.bin").read_bytes() == b"good"


def test_the_beginning_of_a_hash_is_enough(server, tmp_path):
    fetch("weights", entry(server.url, {"weights.bin": f"begins {HASH[:8]}"}), tmp_path)
    with pytest.raises(UserError, match="expected abcd"):
        fetch("weights", entry(server.url, {"weights.bin": "begins abcd"}), tmp_path)


def test_a_file_without_a_published_hash_must_stay_the_same(server, tmp_path):
    unknown = entry(server.url, {"weights.bin": None})
    fetch("weights", unknown, tmp_path)
    (tmp_path / "weights.bin").unlink()
    record = json.loads((tmp_path / "fetched.json").read_text())
    record["files"]["weights.bin"]["sha256"] = "f" * 64
    (tmp_path / "fetched.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="expected ffff"):
        fetch("weights", unknown, tmp_path)


def test_the_record_of_another_revision_decides_nothing(server, tmp_path):
    """The old file is not kept, and the new one is not refused; nor is a local copy of it."""
    (tmp_path / "weights.bin").write_bytes(b"of an older revision")
    digest = sha256(tmp_path / "weights.bin")
    record = {"source": "an older revision", "files": {"weights.bin": {"sha256": digest, "bytes": 20}}}
    (tmp_path / "fetched.json").write_text(json.dumps(record))
    unknown = entry(server.url, {"weights.bin": None})
    (path,) = fetch("weights", unknown, tmp_path)
    assert path.read_bytes() == CONTENT
    record = json.loads((tmp_path / "fetched.json").read_text())
    assert (record["source"], record["files"]["weights.bin"]["sha256"]) == (unknown.source, HASH)
    newer = entry(hub="someone/something", revision="2", files={"weights.bin": None})
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "weights.bin").write_bytes(b"newer")
    (path,) = fetch("weights", newer, tmp_path, from_folder=tmp_path / "local")
    assert path.read_bytes() == b"newer"


def test_a_hub_repository_of_a_new_revision_is_not_refused(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda _, *, local_dir, revision, **__: (local_dir / "a.json").write_text(revision),
    )
    for revision in ("1", "2"):
        (path,) = fetch("x", entry(hub="a/b", revision=revision, files={"a.json": None}), tmp_path)
        assert path.read_text() == revision


def test_the_first_download_of_a_revision_decides_for_all_clones(server, tmp_path):
    first, unknown = tmp_path / "first" / "weights.json", entry(server.url, {"weights.bin": None})
    fetch("weights", unknown, tmp_path / "mine", first=first)
    recorded = json.loads(first.read_text())
    assert recorded == {"source": unknown.source, "files": {"weights.bin": HASH}}
    fetch("weights", unknown, tmp_path / "again", first=first)
    assert json.loads(first.read_text()) == recorded
    first.write_text(json.dumps({**recorded, "files": {"weights.bin": "f" * 64}}))
    with pytest.raises(UserError, match="expected ffff"):
        fetch("weights", unknown, tmp_path / "theirs", first=first)
    assert not (tmp_path / "theirs" / "weights.bin").exists()
    first.write_text(json.dumps({"source": "an older revision", "files": {"weights.bin": "f" * 64}}))
    fetch("weights", unknown, tmp_path / "newer", first=first)
    assert json.loads(first.read_text()) == recorded


def test_no_first_download_is_recorded_where_nothing_was_unknown_or_downloaded(server, tmp_path):
    first = tmp_path / "first.json"
    fetch("weights", entry(server.url), tmp_path / "a", first=first)
    fetch("weights", entry(server.url, {"weights.bin": None}), tmp_path / "b", tmp_path / "a", first=first)
    assert not first.exists()


def test_an_unreachable_or_missing_address_is_one_line(server, tmp_path):
    with pytest.raises(UserError, match="answered 404"):
        fetch("weights", entry(server.url, {"other.bin": None}), tmp_path)
    with pytest.raises(UserError, match="the download failed"):
        fetch("weights", entry("http://127.0.0.1:9/{file}"), tmp_path)


def test_more_than_a_gigabyte_is_asked_for(server, tmp_path):
    large = entry(server.url, bytes="about 4300000000")
    with pytest.raises(UserError, match="confirm or give --yes"):
        fetch("weights", large, tmp_path, ask=lambda question: "n")
    assert server.log == []
    asked = []
    fetch("weights", large, tmp_path, ask=lambda question: asked.append(question) or "y")
    assert asked == [f"download 4.3 GB into {tmp_path}? [y/N] "]
    fetch("again", large, tmp_path / "other", confirmed=True, ask=lambda question: pytest.fail("asked"))
    fetch("weights", large, tmp_path, ask=lambda question: pytest.fail("asked"))  # it is there
    newer = entry(server.url + "?2", {"weights.bin": None}, bytes="about 4300000000")
    with pytest.raises(UserError, match="confirm or give --yes"):  # what is there is of another source
        fetch("weights", newer, tmp_path, ask=lambda question: "n")


def test_no_terminal_means_no(server, tmp_path):
    def closed(question):
        raise EOFError

    with pytest.raises(UserError, match="--yes"):
        fetch("weights", entry(server.url, bytes=2 * 10**9), tmp_path, ask=closed)


def test_a_local_folder_serves_without_a_network_and_is_verified_too(tmp_path):
    source, to = tmp_path / "source", tmp_path / "to"
    (source / "weights" / "sub").mkdir(parents=True)
    (source / "weights" / "sub" / "a.json").write_text("{}")
    (source / "weights" / "weights.bin").write_bytes(CONTENT)
    hub = entry(hub="someone/something", files={"weights.bin": HASH, "sub/a.json": None})
    paths = fetch("weights", hub, to, from_folder=source)
    assert [str(p.relative_to(to)) for p in paths] == ["weights.bin", "sub/a.json"]
    (source / "weights" / "weights.bin").write_bytes(b"tampered")
    (to / "weights.bin").unlink()
    with pytest.raises(UserError, match="refused"):
        fetch("weights", hub, to, from_folder=source)
    assert not (to / "weights.bin").exists()
    (source / "weights" / "weights.bin").unlink()
    with pytest.raises(UserError, match="weights.bin is not there"):
        fetch("weights", hub, to, from_folder=source)


def test_planted_links_lead_nowhere(tmp_path):
    source, to, elsewhere = tmp_path / "source", tmp_path / "to", tmp_path / "elsewhere"
    for folder in (source / "sub", to, elsewhere):
        folder.mkdir(parents=True)
    (source / "a.bin").write_bytes(CONTENT)
    (source / "sub" / "b.bin").write_bytes(CONTENT)
    (elsewhere / "kept").write_text("kept")
    (to / "a.bin.part").symlink_to(elsewhere / "kept")
    (path,) = fetch("weights", entry(hub="a/b", files={"a.bin": HASH}), to, from_folder=source)
    assert path.read_bytes() == CONTENT
    assert (elsewhere / "kept").read_text() == "kept"
    (to / "sub").symlink_to(elsewhere)
    with pytest.raises(UserError, match=r"'sub/b.bin.part' leads out of .*; nothing is written"):
        fetch("weights", entry(hub="a/b", files={"sub/b.bin": HASH}), to, from_folder=source)
    assert [path.name for path in elsewhere.iterdir()] == ["kept"]


def test_a_hub_repository_is_asked_for_at_its_pinned_revision(tmp_path, monkeypatch):
    import huggingface_hub

    asked = {}

    def snapshot(repository, *, local_dir, **options):
        asked.update(options, repository=repository)
        (local_dir / "weights.bin").write_bytes(CONTENT)
        (local_dir / "LICENSE.txt").write_text("MIT")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    hub = entry(hub="someone/something", revision="abc123", files={"weights.bin": HASH, "LICENSE.txt": None})
    assert fetch("weights", hub, tmp_path) == [tmp_path / "weights.bin", tmp_path / "LICENSE.txt"]
    assert asked == {
        "repository": "someone/something",
        "repo_type": "model",
        "revision": "abc123",
        "allow_patterns": ["weights.bin", "LICENSE.txt"],
    }


def test_an_offline_hub_is_one_line(tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="--from-folder"):
        fetch("weights", entry(hub="someone/something"), tmp_path)


def test_genevals_prompts_are_generated_and_verified(tmp_path):
    (path,) = fetch("geneval", packaged_manifest()["geneval"], tmp_path)
    assert sha256(path) == packaged_manifest()["geneval"].files["evaluation_metadata.jsonl"]


def test_the_prompts_that_the_tests_read_are_those_of_the_manifest():
    prompts = Path(__file__).parents[1] / "data" / "t2i_compbench"
    for file, digest in packaged_manifest()["t2i-compbench"].files.items():
        assert sha256(prompts / file) == digest


def test_the_manifest_names_every_file_and_a_commit_of_every_repository():
    for name, item in packaged_manifest().items():
        assert item.hub is None or re.fullmatch("[0-9a-f]{40}", item.revision), name
        assert item.url is None or "githubusercontent" not in item.url or item.revision in item.url, name
    with pytest.raises(ValueError, match="listed one by one"):
        entry(hub="someone/something", files={"*.json": None})


def test_the_manifest_covers_what_the_paper_needs():
    names = {"geneval", "t2i-compbench", "drawbench", "pickscore", "hpdv2-train", "hpsv2", "sd14", "sd15", "sd35m"}
    names |= {"hpsv2.1", "imagereward", "pickscore-v1", "aesthetic", "clip-vit-l14", "mask2former", "blip-vqa", "owlv2"}
    manifest = packaged_manifest()
    assert names | {"bert-base-uncased"} <= set(manifest)
    assert all(e.size > 0 and e.licence and e.use for e in manifest.values())
    assert manifest["geneval"].count == 553


def test_the_command_lists_and_names_near_names(capsys):
    assert main(["fetch", "--list"]) == 0
    assert "clip-vit-l14" in capsys.readouterr().out
    assert main(["fetch", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {name: Entry.model_validate(entry) for name, entry in listed.items()} == packaged_manifest()
    assert main(["fetch", "sd14", "--json"]) == 2
    assert "give --list with it" in capsys.readouterr().err
    assert main(["fetch", "sd-14"]) == 2
    assert "did you mean sd14" in capsys.readouterr().err
    assert main(["fetch"]) == 2
    with pytest.raises(UserError, match="--list"):
        find_entry("zzzzzz", packaged_manifest())


def test_the_command_fetches_by_a_given_manifest(server, tmp_path, capsys):
    fields = {
        "url": server.url,
        "revision": "1",
        "files": {"weights.bin": HASH},
        "bytes": 10,
        "licence": "MIT",
        "use": "x",
    }
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"models": {"tiny": fields}}))
    assert main(["fetch", "tiny", "--manifest", str(tmp_path / "m.yaml"), "--to", str(tmp_path / "to")]) == 0
    assert (tmp_path / "to" / "weights.bin").read_bytes() == CONTENT
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"models": {"tiny": {**fields, "hub": "a/b"}}}))
    assert main(["fetch", "tiny", "--manifest", str(tmp_path / "m.yaml")]) == 2
    assert "m.yaml: tiny: needs exactly one of url, hub, generated" in capsys.readouterr().err


def test_sizes_for_people():
    assert [human_size(n) for n in (85, 85209, 3714759, 4300000000)] == ["85 bytes", "85.2 kB", "3.7 MB", "4.3 GB"]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"files": {".git/hooks/x": None}}, "'.git/hooks/x' is hidden"),
        ({"bytes": True}, "bytes"),
        ({"count": -1}, "count"),
        ({"count": True}, "count"),
    ],
)
def test_a_manifest_of_other_types_or_hidden_files_is_refused(tmp_path, fields, line):
    plain = {"url": "http://x/{file}", "revision": "1", "files": {"a": None}, "bytes": 1, "licence": "x", "use": "x"}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"prompts": {"x": {**plain, **fields}}}))
    with pytest.raises(UserError, match=line):
        read_manifest(tmp_path / "m.yaml")
