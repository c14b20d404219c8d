"""Whatever a stranger's files hold: status 0 with a right result, or 2 with at most three lines; nothing else, ever.

FUZZ_CASES=20000 FUZZ_SEED=1 python -m pytest -q -s tests/fuzz    (make fuzz CASES=20000 SEED=1)
"""

import functools
import os
import random
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import targets
from harness import run_case

from progrpo import cli

CASES = int(os.environ.get("FUZZ_CASES", "1000"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
SHOWN = 20  # failures that are printed


@pytest.fixture
def without_models(monkeypatch) -> None:
    """Commands run to their end without weights: images are black, scores a half; figures are coarse."""
    import progrpo.jobs.evaluate as evaluate
    import progrpo.jobs.generate as generate
    import progrpo.jobs.images as images
    import progrpo.jobs.train as train
    from progrpo.errors import UserError
    from progrpo.report import figures

    def no_training(*_: Any, **__: Any) -> None:
        raise UserError("no model in this test")

    backbone = SimpleNamespace(table=lambda sampling: None)
    scorer = SimpleNamespace(name="s", score=lambda pixels, prompts: torch.full((len(prompts),), 0.5))
    monkeypatch.setattr(generate, "load_backbone", lambda *_, **__: backbone)
    monkeypatch.setattr(evaluate.Tools, "scorer", lambda self, name: scorer)
    monkeypatch.setattr(images, "sample_images", lambda b, t, part, *_: torch.zeros(len(part), 3, 4, 4))
    monkeypatch.setattr(train, "load_backbone", no_training)
    monkeypatch.setitem(figures.STYLE, "savefig.dpi", 20)
    monkeypatch.setattr(cli, "build_parser", functools.cache(cli.build_parser))
    monkeypatch.setattr(os, "fsync", lambda file: None)  # speed; a kill is not what is tested here
    with matplotlib.rc_context({"figure.max_open_warning": 0}):
        yield


def test_strangers_files(tmp_path, without_models):
    cases = [target for target, share in targets.FAST.items() for _ in range(share)]
    failures, statuses, slowest, started = [], Counter(), (0.0, ""), time.process_time()
    for number in range(CASES):
        target = cases[number % len(cases)]
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "paper_tables").symlink_to(targets.ROOT / "paper_tables")
        case = target(folder, random.Random(f"{SEED} {number}"))
        before = time.process_time()
        wrong, status = run_case(case, folder)
        slowest = max(slowest, (time.process_time() - before, f"{target.__name__} {number}"))
        statuses[status] += 1
        failures += [f"{target.__name__}, case {number}, {' '.join(case.arguments)}: {line}" for line in wrong]
        if not wrong:
            shutil.rmtree(folder)
    seconds = time.process_time() - started
    print(
        f"\n{CASES} cases, seed {SEED}: {dict(statuses)}, {seconds:.0f} s of work, slowest {slowest[0]:.1f} s ({slowest[1]})"
    )
    assert not failures, f"{len(failures)} failures\n" + "\n".join(failures[:SHOWN])
    assert min(statuses[0], statuses[2]) > CASES / 20  # damage that never shows, or always, tests nothing
