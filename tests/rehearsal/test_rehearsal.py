"""The rehearsal in a cut form, in one process: the manifest's files and no others, read whole, trained on, scored with."""

import hashlib
from collections import Counter
from pathlib import Path

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer

from checkout import ROOT
from progrpo.config import Config
from progrpo.errors import UserError
from progrpo.files import read_json, read_jsonl
from progrpo.grpo.backbone import load_backbone
from progrpo.jobs.evaluate import evaluate_images
from progrpo.jobs.generate import generate_images
from progrpo.jobs.sample_rewards import sample_analysis
from progrpo.jobs.train import train_run
from progrpo.names import prompt_sets_of
from progrpo.rehearsal import build, stage
from progrpo.weights.manifest import RECORD, packaged_manifest

pytestmark = pytest.mark.xdist_group("rehearsal")  # its fixture is made once, by one worker
FAMILIES = ("flowgrpo_sd35m", "progrpo_sd35m", "progrpo_flash_sd35m", "dancegrpo_sd14", "progrpo_sd14")


@pytest.fixture(scope="module")
def staged(tmp_path_factory) -> tuple[Path, Config]:
    """The stage of the rehearsal, and its configuration."""
    folder = tmp_path_factory.mktemp("rehearsal")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        config = stage.set_stage(folder)
    once = {name: run.model_copy(update={"iterations": 1}) for name, run in config.runs.items()}
    return folder, config.model_copy(update={"runs": once})


@pytest.fixture(autouse=True)
def on_stage(staged, monkeypatch):
    monkeypatch.chdir(staged[0])


@pytest.mark.parametrize("name", packaged_manifest())
def test_a_folder_holds_the_files_of_the_manifest_and_no_others(name):
    folder = Path("data", name)
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {*packaged_manifest()[name].files, RECORD}


def digests(tensors) -> Counter:
    """How often each tensor occurs, by its float32 bytes and shape, whatever its name."""
    return Counter((tuple(t.shape), hashlib.sha256(t.float().numpy().tobytes()).hexdigest()) for t in tensors)


@pytest.mark.parametrize("name", ["sd14", "sd15", "sd35m"])
def test_every_weight_of_a_pipeline_is_the_files(name, staged):
    backbone = load_backbone(staged[1].models[name].model_copy(update={"precision": "fp32"}), torch.device("cpu"))
    parts = [part for part, module in backbone.pipeline.components.items() if isinstance(module, torch.nn.Module)]
    assert {"vae", "text_encoder", backbone.denoiser_name} <= set(parts)
    for part in parts:
        stored = [load_file(file) for file in Path("data", name, part).glob("*.safetensors")]
        floats = [tensor for state in stored for tensor in state.values() if tensor.is_floating_point()]
        own = digests(getattr(backbone.pipeline, part).state_dict().values())
        assert not own.keys() - digests(floats).keys(), part


@pytest.mark.parametrize("folder", ["sd14/tokenizer", "sd35m/tokenizer_2", "clip-vit-h14", "pickscore-v1", "owlv2"])
def test_clip_tokens_are_the_published_ones_whichever_files_are_there(folder):
    """Of the five folders some have merges.txt, some tokenizer.json, some both."""
    text = "a photo of two elephants, painted by a grandmother"
    (expected,) = SimpleTokenizer()([text]).tolist()
    ids = AutoTokenizer.from_pretrained(Path("data", folder))(text).input_ids
    assert ids == expected[: len(ids)]
    assert len(ids) == sum(token > 0 for token in expected)


def test_t5_and_bert_tokens_are_those_of_their_vocabularies():
    text = "a red bench and a blue bowl"
    pieces = SentencePieceProcessor(model_file="data/sd35m/tokenizer_3/spiece.model")
    assert AutoTokenizer.from_pretrained("data/sd35m/tokenizer_3")(text).input_ids == [*pieces.encode(text), 1]
    words = Path("data/bert-base-uncased/vocab.txt").read_text().splitlines()
    ids = AutoTokenizer.from_pretrained("data/bert-base-uncased")(text).input_ids
    assert [words[k] for k in ids] == ["[CLS]", *text.split(), "[SEP]"]
    assert ids[0] == 101


@pytest.fixture(scope="module")
def trained(staged) -> dict[str, Path]:
    """{run: folder of its weights} of one run of each family."""
    folder, config = staged
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for run in FAMILIES:
            assert train_run(config, run, 0, Path("results", run), "cpu") == 0
    return {run: Path("results", run, "final") for run in FAMILIES}


@pytest.mark.parametrize("run", FAMILIES)
def test_a_run_of_each_family_is_trained(run, staged, trained):
    lines = [line for _, line in read_jsonl(trained[run].parent / "metrics.jsonl")]
    assert len(lines) == staged[1].runs[run].iterations
    assert all(line["reward_std"] > 0 and line["grad_norm"] > 0 for line in lines)
    settings, models = staged[1].runs[run], staged[1].models
    exact = models[settings.model].precision == "fp32"
    # As the trainer has it: kernels of low precision may round otherwise at another place of a batch.
    assert max(line["first_ratio_error"] for line in lines) <= (0 if exact else settings.objective.clip_range / 10)


@pytest.mark.parametrize("run", ["progrpo_flash_sd35m", "progrpo_sd14"])
def test_every_scorer_and_benchmark_judges_a_trained_model(run, staged, trained):
    config = staged[1]
    images, scores, sets = Path("images", run), Path("scores", run), prompt_sets_of(config, run)
    generate_images(config, run, None, 0, trained[run], images, "cpu")
    judged = [name for name in sets if config.evaluations[name].scorers or config.evaluations[name].benchmarks]
    evaluate_images(config, images, judged, scores, "cpu")
    for name in judged:
        result, evaluation = read_json(scores / f"{name}.json"), config.evaluations[name]
        assert set(result["scores"]) == set(evaluation.scorers)
        assert all(values["std"] > 0 for values in result["scores"].values() if values["n"] > 1)
        assert set(evaluation.benchmarks) <= set(result)


@pytest.mark.parametrize("analysis", ["reward_clustering", "pruning_pilot"])
def test_the_samples_of_an_analysis_are_drawn(analysis, staged):
    sample_analysis(staged[1], analysis, Path(f"{analysis}.json"), "cpu")
    assert len(read_json(Path(f"{analysis}.json"))["prompts"]) == staged[1].analyses[analysis].prompt_count


def test_a_file_that_the_release_does_not_have_is_named(tmp_path, monkeypatch):
    entry = packaged_manifest()["owlv2"]
    wrong = entry.model_copy(update={"files": {**entry.files, "tokenizer.model": None}})
    monkeypatch.setattr(build, "packaged_manifest", lambda: {"owlv2": wrong})
    with pytest.raises(UserError, match="tokenizer.model is not there; owlv2 needs it"):
        build.build(tmp_path)
    monkeypatch.setattr(build, "packaged_manifest", lambda: {"owlv3": entry})
    with pytest.raises(UserError, match="owlv3: the rehearsal does not know this entry"):
        build.build(tmp_path)
