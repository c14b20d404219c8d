"""From images to scores and benchmark results."""

import json
import math
import re
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from progrpo.benchmarks.compbench import CATEGORIES, OTHER_CATEGORIES
from progrpo.benchmarks.detections import write_detections
from progrpo.benchmarks.images import BenchmarkImage, batches, gaps, list_images
from progrpo.config import Config
from progrpo.devices import choose_device
from progrpo.errors import UserError
from progrpo.files import read_object, write_json, write_jsonl
from progrpo.identity import BEGUN, REFUSE, Folder, Start
from progrpo.jobs.image_folder import require_generated
from progrpo.jobs.ingredients import of_evaluation
from progrpo.jobs.loading import prompts_of, require_sets, scorer_of
from progrpo.provenance import provenance
from progrpo.quiet import silence_libraries
from progrpo.rewards.base import Scorer
from progrpo.rewards.registry import all_options

GROUPS = 10  # of a style of HPSv2's benchmark


def evaluate_images(
    config: Config,
    images: Path,
    sets: list[str] | None,
    out: Path,
    device_name: str,
    start: Start = REFUSE,
    allow_partial: bool = False,
) -> None:
    """Score `images/<prompt set>/` into `out/<prompt set>.json` (means, benchmarks) and `.scores.jsonl` (each image).

    UserError for a set of which images are missing, unless allow_partial; the result then says what is.
    """
    if not images.is_dir():
        raise UserError(f"{images}: no such folder; make the images with `progrpo generate`")
    chosen = sets or [name for name in config.evaluations if (images / name).is_dir()]
    if not chosen:
        raise UserError(f"{images}: holds no prompt set of tier {config.tier} ({', '.join(config.evaluations)})")
    require_sets(config, chosen)
    for name in chosen:
        if "compbench" in config.evaluations[name].benchmarks:
            compbench_category(name)
    tools = Tools(config, choose_device(device_name), allow_partial)
    for name in chosen:
        require_generated(images / name)
        list_images(images / name, allow_partial)
        folder = Folder(out, (f"{name}.*",), prefix=f"{name}.")  # the sets of a model lie side by side
        with folder.held(start.wait_for_lock):
            folder.claim(of_evaluation(config, name, images / name), start)
            _evaluate_set(tools, name, images / name, out)


def _evaluate_set(tools: "Tools", name: str, images: Path, out: Path) -> None:
    evaluation = tools.config.evaluations[name]
    listed = list_images(images, tools.allow_partial)
    result: dict[str, Any] = {"provenance": provenance(evaluation, _seed_of(images), tools.device)}
    if missing := gaps(images) or _other_number(tools.config, name, len(listed)):
        print(f"{images}: {missing}; the result says so, and no table takes it", flush=True)
        result["partial"] = missing
    columns = {scorer: score_images(tools.scorer(scorer), listed, evaluation.batch) for scorer in evaluation.scorers}
    styles = [_style(item.metadata) for item in listed]
    result["scores"] = {
        scorer: {**_statistics(values), **_by_style(values, styles), "settings": _settings(tools.config, scorer)}
        for scorer, values in columns.items()
    }
    for benchmark in evaluation.benchmarks:
        result[benchmark] = BENCHMARKS[benchmark](tools, images, name, out / name)
    rows = [{"image": item.name, **{s: v[k] for s, v in columns.items()}} for k, item in enumerate(listed)]
    write_jsonl(out / f"{name}.scores.jsonl", rows)
    write_json(out / f"{name}.json", result)
    print(f"{out / name}.json: {len(listed)} images " + summary_line(result), flush=True)


def _seed_of(images: Path) -> int | None:
    """The seed that images were made with, as their folder says; None for a stranger's."""
    try:
        identity = read_object(images / BEGUN).get("identity")
    except UserError:
        return None
    seed = identity.get("seed") if isinstance(identity, dict) else None
    return seed if isinstance(seed, int) else None


def _other_number(config: Config, name: str, found: int) -> str | None:
    """That a prompt set makes another number of images than were found; None where it does not, or its prompts are not here."""
    section = config.prompt_sets[name]
    if not Path(section.path).exists():
        return None
    wanted = len(prompts_of(section)) * section.images_per_prompt
    return None if found == wanted else f"{found} images, where prompt set {name} of tier {config.tier} makes {wanted}"


def _statistics(values: list[float]) -> dict[str, Any]:
    return {"mean": fmean(values), "std": pstdev(values), "n": len(values)}


def _style(metadata: Any) -> str | None:
    style = metadata.get("style") if isinstance(metadata, dict) else None
    return style if isinstance(style, str) else None


def _by_style(values: list[float], styles: list[str | None]) -> dict[str, Any]:
    """The same of each of HPSv2's styles, and as its benchmark prints it the deviation of the means of ten equal groups.

    HPSv2, evaluate_benchmark: a style's 800 scores in ten groups of 80. Nothing where an image has no style.
    """
    if None in styles:
        return {}
    made: dict[str, Any] = {}
    for style in dict.fromkeys(styles):
        part = [value for value, its in zip(values, styles, strict=True) if its == style]
        size, left = divmod(len(part), GROUPS)
        groups = [fmean(part[k : k + size]) for k in range(0, len(part), size)] if size and not left else []
        made[style or ""] = {**_statistics(part), **({"std_of_groups": pstdev(groups)} if groups else {})}
    return {"styles": made}


def _settings(config: Config, scorer: str) -> dict[str, Any]:
    """What of a scorer's configuration decides its scores, defaults too: preprocessing, scale, precision."""
    section = config.scorers[scorer]
    options = json.dumps(
        all_options(section.kind, section.options), default=str
    )  # a scorer of one's own may take anything
    return {"kind": section.kind, "precision": section.precision, **json.loads(options)}


def summary_line(result: dict) -> str:
    """The means of an evaluation in one line."""
    parts = [f"{name} {values['mean']:.4f}" for name, values in result["scores"].items()]
    parts += [
        f"{name} {result[name].get('overall', result[name].get('score')):.4f}" for name in BENCHMARKS if name in result
    ]
    return ", ".join(parts)


def score_images(scorer: Scorer, images: list[BenchmarkImage], batch: int) -> list[float]:
    """One score per image, read from disk in batches of images of one size; UserError names an image whose score is not finite."""
    scores: list[float] = []
    for part in batches(images, batch):
        pixels = torch.stack([_pixels(image) for _, image in part])
        values = scorer.score(pixels, [item.prompt for item, _ in part]).tolist()
        bad = [item.path for (item, _), value in zip(part, values, strict=True) if not math.isfinite(value)]
        if bad:
            raise UserError(f"{bad[0]}: the score of {scorer.name} is not finite; check the scorer's weights")
        scores += values
    return scores


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


class Tools:
    """Scorers and benchmark models of a tier, each loaded once, when it is first needed."""

    def __init__(self, config: Config, device: torch.device, allow_partial: bool = False):
        silence_libraries("transformers")
        self.config, self.device, self.allow_partial = config, device, allow_partial
        self._loaded: dict[str, Any] = {}

    def once(self, key: str, load) -> Any:
        """What `load()` returns, remembered under `key`."""
        if key not in self._loaded:
            self._loaded[key] = load()
        return self._loaded[key]

    def scorer(self, name: str) -> Scorer:
        """The scorer of that name."""
        return self.once(f"scorer {name}", lambda: scorer_of(self.config.scorers[name], self.device))

    def setting(self, benchmark: str, key: str) -> str:
        """A setting of `benchmarks.<benchmark>`; UserError when the configuration lacks it."""
        try:
            return dict(self.config.benchmarks)[benchmark][key]  # type: ignore[index]
        except KeyError:
            raise UserError(
                f"benchmarks.{benchmark}.{key}: missing in the configuration of tier {self.config.tier}"
            ) from None


def run_geneval(tools: Tools, folder: Path, name: str, out: Path) -> dict:
    """GenEval of a folder: detections beside the result, verdicts from them; {"overall", "tags": {tag: score}, ...}."""
    from progrpo.benchmarks.geneval.color import load_color_classifier
    from progrpo.benchmarks.geneval.detect import detect_images, how_made, vocabulary
    from progrpo.benchmarks.geneval.detector import load_detector
    from progrpo.benchmarks.geneval.verdict import summary, verdicts

    detector = tools.once("detector", lambda: load_detector(tools.setting("geneval", "detector"), tools.device))
    colors = tools.once(
        "colors", lambda: load_color_classifier(tools.setting("geneval", "color_classifier"), tools.device)
    )
    lines = detect_images(folder, detector, colors, batch_size=8, allow_partial=tools.allow_partial)
    path, known = out.with_name(f"{name}.detections.jsonl"), vocabulary(detector, colors)
    write_detections(path, lines, how_made(known, asdict(detector.pipeline), gaps(folder)))
    results = verdicts([(f"{path}:{k}", line) for k, line in enumerate(lines, 1)], known)
    write_jsonl(out.with_name(f"{name}.verdicts.jsonl"), results)
    scores = summary([line["metadata"] for line in lines], results)
    return {**scores, "tags": {tag: entry["score"] for tag, entry in scores["tags"].items()}}


def compbench_category(name: str) -> str:
    """The category of T2I-CompBench++ that a prompt set's name holds as a word; UserError when it holds none or several, or
    names a category that is not judged here."""
    words = re.findall("(?<![a-z0-9])3d|[a-z]+", name.lower())
    if others := [word for word in OTHER_CATEGORIES if word in words]:
        raise UserError(
            f"prompt set {name}: by {others[0]!r} it is of a category of T2I-CompBench++ that other models judge, which are not here"
        )
    found = [category for category in CATEGORIES if category in words]
    if len(found) != 1:
        raise UserError(
            f"prompt set {name}: its name must hold one of {', '.join(CATEGORIES)} as a word, by which T2I-CompBench++ judges "
            f"it, and holds {' and '.join(found) or 'none'}; rename it"
        )
    return found[0]


def run_compbench(tools: Tools, folder: Path, name: str, out: Path) -> dict:
    """T2I-CompBench++ of a folder whose prompt set is named after a category: BLIP-VQA, or detections and the spatial rule."""
    from progrpo.benchmarks.compbench import spatial, vqa
    from progrpo.benchmarks.compbench.blip import load_vqa
    from progrpo.benchmarks.compbench.chunks import load_chunker
    from progrpo.benchmarks.compbench.spatial_detect import (
        THRESHOLD,
        detect_spatial,
        how_found,
        load_spatial_detector,
    )

    category = compbench_category(name)
    chunker = tools.once("chunker", lambda: load_chunker(tools.setting("compbench", "chunker")))
    if category == "spatial":
        path = tools.setting("compbench", "spatial_detector")
        detector = tools.once("spatial", lambda: load_spatial_detector(path, tools.device))
        lines = detect_spatial(folder, detector, chunker, allow_partial=tools.allow_partial)
        stored = out.with_name(f"{name}.detections.jsonl")
        settings = how_found(detector, chunker, THRESHOLD, gaps(folder))
        write_detections(stored, lines, settings)
        results = spatial.verdicts([(f"{stored}:{k}", line) for k, line in enumerate(lines, 1)])
        return {**settings, **spatial.summary(results, settings["metric"])}
    beside = tools.config.benchmarks["compbench"].get("tokenizer")  # only an original .pth needs one beside it
    tokenizer = Path(beside) if beside else None
    model = tools.once("vqa", lambda: load_vqa(tools.setting("compbench", "vqa"), tools.device, tokenizer))
    lines = vqa.vqa_scores(folder, model, chunker, allow_partial=tools.allow_partial)
    write_jsonl(out.with_name(f"{name}.answers.jsonl"), lines)
    return vqa.summary(lines, category, model, chunker)


BENCHMARKS = {"geneval": run_geneval, "compbench": run_compbench}
