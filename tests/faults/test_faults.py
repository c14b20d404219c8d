"""A cut of `make faults`: every kind of fault once, on the flow family."""

import os
import subprocess
import sys
from pathlib import Path


def test_whatever_interrupts_or_damages_a_training_the_same_command_mends_it():
    script = Path(__file__).with_name("run.py")
    done = subprocess.run(
        [sys.executable, script, "--rounds", "1", "--runs", "flow"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    table = [line for line in done.stdout.splitlines() if line]
    assert table[-1].endswith(", 0 failed")
    for kind in ("signal at a write", "signal at any moment", "damaged", "two at once"):
        assert any(line.startswith(kind) for line in table[1:-1]), done.stdout
