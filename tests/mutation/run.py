"""`make mutants`: breaks one line at a time in copies of this repository and lists the breaks that no test notices.

Python with the heavy libraries is started once and forked for each mutant: it changes a copy in a temporary folder, runs the tests
that are named beside the mutant (`pytest -x`), and puts the line back. `--only TEXT` takes the mutants whose file, old or new text
holds TEXT. Exit status 1 when a mutant survives that is not judged, or a judged one is killed after all.
"""

import argparse
import gc
import os
import shutil
import sys
import tempfile
import time
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.pool import AsyncResult
from pathlib import Path

from mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
COPIED = ("code", "tests", "config", "paper_tables", "results/published", "pyproject.toml")
PROCESSES = 2
SECONDS = 300  # a mutant that hangs the tests is noticed, too
# Fail at the first test, and spend the time on tests: no plugins of other packages, no rewritten asserts, no search for garbage.
LEAN = [
    "-x",
    "-q",
    "--assert=plain",
    *(f"-pno:{name}" for name in ("cacheprovider", "unraisableexception", "threadexception")),
]
HEAVY = (
    "accelerate",
    "diffusers.loaders.lora_base",
    "diffusers.training_utils",
    "open_clip",
    "peft",
    "pydantic",
    "pytest",
    "scipy.stats",
)
CLASSES = {
    "diffusers": ("AutoencoderKL", "SD3Transformer2DModel", "StableDiffusion3Pipeline", "StableDiffusionPipeline"),
    "transformers": ("CLIPModel", "CLIPTextModelWithProjection", "CLIPTokenizer", "T5EncoderModel"),
}


def make_copy() -> None:
    """In each worker of the pool: a copy of its own to break, the working folder of its tests."""
    folder = Path(tempfile.mkdtemp(prefix="mutants-", dir=os.environ["MUTANTS_FOLDER"]))
    for name in COPIED:
        source = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(source, folder / name, ignore=ignored) if source.is_dir() else shutil.copy(source, folder)
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder / "code")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # two mutants of one file may have one size and one second


def passes(tests: str) -> bool:
    """Whether the tests pass on the code as it is: else they would seem to notice everything."""
    return _tests_pass(tests.split())


def survives(mutant: Mutant) -> tuple[bool, float]:
    """(whether its tests pass on the mutant, seconds)."""
    path, start = Path(mutant.file), time.monotonic()
    text = path.read_text()
    path.write_text(mutant.applied_to(text))
    try:
        return _tests_pass(mutant.tests.split()), time.monotonic() - start
    finally:
        path.write_text(text)


def _tests_pass(tests: list[str]) -> bool:
    child = os.fork()
    if child == 0:
        _run_tests(tests)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if (code := os.waitstatus_to_exitcode(status)) in (2, 3, 4, 5):  # interrupted, internal, usage, no tests
                raise RuntimeError(f"pytest {' '.join(tests)}: exit status {code}")
            return code == 0
        time.sleep(0.05)
    os.killpg(child, 9)
    os.waitpid(child, 0)
    return False


def _run_tests(tests: list[str]) -> None:
    import pytest

    os.setpgid(0, 0)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(Path("code").resolve()))
    os._exit(int(pytest.main([*LEAN, *tests])))


def import_heavy_libraries() -> None:
    """What most tests import; never the package itself."""
    for name in HEAVY:
        import_module(name)
    for library in ("diffusers", "transformers"):  # they import a class when it is asked for
        for name in CLASSES[library]:
            getattr(import_module(library), name)
    import torch

    torch.set_num_threads(1)
    torch.testing.assert_close(torch.ones(1), torch.ones(1))  # imports much at its first call
    gc.freeze()  # of what is here no fork shall look for garbage
    gc.disable()


def report(mutant: Mutant, result: AsyncResult) -> bool:
    """Print one mutant's line; whether it survived."""
    survived, seconds = result.get()
    verdict = "killed" if not survived else "judged" if mutant.judged else "SURVIVED"
    print(f"{verdict:9}{seconds:5.1f} s  {mutant}", flush=True)
    return survived


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="take the mutants whose file, old or new text holds this")
    only = parser.parse_args().only
    chosen = [m for m in MUTANTS if only in m.file or only in m.old or only in m.new]
    for mutant in chosen:
        mutant.applied_to((ROOT / mutant.file).read_text())
    import_heavy_libraries()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MUTANTS_FOLDER"] = folder
        with get_context("fork").Pool(PROCESSES, initializer=make_copy) as pool:
            named = sorted({mutant.tests for mutant in chosen})
            if broken := [tests for tests, well in zip(named, pool.map(passes, named, 1), strict=True) if not well]:
                sys.exit("these fail without any mutant: " + "; ".join(broken))
            results = [pool.apply_async(survives, (mutant,)) for mutant in chosen]
            survived = [m for m, result in zip(chosen, results, strict=True) if report(m, result)]
    unjudged = [m for m in survived if not m.judged]
    wrong = [m for m in chosen if m.judged and m not in survived]
    print(
        f"\n{len(chosen)} mutants in {time.monotonic() - start:.0f} s: {len(chosen) - len(survived)} killed,"
        f" {len(survived) - len(unjudged)} survived and are judged equivalent, {len(unjudged)} survived"
    )
    for mutant in unjudged:
        print(f"survived: {mutant}")
    for mutant in wrong:
        print(f"judged equivalent, but killed: {mutant}")
    return 1 if unjudged or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
