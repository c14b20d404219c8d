"""The trainer on untrained models: exact resume, ratio 1, ranks, references, and every error a user can cause."""

import hashlib
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import forked
import tiny
from progrpo.cli import main
from progrpo.config import load_config
from progrpo.errors import UserError
from progrpo.grpo import trainer
from progrpo.grpo.groups import roll_out
from progrpo.jobs.train import train_run

pytestmark = pytest.mark.xdist_group("test_trainer")  # its fixture is made once, by one worker
THREE_STEPS = 3  # int(4 * .99)
ROUNDING = 5e-3  # of a reward whose group std is .5: what other summation orders in float32 add up to, whatever the CPU


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return tiny.make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def trained(models, tmp_path_factory) -> Path:
    """Folders flow_pro and diffusion of two uninterrupted trainings, and their config.yaml."""
    folder = tmp_path_factory.mktemp("trained")
    config = load_config(tiny.write_config(folder / "config.yaml", models))
    for name in config.runs:
        assert train_run(config, name, 0, folder / name, "cpu") == 0
    return folder


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that must be equal after a resume; weights, configuration and metrics, bit for bit."""
    files = [folder / "metrics.jsonl", *sorted((folder / "final").rglob("*"))]
    found = {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()}
    provenance = json.loads((folder / "final" / "provenance.json").read_text())
    provenance.pop("code")  # the sources may be edited while these tests run
    return {**found, "final/provenance.json": json.dumps(provenance)}


def state(folder: Path) -> dict:
    newest = max((folder / "state").glob("*.pt"))
    return torch.load(newest, weights_only=True)


def assert_equal_trees(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal_trees(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal_trees(x, y)
    else:
        assert a == b


def assert_same_training(a: Path, b: Path):
    assert digests(a) == digests(b)
    first, second = state(a), state(b)
    for timed in ("timings",):
        first.pop(timed), second.pop(timed)
    assert_equal_trees(first, second)


def command(config: Path, run: str, out: Path) -> list[str]:
    return [sys.executable, "-m", "progrpo.cli", "train", "--config", str(config), "--run", run, "--out", str(out)]


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("run", ["flow_pro", "diffusion"])
def test_the_first_update_of_each_iteration_has_ratio_exactly_one(trained, run):
    lines = metrics(trained / run)
    assert [line["iteration"] for line in lines] == [1, 2, 3]
    assert all(line["first_ratio_error"] == 0 for line in lines)
    assert any(line["ratio_mean"] != 1 for line in lines)  # the second update is off-policy


def shift_sampling(monkeypatch, shift: float) -> None:
    """Make sampling record log-probabilities that are off by `shift`, as other kernels or other weights would."""

    def shifted(*arguments):
        rollout = roll_out(*arguments)
        rollout.log_probs[0] += shift
        return rollout

    monkeypatch.setattr("progrpo.grpo.trainer.roll_out", shifted)


def test_rounding_of_other_kernels_is_scored_away(trained, tmp_path, monkeypatch):
    """Where a row's sums depend on its place in the batch, old log-probabilities come from training's own."""
    one, other = tmp_path / "one", tmp_path / "other"
    for out, shift in ((one, 1e-6), (other, 3e-6)):
        with monkeypatch.context() as patch:
            shift_sampling(patch, shift)
            assert train_run(load_config(trained / "config.yaml"), "flow_pro", 0, out, "cpu") == 0
    assert digests(one)["metrics.jsonl"] == digests(other)["metrics.jsonl"]
    assert_equal_trees(state(one)["parameters"], state(other)["parameters"])
    assert_same_up_to_rounding(one, trained / "flow_pro")


@pytest.mark.parametrize("sampling_batch", [None, 8])
def test_another_policy_than_the_sampling_one_is_refused(models, tmp_path, monkeypatch, sampling_batch):
    shift_sampling(monkeypatch, 1e-2)
    config = tiny.write_config(
        tmp_path / "config.yaml", models, flow_pro={**tiny.FLOW, "sampling_batch": sampling_batch}
    )
    with pytest.raises(UserError, match=r"ratio of the first, on-policy update is 1 \+- 0\.0(1|0995)"):
        train_run(load_config(config), "flow_pro", 0, tmp_path / "out", "cpu")
    assert not (tmp_path / "out" / "final").exists()


def test_rollout_counters_are_those_of_the_schedule(trained):
    flow, diffusion = metrics(trained / "flow_pro")[0], metrics(trained / "diffusion")[0]
    assert flow["denoiser_calls"] == 4 * (4 * 3 + 3 * 1)  # steps 0 to 2 with 4, step 3 with 3
    assert diffusion["denoiser_calls"] == 4 * 2 * 4
    assert flow["decoder_calls"] == flow["reward_calls"] == 4 * (4 + 3 + 2)


def test_training_moves_the_weights_and_publishes_the_average(trained):
    lora = load_file(trained / "flow_pro" / "final" / "pytorch_lora_weights.safetensors")
    assert all(v.dtype == torch.float32 for v in lora.values())
    changed = [v for k, v in lora.items() if "lora_B" in k or "lora.up" in k]
    assert changed
    assert any(v.abs().max() > 0 for v in changed)
    saved = state(trained / "flow_pro")
    assert saved["updates"] == 6
    assert any(not torch.equal(a, p) for a, p in zip(saved["average"], saved["parameters"], strict=True))
    assert state(trained / "diffusion")["average"] is None
    assert (trained / "diffusion" / "final" / "unet" / "diffusion_pytorch_model.safetensors").is_file()


@pytest.mark.parametrize(("name", "run"), [("flow", tiny.FLOW), ("diffusion", tiny.DIFFUSION)])
def test_kl_starts_at_zero_and_grows(models, tmp_path, name, run):
    """Before the first update the policy is its reference."""
    run = {**run, "updates_per_iteration": 1, "iterations": 2}
    config = load_config(tiny.write_config(tmp_path / "config.yaml", models, **{name: run}))
    assert train_run(config, name, 0, tmp_path / "out", "cpu") == 0
    first, second = (line["kl"] for line in metrics(tmp_path / "out"))
    assert first == pytest.approx(0, abs=1e-9)
    assert second > 1e-7


def test_deterministic_kernels_change_no_bit_on_a_cpu(trained, models, tmp_path, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    run = {**tiny.FLOW, "speed": {"deterministic": True}}
    config = load_config(tiny.write_config(tmp_path / "config.yaml", models, flow_pro=run))
    try:
        assert train_run(config, "flow_pro", 0, tmp_path / "out", "cpu") == 0
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
    assert digests(tmp_path / "out")["metrics.jsonl"] == digests(trained / "flow_pro")["metrics.jsonl"]
    assert_equal_trees(state(tmp_path / "out")["parameters"], state(trained / "flow_pro")["parameters"])


def test_timings_are_kept_apart_from_metrics(trained):
    lines = [json.loads(line) for line in (trained / "flow_pro" / "timings.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2, 3]
    assert {"rollout", "update", "denoiser", "decoder", "reward"} <= set(lines[0])
    assert not any("second" in key or key in lines[0] for key in metrics(trained / "flow_pro")[0] if key != "iteration")


# `progrpo`, killed when half of a state is in its temporary file.
HALF_A_STATE = """
import os, signal, sys
from progrpo.cli import main
from progrpo.files import TEMPORARY
def watch(event, arguments):
    if event == "os.rename" and f"/state/{TEMPORARY}" in os.fsdecode(arguments[0]):
        os.truncate(arguments[0], os.stat(arguments[0]).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
sys.exit(main(sys.argv[1:]))
"""


def kill_when(process: forked.Process, ready, number: int) -> None:
    while process.poll() is None and not ready():
        time.sleep(0.005)
    process.send_signal(number)
    process.wait(timeout=60)


@pytest.mark.parametrize("moment", ["state", "incoming", "metrics"])
def test_a_killed_training_ends_like_an_uninterrupted_one(trained, tmp_path, moment):
    out = tmp_path / "killed"
    ready = {
        "state": lambda: any(out.glob("state/000001-*")),  # between or during iterations
        "incoming": lambda: False,  # while a state is being written, which is too short to be met from outside
        "metrics": lambda: (out / "metrics.jsonl").exists(),  # after the log, before the state
    }[moment]
    arguments = command(trained / "config.yaml", "flow_pro", out)
    program = [sys.executable, "-c", HALF_A_STATE, *arguments[3:]] if moment == "incoming" else arguments
    process = forked.Process(program, stdout=subprocess.DEVNULL)
    kill_when(process, ready, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (out / "final").exists()
    assert main(command(trained / "config.yaml", "flow_pro", out)[3:]) == 0
    assert_same_training(out, trained / "flow_pro")


def test_a_spoilt_state_falls_back_to_the_one_before(trained, tmp_path, capfd):
    config = load_config(trained / "config.yaml")
    out = tmp_path / "spoilt"
    (out / "state").mkdir(parents=True)
    for path in (trained / "flow_pro" / "state").glob("*.pt"):
        (out / "state" / path.name).write_bytes(path.read_bytes())
    (out / "begun.json").write_bytes((trained / "flow_pro" / "begun.json").read_bytes())
    newest = max((out / "state").glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    assert train_run(config, "flow_pro", 0, out, "cpu") == 0
    captured = capfd.readouterr()
    assert "truncated or corrupt" in captured.err
    assert "resuming after iteration 2" in captured.out
    assert_same_training(out, trained / "flow_pro")


# `progrpo`, all of whose libraries are loaded when the disk is full.
LITTLE_ROOM = """
import resource, sys
from progrpo.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("bytes_free", [0, 2_000, 60_000])  # too few for the lock, what it was begun with, the state
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(trained, tmp_path, bytes_free):
    out = tmp_path / "full"
    arguments = command(trained / "config.yaml", "flow_pro", out)
    if bytes_free:
        program = [sys.executable, "-c", LITTLE_ROOM, str(bytes_free), *arguments[3:]]
        failed = forked.run(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    else:  # full before a library is loaded
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # noqa: E731
        failed = subprocess.run(arguments, preexec_fn=limit, capture_output=True, text=True)
    assert failed.returncode == 2
    assert len(failed.stderr.splitlines()) == 1
    assert "make room" in failed.stderr
    assert not (out / "final").exists()
    assert main(arguments[3:]) == 0
    assert_same_training(out, trained / "flow_pro")


def test_sigterm_saves_and_exits_before_the_end_and_the_same_command_goes_on(trained, tmp_path, models):
    sparse = {**tiny.FLOW, "save_every": 3}  # no state is written before the signal
    config = tiny.write_config(tmp_path / "config.yaml", models, flow_pro=sparse)
    out = tmp_path / "stopped"
    process = forked.Process(command(config, "flow_pro", out), stdout=subprocess.PIPE)
    while "iteration 1/3" not in (line := process.stdout.readline()):
        assert line, "it ends before its first iteration does"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=600) == 143
    rest = process.stdout.read()
    assert "iteration 3/3" not in rest
    assert "the same command goes on" in rest
    assert any((out / "state").glob("*.pt"))
    assert main(command(config, "flow_pro", out)[3:]) == 0
    assert digests(out)["metrics.jsonl"] == digests(trained / "flow_pro")["metrics.jsonl"]
    name = "final/pytorch_lora_weights.safetensors"
    assert digests(out)[name] == digests(trained / "flow_pro")[name]


def assert_same_up_to_rounding(out: Path, reference: Path) -> None:
    rewards, expected = ([line["reward_mean"] for line in metrics(folder)] for folder in (out, reference))
    assert rewards[0] == pytest.approx(expected[0], abs=ROUNDING)
    assert rewards == pytest.approx(expected, abs=10 * ROUNDING)  # of weights that rounding has moved
    name = "final/pytorch_lora_weights.safetensors"
    assert tiny.distance(out / name, reference / name) < 0.2


def test_two_ranks_train_like_one(trained, tmp_path):
    out = tmp_path / "ranks"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--"]
    arguments = command(trained / "config.yaml", "flow_pro", out)[3:]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command_line = [*torchrun, "progrpo.cli", *arguments]
    done = subprocess.run(command_line, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    one, two = metrics(trained / "flow_pro"), metrics(out)
    assert len(two) == 3
    for a, b in zip(one, two, strict=True):
        assert a["denoiser_calls"] == b["denoiser_calls"]
        assert b["groups"] == 4
        assert b["first_ratio_error"] == 0
    assert_same_up_to_rounding(out, trained / "flow_pro")


def test_a_finished_run_says_so_and_another_seed_is_refused(trained, tmp_path, models, capsys):
    arguments = [
        "train",
        "--config",
        str(trained / "config.yaml"),
        "--run",
        "flow_pro",
        "--out",
        str(trained / "flow_pro"),
    ]
    assert main(arguments) == 0
    assert "already trained" in capsys.readouterr().out
    assert main([*arguments, "--seed", "1"]) == 2
    assert "seed: 0 is not 1" in capsys.readouterr().err


WAYS = {
    "recomputed previews": {"group": {**tiny.FLOW["group"], "preview": "recompute"}},
    "rescored": {"sampling_batch": 8},
}


@pytest.mark.parametrize("way", WAYS)
def test_the_way_of_sampling_changes_the_cost_and_not_the_result(trained, models, tmp_path, way):
    """Up to rounding: a row of a matrix product may be summed in another order at another place of another batch."""
    config = load_config(tiny.write_config(tmp_path / "config.yaml", models, flow_pro={**tiny.FLOW, **WAYS[way]}))
    train_run(config, "flow_pro", 0, tmp_path / "out", "cpu")
    assert all(line["first_ratio_error"] == 0 for line in metrics(tmp_path / "out"))
    assert_same_up_to_rounding(tmp_path / "out", trained / "flow_pro")


BAD_RUNS = {
    "t1 >= t2": ({"group": {"size": 4, "pruning": [{"step": 3, "keep": 3}, {"step": 2, "keep": 2}]}}, "must increase"),
    "K > G": ({"group": {"size": 4, "pruning": [{"step": 2, "keep": 5}]}}, "cannot keep more"),
    "batches": ({"micro_batch": 0}, "micro_batch"),
    "unknown key": ({"learning_rat": 1}, "learning_rat: unknown key"),
    "wrong type": ({"iterations": "many"}, "iterations"),
    "unknown scorer": ({"reward": {"beauty": 1.0}}, "beauty"),
    "learning rate": ({"optimizer": {"learning_rate": float("inf")}}, "learning_rate: Input should be a finite number"),
    "beta": ({"optimizer": {"learning_rate": 1e-3, "betas": [0.9, 1.0]}}, "betas.1: Input should be less than 1"),
    "epsilon": ({"optimizer": {"learning_rate": 1e-3, "epsilon": 0.0}}, "epsilon: Input should be greater than 0"),
    "decay": ({"optimizer": {"learning_rate": 1e-3, "weight_decay": -0.1}}, "weight_decay: Input should be greater"),
    "weight of a reward": (
        {"reward": {"pickscore": float("nan")}},
        "reward.pickscore: Input should be a finite number",
    ),
    "deterministic": ({"sampling": {"steps": 4, "guidance_scale": 1.0}}, "noise"),
}


@pytest.mark.parametrize("case", BAD_RUNS)
def test_bad_configuration_is_one_line_and_status_2(case, models, tmp_path, capsys):
    change, expected = BAD_RUNS[case]
    config = tiny.write_config(tmp_path / "config.yaml", models, flow_pro={**tiny.FLOW, **change})
    out = tmp_path / "out"
    assert main(["train", "--config", str(config), "--run", "flow_pro", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.splitlines()) == 1
    assert not out.exists()


def test_unknown_run_and_missing_files_name_the_culprit(models, tmp_path, capsys):
    config = tiny.write_config(tmp_path / "config.yaml", models)
    out = tmp_path / "out"
    for arguments, expected in (
        (["--config", str(config), "--run", "flow_prp"], "flow_prp"),
        (["--config", str(tmp_path / "none.yaml"), "--run", "flow_pro"], "none.yaml"),
    ):
        assert main(["train", *arguments, "--out", str(out)]) == 2
        assert expected in capsys.readouterr().err
    moved = config.read_text().replace(str(models / "sd35m"), str(tmp_path / "nowhere"))
    config.write_text(moved)
    assert main(["train", "--config", str(config), "--run", "flow_pro", "--out", str(out)]) == 2
    assert "nowhere: no model folder" in capsys.readouterr().err
    assert not out.exists()


def test_corrupt_weights_are_one_line(models, tmp_path, capsys):
    import shutil

    broken = tmp_path / "models"
    shutil.copytree(models, broken)
    weights = broken / "sd35m" / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:10_000])
    config = tiny.write_config(tmp_path / "config.yaml", broken)
    assert main(["train", "--config", str(config), "--run", "flow_pro", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "cannot be loaded" in error


def test_a_reward_that_is_no_number_stops_with_prompt_and_scorer(models, tmp_path, capsys, monkeypatch):
    from progrpo.rewards.pickscore import PickScore

    def broken(self, images, prompts):
        return torch.full((len(images),), float("nan"))

    monkeypatch.setattr(PickScore, "score_batch", broken)
    config = tiny.write_config(tmp_path / "config.yaml", models)
    out = tmp_path / "out"
    assert main(["train", "--config", str(config), "--run", "flow_pro", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "pickscore" in error
    assert "not finite" in error
    assert not (out / "final").exists()
    assert not (out / "metrics.jsonl").exists()


def test_a_deviation_of_the_ratio_that_stays_stops_the_training(models, tmp_path, capsys, monkeypatch):
    real, calls = trainer.log_prob, itertools.count(1)
    monkeypatch.setattr(trainer, "log_prob", lambda *arguments: real(*arguments) + 1e-6 * next(calls))
    config = tiny.write_config(tmp_path / "config.yaml", models)
    assert main(["train", "--config", str(config), "--run", "flow_pro", "--out", str(tmp_path / "out")]) == 2
    assert "likelihood ratio" in capsys.readouterr().err
