"""The miniature scorers: their training pairs, their objective, and that each loads as the real one does."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from meaning import meaning
from progrpo.cli import main
from progrpo.errors import UserError
from progrpo.miniature import checker, scorer_training
from progrpo.miniature.prompts import balanced, training_records
from progrpo.miniature.scenes import draw, sample_objects
from progrpo.miniature.scorer_degradations import DEGRADATIONS, degrade, severity
from progrpo.miniature.scorer_pairs import BLANK, CELLS, EDITS, draw_batch, encode, make_ladders, scene_kinds
from progrpo.miniature.scorer_report import accuracies, held_out_images, score_all, within_prompt_correlation
from progrpo.miniature.scorer_training import LOOKS, RECIPES, preference_loss, scene_summary
from progrpo.rewards import load_scorer

TRAINED = Path(__file__).parents[2] / "results/miniature/scorers"


@pytest.fixture(scope="module")
def ladders():
    return make_ladders(balanced(training_records(), 70, 3), 3)


def test_scenes_are_drawn_as_the_renderer_draws_them():
    rng = np.random.default_rng(0)
    for record in balanced(training_records(), 28, 0):
        objects = sample_objects(record, rng)
        scene = torch.tensor([encode(objects)])
        assert torch.equal((draw_batch(scene)[0] * 255).round(), torch.tensor(draw(objects)).permute(2, 0, 1).float())
        assert (scene_kinds(scene) != checker.EMPTY).sum() == len(objects)


def test_a_ladder_begins_faithful_and_goes_wrong(ladders):
    images = draw_batch(ladders.scenes.view(-1, CELLS))
    verdicts = checker.strict(images, [record for record in ladders.records for _ in range(4)]).view(-1, 4)
    assert torch.equal(verdicts, torch.tensor([1.0, 0, 0, 0]).expand(70, 4))
    assert all(first != second for first, second in ladders.edits)


def test_ladders_and_images_are_functions_of_the_seed(ladders):
    again = make_ladders(balanced(training_records(), 70, 3), 3)
    assert torch.equal(again.scenes, ladders.scenes)
    first, second = (
        scorer_training.ladder_images(ladders.scenes, 1.0, torch.Generator().manual_seed(5)) for _ in range(2)
    )
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_training_prompts_are_not_held_out():
    held_out = {meaning(record) for record in held_out_images(140, 1)[0].records}
    assert not held_out & {meaning(record) for record in training_records()}


@pytest.mark.parametrize("kind", range(len(DEGRADATIONS)))
def test_stronger_degradations_are_farther_from_the_image(ladders, kind):
    images = draw_batch(ladders.scenes[:, 0])
    kinds = torch.full((70,), kind)
    distance = []
    for strength in (0.0, 0.5, 1.0):
        bad = degrade(images, kinds, torch.full((70,), strength), torch.Generator().manual_seed(0))
        assert bad.min() >= 0
        assert bad.max() <= 1
        distance.append((bad - images).square().mean())
    assert 0 < distance[0] < distance[1] < distance[2]


def test_no_degradation_leaves_the_image_and_costs_nothing(ladders):
    images = draw_batch(ladders.scenes[:, 0])
    none, strength = torch.full((70,), -1), torch.rand(70)
    assert torch.equal(degrade(images, none, strength, torch.Generator()), images)
    assert severity(none, strength).sum() == 0


def test_the_preference_loss_vanishes_at_the_defects_alone():
    defects = torch.tensor([[0.0, 1.0, 2.0, 0.3], [1.0, 0.0, 0.0, 0.5]])
    scores = -scorer_training.SHARPNESS * defects + torch.tensor([[7.0], [-2.0]])
    assert preference_loss(scores, defects) == pytest.approx(0, abs=1e-6)
    assert preference_loss(scores + 0.3 * torch.randn(2, 4), defects) > 1e-4
    assert preference_loss(-scores, defects) > 1


def test_the_scene_summary_counts_and_places():
    """A solid red circle at the top left: one of two looks, red circles and solid circles, column -1, row -1."""
    scene = torch.full((1, CELLS), BLANK)
    scene[0, 0] = 0
    looks = dict(zip(LOOKS, scene_summary(scene)[0].view(-1, 3).tolist(), strict=True))
    assert looks.pop(("circle", "red")) == looks.pop(("circle", "solid")) == [1, -1, -1]
    assert set(map(tuple, looks.values())) == {(0, 0, 0)}


def test_swapped_looks_and_wrong_places_are_wrong():
    rng = np.random.default_rng(0)
    for name, tags in (("swapped_looks", ("color_attr", "texture")), ("wrong_place", ("single_object", "colors"))):
        records = [r for r in training_records() if r["tag"] in tags][::7]
        edited = [(r, EDITS[name](r, sample_objects(r, rng), rng)) for r in records]
        changed = [(r, scene) for r, scene in edited if scene is not None]
        images = draw_batch(torch.tensor([encode(scene) for _, scene in changed]))
        assert len(changed) > 50
        assert checker.strict(images, [r for r, _ in changed]).max() == 0


def test_a_tie_is_half_a_win_and_a_perfect_scorer_wins_all(ladders):
    scores = torch.tensor([3.0, 2, 2, 1, 2, 2, 2, 2, 2]).repeat(70, 1)
    assert accuracies(scores, ladders)["hard"] == 1
    assert accuracies(torch.zeros(70, 9), ladders)["hard"] == 0.5
    assert within_prompt_correlation(scores, 2 * scores + 1) == 1
    assert within_prompt_correlation(scores, -scores) == -1


@pytest.mark.parametrize("name", RECIPES)
def test_a_miniature_trains_and_loads_as_the_real_scorer_does(name, tmp_path, monkeypatch):
    """The saved folder goes through `load_scorer`, and scores as the network did before it was rounded to float16."""
    monkeypatch.setattr(scorer_training, "LADDERS", 100)
    networks = []
    monkeypatch.setattr(scorer_training, "save_folder", lambda model, out: networks.append((model, _save(model, out))))
    scorer_training.train_scorer(name, tmp_path / name, steps=20, log=lambda line: None)
    scorer = load_scorer(name, tmp_path / name, batch_size=64)
    _, images = held_out_images(7, 0)
    prompts = ["a red circle"] * 9
    expected = _network_scores(name, networks[0][0].float(), images[0], prompts)
    assert torch.allclose(scorer.score(images[0], prompts), expected, rtol=1e-4, atol=1e-3)
    assert sum(file.stat().st_size for file in (tmp_path / name).iterdir()) < 700_000


_save = scorer_training.save_folder


def _network_scores(name, model, images, prompts):
    """What the training network says, in the units of the real scorer."""
    pixels = scorer_training._pixels(images)
    with torch.no_grad():
        if name == "aesthetic":
            return model.ratings(pixels)
        scores = model.scores(pixels[None], model.tokens(prompts[:1]))[0][0]
        if name == "imagereward":
            return (scores - 0.16717362830052426) / 1.0333394966054072
        return scores if name == "pickscore" else scores / model.scale()


def test_an_unknown_name_and_too_few_steps_are_one_line(tmp_path):
    with pytest.raises(UserError, match="scorer 'vqa' has no miniature; use one of pickscore, hpsv2"):
        scorer_training.train_scorer("vqa", tmp_path / "x")
    with pytest.raises(UserError, match="steps: 5 is too few"):
        scorer_training.train_scorer("hpsv2", tmp_path / "x", steps=5)


@pytest.mark.parametrize(("name", "least"), [("pickscore", 0.9), ("hpsv2", 0.9)])
def test_the_trained_rewards_rank_hard_held_out_pairs(name, least):
    """Nine of ten pairs that differ by one edit: a colour, class, count, position or texture."""
    if not (TRAINED / name).is_dir():
        pytest.skip(f"results/miniature/scorers/{name} is not here (dvc pull, or progrpo miniature {name})")
    held_out, images = held_out_images(140, 2)
    result = accuracies(score_all(load_scorer(name, TRAINED / name, batch_size=256), held_out, images), held_out)
    assert result["hard"] >= least
    assert min(result["by_degradation"].values()) > 0.6


def test_the_commands_report_and_refuse(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(scorer_training, "LADDERS", 100)
    folder = tmp_path / "scorers/clip_score"
    assert main(["miniature", "clip_score", "--out", str(folder), "--steps", "20"]) == 0
    report = ["scorers", "report", "--scorers", str(tmp_path / "scorers"), "--prompts", "14"]
    assert main([*report, "--out", str(tmp_path / "report.json")]) == 0
    stored = json.loads((tmp_path / "report.json").read_text())
    assert set(stored["scorers"]) == {"clip_score", "scene_checker"}
    assert main(["scorers", "report", "--scorers", str(tmp_path / "no"), "--out", str(tmp_path / "r.json")]) == 2
    assert "no folder of a scorer there; train them" in capsys.readouterr().err


def test_throughput_is_measured_and_kept_beside_others(tmp_path, clip_folder, capsys):
    out = tmp_path / "speed.json"
    common = ["scorers", "throughput", "--batch", "2", "--repeats", "1", "--device", "cpu", "--out", str(out)]
    for kind in ("pickscore", "clip_score"):
        assert main([*common, "--scorer", kind, "--path", str(clip_folder), "--resolution", "40"]) == 0
    stored = json.loads(out.read_text())["scorers"]
    assert set(stored) == {"pickscore", "clip_score"}
    assert min(row["images_per_second_batched"] for row in stored.values()) > 0
    assert main([*common, "--scorer", "pickscore"]) == 2
    assert main([*common, "--scorer", "laion", "--full-size"]) == 2
    assert "--scorer laion: unknown; use one of hpsv2" in capsys.readouterr().err
