"""Where strangers' data comes in: for each place a valid input, its damage, and the command that reads it."""

import io
import json
import random
from pathlib import Path
from typing import Any

import models
import numpy as np
import yaml
from harness import Case, Target
from mutations import STRINGS, mutate_bytes, mutate_data, odd_value
from PIL import Image

from small_results import analyses

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
ROOT = Path(__file__).parents[2]
SAMPLING = {"steps": 2, "guidance_scale": 1.0}
RECORD = {"tag": "colors", "include": [{"class": "bench", "count": 1, "color": "red"}], "prompt": "a red bench"}
CONFIG = {
    "tier": "fuzz",
    "results": "out",
    "seeds": [0],
    "models": {"m": {"family": "flow", "path": "model", "resolution": 24}},
    "scorers": {"s": {"kind": "progrpo.miniature.scene_checker:SceneChecker", "options": {"mode": "soft"}}},
    "prompt_sets": {"p": {"path": "prompts.jsonl", "layout": "geneval"}},
    "evaluations": {"p": {"sampling": {"flow": SAMPLING, "diffusion": SAMPLING}, "scorers": ["s"], "batch": 2}},
    "runs": {
        "r": {
            "method": "Pro-GRPO",
            "model": "m",
            "prompts": "p",
            "reward": {"s": 1.0},
            "sampling": {"steps": 4, "guidance_scale": 1.0, "noise": 0.7},
            "group": {"size": 4, "pruning": [{"step": 2, "keep": 3}, {"step": 3, "keep": 2}]},
            "objective": {"kl_beta": 0.01},
            "optimizer": {"learning_rate": 1e-3},
            "lora": {"rank": 2, "alpha": 4},
            "ema": {"decay": 0.9, "every": 2},
            "prompts_per_iteration": 4,
            "micro_batch": 2,
            "iterations": 3,
        }
    },
}
ESTIMATE = {"mean": 1.0, "low": 0.5, "high": 1.5, "std": 0.1, "n": 2, "seeds": {"0": 0.9, "1": 1.1}}
DETECTIONS = [
    {
        "image": f"{k}.png",
        "metadata": RECORD,
        "detections": [{"class": "bench", "box": [0, 0, 9, 9], "score": 0.9, "color": "red"}] * (k + 1),
    }
    for k in range(3)
]
SPATIAL = [
    {
        "image": f"{k}.png",
        "prompt": "a cat on the left of a dog",
        "obj1": "cat",
        "obj2": "dog",
        "locality": "on the left of",
        "objects": [
            {"label": "cat", "box": [0, 0, 9, 9], "score": 0.9},
            {"label": "dog", "box": [90, 0, 99, 9], "score": 0.9},
        ],
    }
    for k in range(2)
]
ENTRY = {
    "url": "http://localhost:1/{file}",
    "revision": "1",
    "files": {"a.txt": None, "sub/b.txt": None},
    "bytes": 10,
    "licence": "MIT",
    "use": "x",
}


def dump(value: Any, kind: str) -> bytes:
    """JSON, JSON lines or YAML of a value; half characters are written as other tools do, wrongly."""
    if kind == "yaml":
        style = {"allow_unicode": True, "sort_keys": False}
        try:
            return yaml.dump(value, Dumper=DUMPER, **style).encode()
        except UnicodeEncodeError:
            return yaml.safe_dump(value, **style).encode(errors="surrogatepass")
    if kind == "jsonl":
        lines = value if isinstance(value, list) else [value]
        return "".join(json.dumps(line) + "\n" for line in lines).encode()
    return json.dumps(value).encode()


def damaged(path: Path, value: Any, rng: random.Random) -> None:
    """Write a file whose data, or else whose bytes, are damaged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.removeprefix(".")
    if rng.random() < 0.7:
        path.write_bytes(dump(mutate_data(value, rng), kind))
    else:
        path.write_bytes(mutate_bytes(dump(value, kind), rng))


def whole(path: Path, value: Any) -> None:
    """Write an undamaged file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dump(value, path.suffix.removeprefix(".")))


def config(folder: Path, rng: random.Random) -> Case:
    """A damaged configuration, read by one of the commands that take one."""
    damaged(folder / "c.yaml", CONFIG, rng)
    whole(folder / "prompts.jsonl", [RECORD] * 2)
    whole(folder / "out/summary.json", summary_of())
    common = ["--config", "c.yaml"]
    return Case(
        rng.choice(
            (
                ["generate", *common, "--run", "base_m", "--out", "out"],
                ["summary", *common, "--out", "out/summary.json"],
                ["tables", *common, "--own", "--table", "page", "--out", "out/t.html"],
                ["train", *common, "--run", "r", "--out", "out"],
            )
        )
    )


def prompts_of_people(folder: Path, rng: random.Random) -> Case:
    """Prompts of any text in any layout and kind of file: each is kept as it is, or the file is refused."""
    kind, layout = rng.choice(("txt", "json", "jsonl", "tsv")), rng.choice(("plain", "compbench", "hpsv2", "geneval"))
    pool = [*STRINGS, "a red circle", "a red circle_12", "and/or", "a, b", '"a"', "# a", "[a]", "{a}"]
    prompts = [rng.choice(pool) for _ in range(rng.randrange(1, 5))]
    text = {
        "txt": "\n".join(prompts),
        "json": json.dumps(prompts),
        "jsonl": "\n".join(json.dumps({"prompt": prompt}) for prompt in prompts),
        "tsv": "Prompt\tNote\n" + "\n".join(f"{prompt}\tx" for prompt in prompts),
    }[kind]
    (folder / f"p.{kind}").write_bytes(text.encode(errors="surrogatepass"))
    whole(folder / "c.yaml", {**CONFIG, "prompt_sets": {"p": {"path": f"p.{kind}", "layout": layout}}})

    def verify(folder: Path) -> str | None:
        read = [json.loads(line)["prompt"] for line in (folder / "out/p/prompts.jsonl").read_text().split("\n") if line]
        if kind in ("json", "jsonl") and read != prompts:
            return f"prompts changed: {prompts} became {read}"
        kept = [prompt.strip() for prompt in read]
        lost = [
            p for p in prompts if p.strip("\ufeff \t\n") and "\n" not in p and "\t" not in p and p.strip() not in kept
        ]
        return f"prompts lost: {lost}" if lost and not any(p.startswith("\ufeff") for p in prompts) else None

    return Case(["generate", "--config", "c.yaml", "--run", "base_m", "--out", "out"], verify)


def prompt_file(folder: Path, rng: random.Random) -> Case:
    """Damaged records and styles."""
    value = rng.choice(
        ([RECORD] * 2, [{"prompt": "a", "metadata": RECORD}], ["a", "b"], [{"prompt": "a", "metadata": None}])
    )
    damaged(folder / rng.choice(("prompts.jsonl", "prompts.json")), value, rng)
    path = next(p.name for p in folder.glob("prompts.*"))
    layout = rng.choice(("plain", "compbench", "hpsv2", "geneval"))
    whole(folder / "c.yaml", {**CONFIG, "prompt_sets": {"p": {"path": path, "layout": layout}}})
    return Case(["generate", "--config", "c.yaml", "--run", "base_m", "--out", "out"])


def image_folder(folder: Path, rng: random.Random) -> Case:
    """A folder of images with a damaged index, or damaged images."""
    whole(folder / "c.yaml", CONFIG)
    lines = [{"image": f"{k}.png", "prompt": "a", "metadata": RECORD} for k in range(3)]
    for line in lines:
        png = PNG if rng.random() < 0.8 else mutate_bytes(PNG, rng)
        (folder / "images/p").mkdir(parents=True, exist_ok=True)
        (folder / "images/p" / line["image"]).write_bytes(png)
    damaged(folder / "images/p/prompts.jsonl", lines, rng)
    allow = ["--allow-partial"] if rng.random() < 0.5 else []
    return Case(["evaluate", "--config", "c.yaml", "--images", "images", "--out", "out", *allow])


def geneval_folder(folder: Path, rng: random.Random) -> Case:
    """A GenEval folder with misnamed, missing and misplaced pictures and records: all are scored, or what is not is told."""
    whole(folder / "c.yaml", CONFIG)
    images = folder / "images/p"
    for prompt, k in ((prompt, k) for prompt in range(3) for k in range(2)):
        (images / f"{prompt:05d}/samples").mkdir(parents=True, exist_ok=True)
        (images / f"{prompt:05d}/samples/{k:04d}.png").write_bytes(PNG)
        whole(images / f"{prompt:05d}/metadata.jsonl", [RECORD])
    pattern = rng.choice(
        ("*/samples/*.png", "*/samples/0001.png", "00001/samples/*", "*/metadata.jsonl", "00001", "00002")
    )
    ending = rng.choice((".jpg", ".PNG", ".jpeg", ".webp", "x.png", ".txt"))
    for path in sorted(images.glob(pattern)):
        way = rng.randrange(4)
        if way == 0:
            path.rename(path.with_name(f"{path.stem}{ending}"))
        elif way == 1:
            path.rename(path.parents[1] / f"{path.parents[1].name}-{path.name}" if path.is_file() else images / "p_1")
        elif way == 2 and path.is_file():
            path.unlink()
    allow = ["--allow-partial"] if rng.random() < 0.5 else []

    def verify(folder: Path) -> str | None:
        pictures = [p for p in images.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp")]
        scored = (folder / "out/p.scores.jsonl").read_text().count("\n")
        told = "partial" in json.loads((folder / "out/p.json").read_text())
        return None if scored == len(pictures) or told else f"{scored} of {len(pictures)} pictures scored, not a word"

    return Case(["evaluate", "--config", "c.yaml", "--images", "images", "--out", "out", *allow], verify)


def geneval(folder: Path, rng: random.Random) -> Case:
    """Damaged GenEval detections or settings, and odd options."""
    some(folder / "d.jsonl", DETECTIONS, rng, 0.7)
    some(folder / "d.settings.json", {"classes": ["bench", "cup"], "colors": ["red", "blue"], "pipeline": {}}, rng, 0.3)
    option = rng.choice(("--threshold", "--counting-threshold", "--max-objects", "--max-overlap"))
    options = [option, str(odd_value(rng))] if rng.random() < 0.2 else []

    def verify(folder: Path) -> str | None:
        given = [line for line in (folder / "d.jsonl").read_bytes().replace(b"\r", b"\n").split(b"\n") if line.strip()]
        judged = (folder / "out/v.jsonl").read_text().splitlines()
        overall = json.loads((folder / "out/v.summary.json").read_text())["overall"]
        return None if len(given) == len(judged) and 0 <= overall <= 1 else f"{len(judged)} of {len(given)}: {overall}"

    out = ["--out", rng.choice(("out/v.jsonl", "out/v.jsonl", "out/v.jsonl", "d.jsonl", "d.settings.json"))]
    verify = verify if out[1] == "out/v.jsonl" else lambda folder: f"{out[1]} was replaced"
    return Case(["geneval", "verdict", "--detections", "d.jsonl", *out, *options], verify)


def spatial(folder: Path, rng: random.Random) -> Case:
    """Damaged spatial detections or settings."""
    some(folder / "d.jsonl", SPATIAL, rng, 0.7)
    some(folder / "d.settings.json", {"metric": "spatial_x", "chunker": "template", "threshold": 0.1}, rng, 0.4)
    arguments = ["compbench", "verdict", "--category", "spatial", "--detections", "d.jsonl", "--out", "out/v.jsonl"]
    return Case(arguments)


def manifest(folder: Path, rng: random.Random) -> Case:
    """A damaged manifest, listed and fetched from a folder."""
    damaged(folder / "m.yaml", {"prompts": {"x": ENTRY}}, rng)
    for name in ("a.txt", "sub/b.txt"):
        (folder / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "from" / name).write_bytes(b"a")
    listed = ["fetch", "--list", "--manifest", "m.yaml"]
    fetched = ["fetch", "x", "--manifest", "m.yaml", "--from-folder", "from", "--to", "out", "--yes"]
    return Case(rng.choice((listed, fetched)))


def record(folder: Path, rng: random.Random) -> Case:
    """A damaged record of an earlier download."""
    whole(folder / "m.yaml", {"prompts": {"x": ENTRY}})
    for name in ("a.txt", "sub/b.txt"):
        (folder / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "from" / name).write_bytes(b"a")
    damaged(folder / "to/fetched.json", {"files": {"a.txt": {"sha256": "0" * 64, "bytes": 1}}}, rng)
    return Case(["fetch", "x", "--manifest", "m.yaml", "--from-folder", "from", "--to", "to", "--yes"])


def summary_of() -> dict:
    """A small summary with every kind of number."""
    return {
        "tier": "fuzz",
        "evaluations": {"progrpo_sd35m": {"test_flow.pickscore": ESTIMATE, "geneval.overall": ESTIMATE}},
        "training": {"progrpo_sd35m": {"kl": ESTIMATE}},
        "analysis": {"pruning_pilot": analyses()["pruning_pilot"], "flops": analyses()["flops"]},
        "hardware": {"cpu": {"progrpo_sd35m": {"vae": 1.0, "denoiser": 1.0, "total": 2.0}}},
    }


def summary(folder: Path, rng: random.Random) -> Case:
    """A damaged summary in tables and on the page."""
    value = summary_of()
    for name in ("pruning_pilot", "flops"):  # they are most of a summary, and would take most of the damage
        if rng.random() < 0.7:
            del value["analysis"][name]
    damaged(folder / "res/summary.json", value, rng)
    whole(folder / "c.yaml", {**CONFIG, "results": "res"})
    kind = rng.choice(("page", "flow_main", "pruning_pilot", "wall_clock", "flops_flow", "numbers"))
    return Case(["tables", "--config", "c.yaml", "--own", "--table", kind, "--out", "out/t.html"])


def compare(folder: Path, rng: random.Random) -> Case:
    """Damaged summaries, one's own and the published, compared."""
    whole(folder / "c.yaml", {**CONFIG, "results": "out"})
    value = {**summary_of(), "analysis": {}}
    some(folder / "out/summary.json", value, rng, 0.5)
    some(folder / "results/published/fuzz/summary.json", value, rng, 0.7)
    return Case(["compare", "--config", "c.yaml"])


def results(folder: Path, rng: random.Random) -> Case:
    """A damaged evaluation, log or analysis on its way into a summary."""
    whole(folder / "c.yaml", {**CONFIG, "results": "res"})
    evaluation = {
        "scores": {"s": {"mean": 1.0}},
        "geneval": {"overall": 0.5, "tags": {"colors": 0.5}},
        "compbench": {"score": 1},
    }
    some(folder / "res/evaluations/r-seed0/p.json", evaluation, rng, 0.5)
    some(
        folder / "res/runs/r-seed0/metrics.jsonl", [{"iteration": k, "kl": None, "loss": 0.1} for k in (1, 2)], rng, 0.5
    )
    analysis = rng.choice(("pruning_pilot", "reward_clustering", "ovf_study", "flops"))
    some(folder / f"res/analysis/{analysis}.json", analyses()[analysis], rng, 0.3)
    return Case(["summary", "--config", "c.yaml", "--out", "out/summary.json"])


def clustering(folder: Path, rng: random.Random) -> Case:
    """Damaged rewards."""
    damaged(folder / "r.json", {"rewards": [[0.1 * k * j for k in range(6)] for j in range(3)]}, rng)
    arguments = ["analyse", "reward-clustering", "--rewards", "r.json", "--simulations", "2", "--out", "out/a.json"]
    return Case([*arguments, *(["--keep", str(odd_value(rng))] if rng.random() < 0.2 else [])])


def pilot(folder: Path, rng: random.Random) -> Case:
    """Damaged previews."""
    generator = np.random.default_rng(0)
    value = {
        "previews": generator.normal(size=(2, 8, 10)).round(3).tolist(),
        "terminal": generator.normal(size=(2, 8)).round(3).tolist(),
        "candidates": [[2, 4], [5, 7]],
        "keep": [4, 2],
    }
    kept = rng.sample(sorted(value), rng.choice((3, 4)))
    damaged(folder / "p.json", {key: value[key] for key in kept}, rng)
    return Case(["analyse", "pruning-pilot", "--previews", "p.json", "--out", "out/a.json"])


def study(folder: Path, rng: random.Random) -> Case:
    """Damaged training logs."""
    lines = [{"iteration": k, "candidates_mean": 0.1 * k, "reward_std": 0.1} for k in range(1, 5)]
    for arm in ("full", "uniform", "ovf"):
        some(folder / f"{arm}-seed0/metrics.jsonl", lines, rng, 0.5)
    arms = [word for arm in ("full", "uniform", "ovf") for word in (f"--{arm}", f"{arm}-seed0")]
    window = ["--window", str(odd_value(rng))] if rng.random() < 0.2 else []
    return Case(["analyse", "ovf-study", *arms, "--out", "out/a.json", *window])


def figure(folder: Path, rng: random.Random) -> Case:
    """Damaged data of a figure."""
    name, analysis = rng.choice((("fig2", "ovf_study"), ("fig6", "reward_clustering"), ("pilot", "pruning_pilot")))
    damaged(folder / "a.json", analyses()[analysis], rng)
    return Case(["figures", "--figure", name, "--data", "a.json", "--out", "out/f"])


def curves(folder: Path, rng: random.Random) -> Case:
    """Damaged logs, and run folders of any name."""
    name = rng.choice(("r-seed0", "$x_{-seed0", "\\frac-seed1", "a b", "<b>"))
    some(folder / name / "metrics.jsonl", [{"iteration": k, "reward_mean": 0.1 * k} for k in (1, 2, 3)], rng, 0.7)
    return Case(["figures", "--figure", "fig5", "--data", name, "--out", "out/f"])


def grid(folder: Path, rng: random.Random) -> Case:
    """A damaged .npz, or one with arrays of other types and odd texts."""
    buffer = io.BytesIO()
    images = np.zeros(
        rng.choice(((1, 2, 4, 4, 3), (1, 2, 4, 4), (0, 2, 4, 4, 3), (1, 2, 4, 4, 1))), rng.choice(("u1", "f4", "u1"))
    )
    texts = [rng.choice([text for text in STRINGS if text != "\ud800"]) for _ in range(3)]
    arrays = {"images": images, "prompts": np.array(texts[:1]), "labels": np.array(texts[1:])}
    np.savez(buffer, **{key: arrays[key] for key in arrays if rng.random() < 0.95})
    data = buffer.getvalue()
    (folder / "a.npz").write_bytes(mutate_bytes(data, rng) if rng.random() < 0.4 else data)
    return Case(["figures", "--figure", rng.choice(("fig7", "qualitative")), "--data", "a.npz", "--out", "out/f"])


def words(folder: Path, rng: random.Random) -> Case:
    """Odd words on the command line."""
    whole(folder / "d.jsonl", DETECTIONS)
    arguments = ["geneval", "verdict", "--detections", "d.jsonl", "--out", "out/v.jsonl", "--threshold", "0.3"]
    at = rng.randrange(len(arguments))
    # where files are written the user may say; half a character is nothing that a shell can hand over
    word = rng.choice([text for text in STRINGS if not text.startswith(("..", "/", "a/..", "\ud800"))])
    return Case(arguments[:at] + [word] + arguments[at + 1 :], lambda folder: None)


def model_folder(folder: Path, rng: random.Random) -> Case:
    """A damaged model, loaded and run."""
    return models.model_folder(folder, rng, whole, CONFIG)


def some(path: Path, value: Any, rng: random.Random, share: float) -> None:
    """Write a file, damaged in that share of the cases."""
    if rng.random() < share:
        damaged(path, value, rng)
    else:
        whole(path, value)


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    return buffer.getvalue()


PNG = _png()
FAST: dict[Target, int] = {  # with its share of the cases
    config: 5,
    prompts_of_people: 4,
    prompt_file: 3,
    image_folder: 3,
    geneval_folder: 2,
    geneval: 5,
    spatial: 2,
    manifest: 3,
    record: 1,
    summary: 4,
    results: 3,
    compare: 1,
    clustering: 1,
    pilot: 1,
    study: 1,
    figure: 1,
    curves: 1,
    grid: 1,
    words: 2,
    model_folder: 1,
}
