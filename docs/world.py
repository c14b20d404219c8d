"""Write docs/world.md, what the models of the miniature world can do:  python docs/world.py [--measure]

With --measure docs/world.json is measured first, in minutes, on the models of results/miniature (`dvc pull results/miniature.dvc`).
The page is made from it, from the published base models and from the throughput of the scorers at official size.
"""

import sys
import textwrap
from pathlib import Path

from progrpo.files import read_json, write_json
from progrpo.miniature.prompts import CLASSES, COLORS
from progrpo.miniature.scenes import TEXTURES

ROOT = Path(__file__).parents[1]
MEASURED, PAGE = ROOT / "docs" / "world.json", ROOT / "docs" / "world.md"
MODELS = ROOT / "results" / "miniature"
CHECKER = "scene_checker"


def measure() -> dict:
    """How well the scorers rank held-out pairs, and what the two judges' trainings reported."""
    from progrpo.miniature.scorer_report import report
    from progrpo.plugins import SCORERS

    scorers = report({kind: path for kind in SCORERS if (path := MODELS / "scorers" / kind).is_dir()})
    return {"scorers": scorers, **{name: read_json(MODELS / name / "report.json") for name in ("detector", "blip_vqa")}}


def page() -> str:
    """The page, from the stored measurements."""
    made = read_json(MEASURED)
    return "\n".join([*_beginning(), *_models(), *_scorers(made["scorers"]), *_judges(made)]) + "\n"


def words(text: str) -> str:
    """A paragraph, filled."""
    return textwrap.fill(" ".join(text.split()), 130, break_long_words=False, break_on_hyphens=False)


def _beginning() -> list[str]:
    text = f"""Scenes of {len(CLASSES)} kinds of shapes in {len(COLORS)} colours and {len(TEXTURES)} textures, in 24 x 24 pixels,
        and captions of them. An exact checker knows what a scene shows. The models below have the architectures of the
        real ones, in small, and were trained here (`progrpo miniature`); they lie in the DVC remote inside the repository.
        The numbers say what the evidence of tier `mini` rests on, and nothing of the real models. Its prompt sets for tests,
        DrawBench, HPSv2 and GenEval are draws from one pool that no training sees, of the kinds that training has: they
        overlap, and none is out of domain."""
    note = "<!-- Written by docs/world.py; run it again instead of editing. -->"
    return ["# The miniature world", "", note, "", words(text), ""]


def _models() -> list[str]:
    curves = read_json(ROOT / "results/published/mini/summary.json")["learning_curves"]
    text = """Share of images in which the checker finds everything that the prompt asks for, on held-out prompts, before any
        training by reward."""
    lines = ["## Base models", "", words(text), "", "| model | strict accuracy | seeds of noise |", "|---|---|---|"]
    for model, name in (("sd35m", "SD3.5-M, miniature"), ("sd14", "SD-v1.4, miniature")):
        found = curves[f"base_{model}"]["held_out.scene_strict"]["0"]
        lines.append(f"| {name} (`{model}`) | {found['mean']:.2f} | {found['n']} |")
    return [*lines, ""]


def _scorers(made: dict) -> list[str]:
    speed = read_json(ROOT / "results/published/hardware/cpu/scorers.json")["scorers"]
    within = made["rank_correlation_within_prompt"]
    names = [name for name in made["scorers"] if name != CHECKER]
    text = f"""How often a scorer puts the better of two images first, over {made["prompts"]} held-out prompts: *edited* pairs
        differ by one edit of the scene (a thing missing, extra, of another colour, ...), *degraded* ones by blur, noise,
        fading and the like. That they are distinct show rank correlations (Spearman) within the nine images of a prompt.
        Throughput is that of the official architecture with random weights, in images per second of one CPU core, in
        batches (`progrpo scorers throughput --full-size`); on a GPU it was not measured."""
    head = " | ".join(f"with {name}" for name in (*names, "checker"))
    lines = ["## Scorers", "", words(text), "", f"| scorer | edited pairs | degraded pairs | {head} | images/s |"]
    lines.append("|---" * (len(names) + 5) + "|")
    for name in names:
        own = made["scorers"][name]
        degraded = own["by_degradation"].values()
        cells = [f"{own['hard']:.2f}", f"{sum(degraded) / len(degraded):.2f}"]
        cells += [f"{within[name][other]:.2f}" for other in (*names, CHECKER)]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {speed[name]['images_per_second_batched']:.2f} |")
    checker = made["scorers"][CHECKER]["hard"]
    last = (
        f"The checker itself (soft) puts {checker:.2f} of the edited pairs right. The aesthetic scorer reads no prompt."
    )
    return [*lines, "", last, ""]


def _judges(made: dict) -> list[str]:
    found, vqa = made["detector"], made["blip_vqa"]
    detector = f"""GenEval's Mask2Former, in small, finds {found["class_and_box_recall"]:.2f} of the things of a scene with class and
        box. Of drawn scenes that show what their prompt asks for, the verdict accepts
        {found["verdicts_of_faithful_scenes"]:.2f}, of others {found["verdicts_of_mismatched_scenes"]:.2f}; counting is its
        weak side ({found["verdicts_by_tag"]["counting"]:.2f})."""
    answers = f"""T2I-CompBench++'s BLIP-VQA, in small, answers {vqa["held_out_answers_right"]:.2f} of held-out questions right. A
        scene that shows what is asked scores {vqa["faithful_score"]:.2f}, another {vqa["mismatched_score"]:.3f}."""
    return ["## Judges of the benchmarks", "", words(detector), "", words(answers)]


if __name__ == "__main__":
    if "--measure" in sys.argv[1:]:
        write_json(MEASURED, measure())
    PAGE.write_text(page())
