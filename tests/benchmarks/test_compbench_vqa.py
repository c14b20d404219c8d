"""BLIP-VQA: the conversion of the original checkpoint, [ENC], no padding, rounding, and the command."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import VQA_WORDS, vqa_tokenizer

from progrpo.benchmarks.compbench import blip
from progrpo.benchmarks.compbench.vqa import image_score, pixels, yes_probabilities
from progrpo.cli import main
from progrpo.errors import UserError
from progrpo.files import write_jsonl
from progrpo.rehearsal.blip import original_vqa_state, random_vqa, vqa_config

WORDS = len(VQA_WORDS) + 2  # [DEC] and [ENC] behind them


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("vqa")
    blip.save_vqa(path, blip.BlipVqa(random_vqa(WORDS), vqa_tokenizer(path)))
    return path


@pytest.fixture(scope="module")
def vqa(folder):
    return blip.load_vqa(folder)


def test_the_original_checkpoint_converts_to_the_same_model(tmp_path):
    model = random_vqa(WORDS)
    torch.save({"model": original_vqa_state(model)}, tmp_path / "vqa.pth")
    loaded = blip.from_original(tmp_path / "vqa.pth")
    own, found = model.state_dict(), loaded.state_dict()
    assert all(torch.equal(own[key], found[key]) for key in own)


def test_a_folder_of_the_hub_whose_epsilon_is_another_is_refused(folder, tmp_path):
    """Salesforce/blip-vqa-base says 1e-5 for vision: its answers would be scored under the metric's name."""
    hub = shutil.copytree(folder, tmp_path / "hub")
    config = json.loads((hub / "config.json").read_text())
    config["vision_config"]["layer_norm_eps"] = 1e-5
    (hub / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"layer_norm_eps 1e-05 \(vision\).*take the original .pth"):
        blip.load_vqa(hub)


def test_a_file_in_the_place_of_the_converted_folder_is_refused(folder, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="out: is a file, where a folder is to be written"):
        blip.save_vqa(tmp_path / "out", blip.load_vqa(folder))


def test_a_missing_weight_of_the_original_is_named(tmp_path):
    state = original_vqa_state(random_vqa(WORDS))
    del state["visual_encoder.blocks.1.attn.qkv.weight"]
    torch.save({"model": state}, tmp_path / "vqa.pth")
    with pytest.raises(UserError, match="layers.1.self_attn.qkv.weight' is missing"):
        blip.from_original(tmp_path / "vqa.pth")


def test_the_sizes_of_an_original_are_those_of_its_shapes(tmp_path):
    config, found = vqa_config(WORDS), blip.config_of(blip.convert_blip_vqa(original_vqa_state(random_vqa(WORDS))))
    for tower in ("vision_config", "text_config"):
        expected, own = (getattr(c, tower).to_dict() for c in (config, found))
        assert own == expected
    with torch.device("meta"):  # the published file: ViT-B/16 at 480 px and BERT-base
        state = {
            "vision_model.embeddings.patch_embedding.weight": torch.empty(768, 3, 16, 16),
            "vision_model.embeddings.position_embedding": torch.empty(1, 901, 768),
            "vision_model.encoder.layers.0.mlp.fc1.weight": torch.empty(3072, 768),
            "vision_model.encoder.layers.11.mlp.fc1.weight": torch.empty(3072, 768),
            "text_encoder.embeddings.word_embeddings.weight": torch.empty(30524, 768),
            "text_encoder.embeddings.position_embeddings.weight": torch.empty(512, 768),
            "text_encoder.encoder.layer.0.intermediate.dense.weight": torch.empty(3072, 768),
            "text_encoder.encoder.layer.11.intermediate.dense.weight": torch.empty(3072, 768),
        }
    config = blip.config_of(state)
    vision, text = config.vision_config, config.text_config
    assert (vision.image_size, vision.layer_norm_eps, vision.num_attention_heads) == (480, 1e-6, 12)
    assert (text.vocab_size, text.num_attention_heads, text.layer_norm_eps, text.is_decoder) == (30524, 12, 1e-12, True)
    assert (text.num_hidden_layers, text.intermediate_size, text.max_position_embeddings) == (12, 3072, 512)


def test_the_first_token_is_enc_and_the_two_added_tokens_come_last(vqa):
    ids = vqa.tokens("a red bench?")
    assert (vqa.bos, vqa.enc) == (18, 19)
    assert ids[0] == vqa.enc
    assert ids[1:] == tuple(vqa.tokenizer("a red bench?")["input_ids"][1:])


def test_a_question_is_cut_to_what_the_model_reads(vqa):
    config = vqa.model.config.text_config
    assert len(vqa.tokens("red " * 60)) == blip.MAX_TOKENS < config.max_position_embeddings
    small = vqa_config(WORDS)
    small.text_config.max_position_embeddings = 16
    short = blip.BlipVqa(blip.BlipForQuestionAnswering(small).eval(), vqa.tokenizer)
    assert yes_probabilities(short, torch.zeros(1, 3, 32, 32), [["red " * 60]])[0][0] > 0
    assert short.tokens("a red bench?") == vqa.tokens("a red bench?")


def test_probabilities_are_those_of_the_first_decoded_token(vqa):
    torch.manual_seed(0)
    image = torch.randn(1, 3, 32, 32)
    ids = torch.tensor([vqa.tokens("a red bench?")])
    with torch.no_grad():
        patches = vqa.model.vision_model(pixel_values=image).last_hidden_state
        hidden = vqa.model.text_encoder(input_ids=ids, encoder_hidden_states=patches).last_hidden_state
        logits = vqa.model.text_decoder(input_ids=torch.tensor([[18]]), encoder_hidden_states=hidden).logits[0, 0]
    yes, no = logits[vqa.yes].exp(), logits[vqa.no].exp()
    ((found,),) = yes_probabilities(vqa, image, [["a red bench?"]])
    assert found == pytest.approx((yes / (yes + no)).item(), abs=1e-4)


def test_batching_by_length_changes_no_answer(vqa):
    torch.manual_seed(1)
    images = torch.randn(3, 3, 32, 32)
    asked = [["a red bench?", "bowl?"], [], ["the large blue square?", "a green circle?", "bowl?"]]
    together = yes_probabilities(vqa, images, asked)
    for k, texts in enumerate(asked):
        alone = [yes_probabilities(vqa, images[k : k + 1], [[text]])[0][0] for text in texts]
        assert together[k] == pytest.approx(alone, abs=1e-4)


def test_scores_are_products_of_rounded_probabilities():
    assert image_score([]) == 1.0
    assert image_score([0.12344]) == 0.1234
    assert image_score([0.99996, 0.5]) == 0.5
    assert image_score([0.33335, 0.33335]) == float(f"{np.float32('0.3333') * np.float32('0.3333'):.4f}")


def test_images_are_squeezed_not_cropped():
    image = Image.new("RGB", (64, 32), (255, 255, 255))
    image.paste((0, 0, 0), (0, 0, 32, 32))
    squeezed = pixels(image, 32)
    assert squeezed.shape == (3, 32, 32)
    assert squeezed[0, :, 0].max() < squeezed[0, :, -1].min()


@pytest.fixture
def images(tmp_path):
    target = tmp_path / "images" / "samples"
    target.mkdir(parents=True)
    for k, prompt in enumerate(["a red bench and a blue bowl", "a green circle"]):
        Image.new("RGB", (24, 24), (40 * k, 90, 200)).save(target / f"{prompt}_{k:06d}.png")
    return tmp_path / "images"


def run(folder, images, out, *more):
    paths = ["--images", str(images), "--model", str(folder), "--out", str(out)]
    return main(["compbench", "vqa", "--category", "color", *paths, *more])


def test_the_command_scores_a_folder_in_the_benchmarks_layout(folder, images, tmp_path):
    out = tmp_path / "scores.jsonl"
    assert run(folder, images, out, "--chunker", "template") == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["questions"] for line in lines] == [["a red bench?", "a blue bowl?"], ["a green circle?"]]
    assert all(line["score"] == image_score(line["probabilities"]) for line in lines)
    scores = json.loads((tmp_path / "scores.summary.json").read_text())
    assert scores["score"] == pytest.approx(np.mean([line["score"] for line in lines]))
    assert (scores["metric"], scores["chunker"], scores["image_size"]) == ("blip_vqa", "template", 32)


def test_bad_images_and_models_are_one_line(folder, images, tmp_path, capsys):
    (images / "samples" / "a green circle_000001.png").write_bytes(b"no image")
    assert run(folder, images, tmp_path / "s.jsonl") == 2
    assert "a green circle_000001.png: the image does not open" in capsys.readouterr().err
    write_jsonl(images / "prompts.jsonl", [])
    assert run(folder, images, tmp_path / "s.jsonl") == 2
    assert "2 images are not in prompts.jsonl" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", images, tmp_path / "s.jsonl") == 2
    assert "no model there" in capsys.readouterr().err
    assert run(tmp_path / "vqa.pth", images, tmp_path / "s.jsonl") == 2
    assert "--tokenizer" in capsys.readouterr().err
    assert not (tmp_path / "s.jsonl").exists()
