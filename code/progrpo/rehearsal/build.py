"""Every entry of the manifest as a folder of its files and no others: what the manifest does not list is not there."""

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch

from progrpo.errors import UserError
from progrpo.rehearsal import blip, clips, mmdet, pipelines, prompts, tokenizers
from progrpo.weights.fetch import fetch
from progrpo.weights.manifest import RECORD, Entry, packaged_manifest

# Each writes a repository, or more of it than the manifest lists, into a folder.
MAKERS: dict[str, Callable[[Path], None]] = {
    "t2i-compbench": prompts.write_compbench,
    "drawbench": prompts.write_drawbench,
    "pickscore": prompts.write_pickscore,
    "hpdv2-train": prompts.write_hpdv2,
    "hpsv2": prompts.write_hpsv2,
    "imagereward-benchmark": prompts.write_imagereward_benchmark,
    "sd14": partial(pipelines.write_sd1, extractor="CLIPFeatureExtractor"),
    "sd15": pipelines.write_sd1,
    "sd35m": lambda folder: pipelines.write_sd35m(folder, prompts.compbench_prompts()),
    "hpsv2.1": clips.write_hps,
    "imagereward": blip.write_imagereward,
    "pickscore-v1": partial(clips.write_clip_model, activation="gelu"),
    "aesthetic": clips.write_aesthetic,
    "clip-vit-l14": partial(clips.write_clip_model, activation="quick_gelu"),
    "clip-vit-h14": clips.write_laion,
    "bert-base-uncased": lambda folder: tokenizers.write_bert(folder, prompts.compbench_prompts()),
    "mask2former": mmdet.write_mask2former,
    "blip-vqa": blip.write_blip_vqa,
    "owlv2": clips.write_owlv2,
}


def build(data: Path, names: Iterable[str] | None = None, log: Callable[[str], None] = print) -> None:
    """Make entries of the manifest (default: all) in `data/<name>`, through `fetch` from a folder: the listed files alone, recorded.

    What is there already stays. The hashes of the manifest are those of the real files and are not compared. UserError for a file
    that the manifest lists and the release, as it is rehearsed here, does not have.
    """
    for name, entry in packaged_manifest().items():
        if (names is not None and name not in names) or (data / name / RECORD).is_file():
            continue
        if not entry.generated and name not in MAKERS:
            raise UserError(
                f"{name}: the rehearsal does not know this entry of the manifest; add it to rehearsal/build.py"
            )
        with tempfile.TemporaryDirectory() as made, contextlib.redirect_stdout(io.StringIO()):
            source = Path(made, "release")
            if not entry.generated:
                source.mkdir()
                torch.manual_seed(len(name))
                MAKERS[name](source)
            files = fetch(name, _unknown_hashes(entry), data / name, None if entry.generated else source)
        log(f"{name}: {len(files)} files of {sum(file.stat().st_size for file in files) / 1e6:.1f} MB")


def _unknown_hashes(entry: Entry) -> Entry:
    return entry if entry.generated else entry.model_copy(update={"files": dict.fromkeys(entry.files)})
