"""`progrpo compbench vqa | detect | verdict | convert | chunks`."""

import argparse
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

SPATIAL = "spatial"


def add_parser(commands) -> None:
    """Add `compbench` and its actions to the command line."""
    style = HelpFormatter
    parser = commands.add_parser(
        "compbench", help="T2I-CompBench++: attributes and spatial relations", formatter_class=style
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    vqa = actions.add_parser("vqa", help="score colour, shape or texture by BLIP-VQA", formatter_class=style)
    vqa.add_argument("--images", type=Path, required=True, help="folder of images with their prompts")
    vqa.add_argument("--category", choices=("color", "shape", "texture"), required=True, help="name for the results")
    vqa.add_argument("--model", type=Path, required=True, help="BLIP-VQA: transformers folder or original .pth")
    vqa.add_argument("--tokenizer", type=Path, help="bert-base-uncased's folder, for a .pth")
    vqa.add_argument(
        "--out", type=file_path, required=True, help="scores.jsonl to write; the mean goes to scores.summary.json"
    )
    vqa.add_argument("--batch-size", type=int, default=8, help="images per forward pass")
    _add_common(vqa)
    vqa.set_defaults(run=run_vqa)

    detect = actions.add_parser("detect", help="detect the objects of spatial prompts", formatter_class=style)
    detect.add_argument("--images", type=Path, required=True, help="folder of images with their prompts")
    detect.add_argument("--model", type=Path, required=True, help="folder of an OWLv2 or Mask2Former model")
    detect.add_argument("--out", type=file_path, required=True, help="detections.jsonl to write")
    detect.add_argument("--threshold", type=float, help="least score of an object (default: 0.1)")
    _add_common(detect)
    detect.set_defaults(run=run_detect)

    verdict = actions.add_parser("verdict", help="score stored detections", formatter_class=style)
    verdict.add_argument("--category", choices=(SPATIAL,), required=True, help="category of the detections")
    verdict.add_argument(
        "--detections", type=file_path, required=True, help="detections.jsonl, from `detect` or elsewhere"
    )
    verdict.add_argument("--metric", help="name of the metric (default: that of `detect`, else spatial_external)")
    verdict.add_argument(
        "--out", type=file_path, required=True, help="scores.jsonl to write; the mean goes to scores.summary.json"
    )
    verdict.set_defaults(run=run_verdict)

    _add_preparation(actions, style)


def _add_preparation(actions, style: type) -> None:
    """Add the actions that make models and stored chunks."""
    convert = actions.add_parser("convert", help="original BLIP-VQA .pth -> transformers folder", formatter_class=style)
    convert.add_argument("--checkpoint", type=Path, required=True, help="model_base_vqa_capfilt_large.pth")
    convert.add_argument("--tokenizer", type=Path, required=True, help="bert-base-uncased's folder")
    convert.add_argument("--out", type=Path, required=True, help="folder to write")
    convert.set_defaults(run=run_convert)

    chunks = actions.add_parser("chunks", help="store spaCy's answers for prompt files", formatter_class=style)
    chunks.add_argument("--prompts", type=Path, nargs="+", required=True, help="prompt files")
    chunks.add_argument("--spacy-model", default="en_core_web_sm", help="name of the installed spaCy model")
    chunks.add_argument("--out", type=file_path, required=True, help="chunks.json to write")
    chunks.set_defaults(run=run_chunks)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--chunker",
        choices=("auto", "spacy", "template"),
        default="auto",
        help="who finds noun chunks; recorded in results",
    )
    add_allow_partial(parser)
    add_device(parser)


def run_vqa(arguments: argparse.Namespace) -> None:
    """Score the images of a folder by BLIP-VQA."""
    from progrpo.benchmarks.compbench.blip import load_vqa
    from progrpo.benchmarks.compbench.chunks import load_chunker
    from progrpo.benchmarks.compbench.vqa import summary, vqa_scores
    from progrpo.devices import choose_device
    from progrpo.files import SUMMARY, beside, write_json, write_jsonl
    from progrpo.quiet import silence_libraries

    if arguments.batch_size < 1:
        raise UserError(f"--batch-size {arguments.batch_size}: must be at least 1")
    silence_libraries("transformers")
    chunker = load_chunker(arguments.chunker)
    vqa = load_vqa(arguments.model, choose_device(arguments.device), arguments.tokenizer)
    bar, progress = progress_bar()
    with bar:
        lines = vqa_scores(arguments.images, vqa, chunker, arguments.batch_size, progress, arguments.allow_partial)
    scores = {**summary(lines, arguments.category, vqa, chunker), **_partial(arguments.images)}
    write_jsonl(arguments.out, lines)
    write_json(beside(arguments.out, SUMMARY), scores)
    said = f"BLIP-VQA {arguments.category}: {scores['score']:.4f} over {len(lines)} images (chunks: {chunker.name})"
    print(said + marked(scores.get("partial") or scores.get("left_out")))


def _partial(images: Path) -> dict[str, str]:
    """What the result says of a folder of images that is not whole; nothing of a whole one."""
    from progrpo.benchmarks.images import gaps

    missing = gaps(images)
    return {"partial": missing} if missing else {}


def run_detect(arguments: argparse.Namespace) -> None:
    """Detect the objects of spatial prompts."""
    from progrpo.benchmarks.compbench.chunks import load_chunker
    from progrpo.benchmarks.compbench.spatial_detect import (
        THRESHOLD,
        detect_spatial,
        how_found,
        load_spatial_detector,
    )
    from progrpo.benchmarks.detections import write_detections
    from progrpo.benchmarks.images import gaps
    from progrpo.devices import choose_device
    from progrpo.quiet import silence_libraries

    threshold = THRESHOLD if arguments.threshold is None else arguments.threshold
    require_between("--threshold", threshold, 0, 1)
    silence_libraries("transformers")
    chunker = load_chunker(arguments.chunker)
    detector = load_spatial_detector(arguments.model, choose_device(arguments.device))
    bar, progress = progress_bar()
    with bar:
        lines = detect_spatial(arguments.images, detector, chunker, threshold, progress, arguments.allow_partial)
    partial = gaps(arguments.images)
    write_detections(arguments.out, lines, how_found(detector, chunker, threshold, partial))
    print(f"{arguments.out}: {len(lines)} images" + marked(partial))


def run_verdict(arguments: argparse.Namespace) -> None:
    """Score stored detections of spatial prompts."""
    from progrpo.benchmarks.compbench.spatial import Settings, summary, verdicts
    from progrpo.benchmarks.detections import read_settings
    from progrpo.files import SUMMARY, beside, read_jsonl, write_json, write_jsonl

    path = arguments.detections
    require_other_file(arguments.out, path)
    results = verdicts((f"{path}:{number}", line) for number, line in read_jsonl(path))
    if not results:
        raise UserError(f"{path}: holds no detections; run `progrpo compbench detect` first")
    settings = read_settings(Settings, path) or {"metric": "spatial_external"}
    scores = {**settings, **summary(results, arguments.metric or settings["metric"])}
    write_jsonl(arguments.out, results)
    write_json(beside(arguments.out, SUMMARY), scores)
    print(
        f"{scores['metric']}: {scores['score']:.4f} over {len(results)} images"
        + marked(scores.get("partial") or scores.get("left_out"))
    )


def run_convert(arguments: argparse.Namespace) -> None:
    """Convert the original BLIP-VQA checkpoint to a transformers folder."""
    from progrpo.benchmarks.compbench.blip import load_vqa, save_vqa

    save_vqa(arguments.out, load_vqa(arguments.checkpoint, "cpu", arguments.tokenizer))
    print(f"{arguments.out}: converted")


def run_chunks(arguments: argparse.Namespace) -> None:
    """Store a spaCy model's noun chunks and nouns of prompt files."""
    from progrpo.benchmarks.compbench.chunks import SpacyChunker, write_stored_chunks
    from progrpo.benchmarks.prompt_sets import load_prompts

    prompts = [record.prompt for path in arguments.prompts for record in load_prompts(path)]
    write_stored_chunks(arguments.out, prompts, SpacyChunker(arguments.spacy_model))
    print(f"{arguments.out}: {len(set(prompts))} prompts")
