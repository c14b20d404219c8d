"""Resume states survive kills, truncation and corruption; a stop request waits."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import forked
from progrpo.errors import UserError
from progrpo.grpo.checkpoint import GracefulStop, StateStore


def state_of(step):
    return {"weights": torch.full((64,), float(step)), "step": step}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def steps_kept(folder):
    return [int(name.partition("-")[0]) for name in names(folder)]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_training_state_comes_back_bit_for_bit(tmp_path):
    model = torch.nn.Linear(5, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.ones(1, 5)).sum().backward()
    optimizer.step()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "ema": [torch.randn(3, dtype=torch.bfloat16), torch.tensor(2**53 + 1)],
        "progress": {"iteration": 7, "reward": 0.1 + 0.2, "done": False, "name": "é", "best": None, "pair": (1, b"\0")},
        8: "integer key",
    }
    StateStore(tmp_path).save(7, state)
    step, loaded = StateStore(tmp_path).load_latest()
    assert step == 7
    assert loaded["progress"] == state["progress"]
    assert loaded[8] == state[8]
    for key in ("weight", "bias"):
        assert torch.equal(loaded["model"][key], state["model"][key])
    assert torch.equal(loaded["random"], state["random"])
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(loaded["ema"], state["ema"], strict=True))
    again = torch.optim.AdamW(model.parameters(), lr=1.0)
    again.load_state_dict(loaded["optimizer"])
    for parameter in model.parameters():
        for name, value in optimizer.state[parameter].items():
            assert torch.equal(again.state[parameter][name], value)


def test_the_newest_states_stay_in_numerical_order(tmp_path):
    store = StateStore(tmp_path, keep=3)
    for step in (1, 2, 999_999, 1_000_000, 1_000_001):
        store.save(step, state_of(step))
    assert sorted(steps_kept(tmp_path)) == [999_999, 1_000_000, 1_000_001]
    assert store.load_latest()[0] == 1_000_001


def test_keep_one_keeps_one(tmp_path):
    store = StateStore(tmp_path, keep=1)
    for step in (1, 2):
        store.save(step, state_of(step))
    assert steps_kept(tmp_path) == [2]
    with pytest.raises(ValueError, match="at least one"):
        StateStore(tmp_path, keep=0)


def test_nothing_saved_is_none(tmp_path, capfd):
    assert StateStore(tmp_path / "missing").load_latest() is None
    (tmp_path / "notes.txt").write_text("not a state")
    assert StateStore(tmp_path).load_latest() is None
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("damage", [truncate, flip_a_byte, lambda path: path.write_bytes(b"")])
def test_a_damaged_state_falls_back_to_the_one_before(tmp_path, capfd, damage):
    store = StateStore(tmp_path)
    store.save(1, state_of(1))
    newest = store.save(2, state_of(2))
    damage(newest)
    step, state = StateStore(tmp_path).load_latest()
    assert step == 1
    assert torch.equal(state["weights"], state_of(1)["weights"])
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert newest.name in lines[0]


def test_every_flipped_byte_is_noticed(tmp_path):
    store = StateStore(tmp_path)
    path = store.save(1, state_of(1))
    whole = path.read_bytes()
    for position in range(0, len(whole), 37):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        assert store.load_latest() is None


def test_only_damaged_states_start_anew_with_a_warning(tmp_path, capfd):
    store = StateStore(tmp_path)
    truncate(store.save(1, state_of(1)))
    assert store.load_latest() is None
    assert "starting anew" in capfd.readouterr().err


def test_a_damaged_state_never_takes_the_place_of_an_intact_one(tmp_path):
    store = StateStore(tmp_path, keep=2)
    store.save(10, state_of(10))
    truncate(store.save(20, state_of(20)))
    resumed = StateStore(tmp_path, keep=2)
    assert resumed.load_latest()[0] == 10
    resumed.save(25, state_of(25))
    assert steps_kept(tmp_path) == [10, 25]


def test_states_of_a_history_given_up_go(tmp_path):
    store = StateStore(tmp_path, keep=3)
    for step in (10, 20, 30):
        store.save(step, state_of(step))
    store.save(20, {"other": 1})
    assert steps_kept(tmp_path) == [10, 20]
    assert store.load_latest() == (20, {"other": 1})


def test_leftovers_of_a_killed_write_are_ignored_and_removed(tmp_path):
    store = StateStore(tmp_path)
    path = store.save(1, state_of(1))
    for name in (".incoming.a1b2c3", "incoming"):
        (tmp_path / name).write_bytes(path.read_bytes()[:100])
    assert store.load_latest()[0] == 1
    store.save(2, state_of(2))
    assert steps_kept(tmp_path) == [1, 2]


@pytest.mark.parametrize("bad", [np.float64(1.0), Path("x"), {1, 2}, lambda: None])
def test_what_could_not_be_read_back_is_refused_by_name(tmp_path, bad):
    with pytest.raises(TypeError, match=r"state\['outer'\]\[1\]"):
        StateStore(tmp_path).save(1, {"outer": [0, bad]})
    if not isinstance(bad, set):
        with pytest.raises(TypeError, match=r"a key of state\['outer'\]"):
            StateStore(tmp_path).save(1, {"outer": {bad: 0}})
    assert names(tmp_path) == []


def test_a_full_disk_is_one_line_and_spares_the_state_before(tmp_path):
    store = StateStore(tmp_path)
    store.save(1, state_of(1))
    before = names(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(UserError, match="cannot be written"):
            store.save(2, {"weights": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == before
    assert store.load_latest()[0] == 1


def test_an_intact_state_of_another_format_is_not_passed_over(tmp_path):
    store = StateStore(tmp_path)
    store.save(1, state_of(1))
    path = store.save(2, state_of(2))
    path.unlink()
    data = b"written by some other version"
    (tmp_path / f"000002-{hashlib.sha256(data).hexdigest()[:16]}.pt").write_bytes(data)
    with pytest.raises(UserError, match="000002-.*cannot read it"):
        store.load_latest()


SAVE_FOREVER = """
import sys, torch
from progrpo.grpo.checkpoint import StateStore
store = StateStore(sys.argv[1])
resumed = store.load_latest()
step = resumed[0] if resumed else 0
while True:
    step += 1
    store.save(step, {"step": step, "weights": torch.full((300_000,), float(step))})
    print(step, flush=True)
"""


def test_kill_at_any_moment_leaves_the_last_finished_state(tmp_path):
    """A process that saves all the time is killed by SIGKILL again and again; what it reported as saved is there."""
    reached = 0
    for delay in (0.0, 0.003, 0.011, 0.027):
        command = [sys.executable, "-c", SAVE_FOREVER, str(tmp_path)]
        process = forked.Process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3):
            reported = int(process.stdout.readline())
        time.sleep(delay)
        process.kill()
        rest, errors = process.communicate()
        assert errors == ""
        reported = int(([reported] + rest.split())[-1])
        step, state = StateStore(tmp_path).load_latest()
        assert step in (reported, reported + 1)  # it may have died between the renaming and the report
        assert step == state["step"] > reached
        assert (state["weights"] == step).all()
        reached = step


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_only_sets_the_flag_and_handlers_come_back(number):
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with GracefulStop() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        assert stop.requested
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before
    assert stop.requested


def test_handlers_come_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError, match="inside"), GracefulStop():
        raise RuntimeError("inside")
    assert signal.getsignal(signal.SIGTERM) is before
