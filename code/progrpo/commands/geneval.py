"""`progrpo geneval prompts | detect | verdict | convert`."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from progrpo.commands.options import (
    HelpFormatter,
    add_allow_partial,
    add_device,
    file_path,
    marked,
    progress_bar,
    require_between,
    require_other_file,
)
from progrpo.errors import UserError


def add_parser(commands) -> None:
    """Add `geneval` and its actions to the command line."""
    style = HelpFormatter
    parser = commands.add_parser("geneval", help="GenEval: prompts, detection, verdicts", formatter_class=style)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    prompts = actions.add_parser("prompts", help="write the 553 prompts", formatter_class=style)
    prompts.add_argument("--out", type=file_path, required=True, help="evaluation_metadata.jsonl to write")
    prompts.set_defaults(run=run_prompts)

    detect = actions.add_parser("detect", help="detect objects and their colours", formatter_class=style)
    detect.add_argument("--images", type=Path, required=True, help="folder of images with their GenEval records")
    detect.add_argument("--out", type=file_path, required=True, help="detections.jsonl to write")
    detect.add_argument(
        "--model",
        type=Path,
        help="Mask2Former: transformers folder or mmdet 2.x .pth; default: that of the first config/*.yaml whose models are "
        "here and know the classes of the images' records",
    )
    detect.add_argument(
        "--config-from", type=Path, help="folder with config.json for a .pth of other classes or another input size"
    )
    detect.add_argument(
        "--clip", type=Path, help="CLIP folder for colours (clip-vit-large-patch14); default: as --model"
    )
    add_allow_partial(detect)
    add_device(detect)
    detect.add_argument("--batch-size", type=int, default=1, help="images of one size per forward pass")
    detect.set_defaults(run=run_detect)

    verdict = actions.add_parser("verdict", help="judge stored detections", formatter_class=style)
    verdict.add_argument("--detections", type=file_path, required=True, help="detections.jsonl to judge")
    verdict.add_argument(
        "--out", type=file_path, required=True, help="verdicts.jsonl to write; scores go to verdicts.summary.json"
    )
    verdict.add_argument("--threshold", type=float, default=0.3, help="least score of a detection")
    verdict.add_argument("--counting-threshold", type=float, default=0.9, help="least score where objects are counted")
    verdict.add_argument("--max-objects", type=int, default=16, help="most detections per class")
    verdict.add_argument("--max-overlap", type=float, default=1.0, help="suppress overlaps from this IoU on; 1 is off")
    verdict.set_defaults(run=run_verdict)

    convert = actions.add_parser("convert", help="mmdet 2.x .pth -> transformers folder", formatter_class=style)
    convert.add_argument("--checkpoint", type=Path, required=True, help="mmdet's Mask2Former .pth")
    convert.add_argument(
        "--config-from", type=Path, help="folder with config.json for other classes or another input size"
    )
    convert.add_argument("--out", type=Path, required=True, help="folder to write")
    convert.set_defaults(run=run_convert)


def run_prompts(arguments: argparse.Namespace) -> None:
    """Write GenEval's prompts."""
    from progrpo.benchmarks.geneval.prompts import write_prompts

    print(f"{arguments.out}: {write_prompts(arguments.out)} prompts")


def run_detect(arguments: argparse.Namespace) -> None:
    """Write the detections of a folder of images."""
    from progrpo.benchmarks.detections import write_detections
    from progrpo.benchmarks.geneval.detect import detect_images, how_made, vocabulary
    from progrpo.benchmarks.images import gaps

    if arguments.batch_size < 1:
        raise UserError(f"--batch-size {arguments.batch_size}: must be at least 1")
    detector, colors = _load_models(arguments)
    bar, progress = progress_bar()
    with bar:
        lines = detect_images(
            arguments.images, detector, colors, arguments.batch_size, progress, arguments.allow_partial
        )
    partial = gaps(arguments.images)
    write_detections(arguments.out, lines, how_made(vocabulary(detector, colors), asdict(detector.pipeline), partial))
    print(f"{arguments.out}: {len(lines)} images" + marked(partial))


def _load_models(arguments: argparse.Namespace):
    """The detector and the colour classifier (or None) that were named, or else the first fitting ones of the tiers."""
    from progrpo.benchmarks.geneval.color import load_color_classifier
    from progrpo.benchmarks.geneval.detect import vocabulary
    from progrpo.benchmarks.geneval.detector import load_detector
    from progrpo.benchmarks.images import list_images, require_records
    from progrpo.devices import choose_device
    from progrpo.quiet import silence_libraries

    def load(model: Path, clip: Path | None):
        colors = load_color_classifier(clip, device) if clip else None
        return load_detector(model, device, arguments.config_from), colors

    silence_libraries("transformers")
    device = choose_device(arguments.device)
    if arguments.model:
        return load(arguments.model, arguments.clip)
    images = list_images(arguments.images, arguments.allow_partial)
    misfit = "no GenEval detector of config/*.yaml is here"
    for model, clip in _configured_models():
        loaded = load(model, arguments.clip or clip)
        try:
            require_records(images, vocabulary(*loaded))
        except UserError as error:
            misfit = f"{error}; no other GenEval detector of config/*.yaml is here"
            continue
        print(f"detector {model}, colours {arguments.clip or clip}")
        return loaded
    raise UserError(f"{misfit}; `progrpo fetch mask2former` and `clip-vit-l14`, or name a folder by --model")


def _configured_models() -> list[tuple[Path, Path]]:
    """(detector, colour classifier) of the tiers' configurations, those that are here, each once; a wrong file has none."""
    from progrpo.config import load_config, tier_files

    found = []
    for path in tier_files():
        try:
            options = load_config(path).benchmarks.get("geneval", {})
        except UserError as error:
            print(f"{path}: passed over: {error}", file=sys.stderr)
            continue
        pair = (Path(options.get("detector", "")), Path(options.get("color_classifier", "")))
        if options and pair not in found and all(part.exists() for part in pair):
            found.append(pair)
    return found


def run_verdict(arguments: argparse.Namespace) -> None:
    """Judge stored detections, print and write the scores."""
    from progrpo.benchmarks.geneval.detect import stored_settings
    from progrpo.benchmarks.geneval.verdict import Protocol, summary, verdicts
    from progrpo.files import SUMMARY, beside, read_jsonl, write_json, write_jsonl

    path = arguments.detections
    require_other_file(arguments.out, path)
    for option in ("threshold", "counting_threshold", "max_overlap"):
        require_between(f"--{option.replace('_', '-')}", getattr(arguments, option), 0, 1)
    require_between("--max-objects", arguments.max_objects, 1, 10**6)
    lines = [(f"{path}:{number}", line) for number, line in read_jsonl(path)]
    if not lines:
        raise UserError(f"{path}: holds no detections; run `progrpo geneval detect` first")
    known, partial = stored_settings(path)
    known = known or vocabulary_of(line.get("metadata") for _, line in lines)
    protocol = Protocol(arguments.threshold, arguments.counting_threshold, arguments.max_objects, arguments.max_overlap)
    results = verdicts(lines, known, protocol)
    scores = summary([line["metadata"] for _, line in lines], results)
    write_jsonl(arguments.out, results)
    write_json(
        beside(arguments.out, SUMMARY),
        {**scores, "protocol": asdict(protocol), **({"partial": partial} if partial else {})},
    )
    for tag, entry in scores["tags"].items():
        print(f"{tag:<16} = {entry['score']:.2%} ({entry['correct']} / {entry['images']})")
    print(f"% correct images  = {scores['correct_images']:.2%} of {scores['images']}")
    print(f"% correct prompts = {scores['correct_prompts']:.2%} of {scores['prompts']}")
    print(f"overall (mean of tags) = {scores['overall']:.5f}" + marked(partial))
    for said in filter(None, (scores.get("other_tags"), scores.get("left_out"))):
        print(said)


def vocabulary_of(records: Iterable[object]):
    """GenEval's vocabulary or the miniature world's: the first that has the first class that records name, else GenEval's.

    records: as a file has them, not yet checked.
    """
    from progrpo.benchmarks.geneval.vocabulary import geneval_vocabulary
    from progrpo.benchmarks.prompt_sets import Vocabulary
    from progrpo.miniature import prompts as miniature

    known = (geneval_vocabulary(), Vocabulary(miniature.CLASSES, miniature.COLORS))
    name = next(_classes(records), None)
    return next((vocabulary for vocabulary in known if name in vocabulary.classes), known[0])


def _classes(records: Iterable[object]) -> Iterator[str]:
    """The classes of the clauses of records; what is no record or no clause has none."""
    for record in records:
        groups = [record.get("include"), record.get("exclude")] if isinstance(record, dict) else []
        for clause in (clause for group in groups if isinstance(group, list) for clause in group):
            if isinstance(clause, dict) and isinstance(clause.get("class"), str):
                yield clause["class"]


def run_convert(arguments: argparse.Namespace) -> None:
    """Convert mmdet's checkpoint to a transformers folder."""
    from progrpo.benchmarks.geneval.detector import load_detector, save_detector

    save_detector(arguments.out, load_detector(arguments.checkpoint, "cpu", arguments.config_from))
    print(f"{arguments.out}: converted")
