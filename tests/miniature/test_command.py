"""`progrpo miniature PART`: each part goes to the module that makes it, with that module's own number of steps."""

import pytest

from progrpo.cli import main
from progrpo.commands.miniature import JUDGES
from progrpo.miniature import detector_training, scorer_training, vqa_training


@pytest.fixture
def trained(monkeypatch) -> list:
    """(what, arguments) of the trainings that were asked for; nothing is trained."""
    calls = []
    for module, name in ((detector_training, "train"), (vqa_training, "train"), (scorer_training, "train_scorer")):
        what = module.__name__.rpartition(".")[2]
        monkeypatch.setattr(module, name, lambda *a, what=what, **k: calls.append((what, *a[:-3], k)) or {})
    return calls


@pytest.mark.parametrize("part", JUDGES)
def test_every_judge_has_its_training(trained, tmp_path, part):
    assert main(["miniature", part, "--out", str(tmp_path)]) == 0
    module = {"detector": "detector_training", "blip_vqa": "vqa_training"}.get(part, "scorer_training")
    assert [call[0] for call in trained] == [module]
    if module == "scorer_training":
        assert trained[0][1] == part


def test_steps_go_to_what_takes_one_number_of_them(trained, tmp_path, capsys):
    assert main(["miniature", "blip_vqa", "--out", str(tmp_path), "--steps", "7"]) == 0
    assert trained[0][-1] == {"steps": 7, "seed": 0}
    assert main(["miniature", "detector", "--out", str(tmp_path), "--steps", "7"]) == 2
    assert "their own numbers of steps" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["sd35m", "autoencoder", *JUDGES])
@pytest.mark.parametrize("steps", ["0", "-1"])
def test_a_training_has_at_least_one_step(trained, tmp_path, capsys, part, steps):
    assert main(["miniature", part, "--out", str(tmp_path / "out"), "--steps", steps]) == 2
    assert f"--steps {steps}: must be between 1 and" in capsys.readouterr().err
    assert not trained
