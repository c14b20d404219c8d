"""What holds for every scorer: checked input, batches, devices, sums, and names of kinds and options."""

import numpy as np
import pytest
import torch
from tiny_scorers import PROMPTS

from progrpo.cli import main
from progrpo.errors import UserError
from progrpo.rewards import WeightedSum, load_scorer
from progrpo.rewards.base import BatchedScorer, unique_prompts
from progrpo.rewards.preprocess import _resize_on_device, quantise, resized_size


class Mean(BatchedScorer):
    """The mean pixel, and how it was called."""

    def __init__(self, batch_size: int = 16, value=lambda images: images.mean((1, 2, 3)), precision="fp32"):
        super().__init__("mean", "cpu", precision, batch_size)
        self.value, self.sizes = value, []

    def score_batch(self, images, prompts):
        assert len(images) == len(prompts)
        self.sizes.append(len(images))
        return self.value(images)


def test_batches_cover_all_images_in_order(images):
    scorer = Mean(batch_size=3)
    assert torch.allclose(scorer.score(images, PROMPTS), images.mean((1, 2, 3)))
    assert scorer.sizes == [3, 1]


def test_no_images_give_no_scores():
    assert Mean().score(torch.zeros(0, 3, 8, 8), []).shape == (0,)


@pytest.mark.parametrize("kind", ["pickscore", "clip_score", "aesthetic"])
def test_the_batch_size_does_not_matter(kind, clip_folder, aesthetic_folder, images):
    folder = aesthetic_folder if kind == "aesthetic" else clip_folder
    one, four = (load_scorer(kind, folder, batch_size=b).score(images, PROMPTS) for b in (1, 4))
    assert one.dtype == torch.float32
    assert (one - four).abs().max() < 1e-3 * four.std()


@pytest.mark.parametrize("kind", ["pickscore", "clip_score", "aesthetic"])
def test_images_are_resized_on_the_device_where_that_is_asked_for(
    kind, clip_folder, aesthetic_folder, images, monkeypatch
):
    """The same scores as of images resized before, bit for bit; how near the resized are to PIL's is test_preprocess's."""
    folder = aesthetic_folder if kind == "aesthetic" else clip_folder
    resized = _resize_on_device(quantise(images), *resized_size(*images.shape[-2:], 32)).float() / 255
    expected = load_scorer(kind, folder).score(resized, PROMPTS)
    scorer = load_scorer(kind, folder, preprocess="device")
    monkeypatch.setattr("progrpo.rewards.preprocess._resize_pil", lambda *_: pytest.fail("resized by PIL"))
    assert torch.equal(scorer.score(images, PROMPTS), expected)
    with pytest.raises(UserError, match="use one of pil, device"):
        load_scorer(kind, folder, preprocess="tensor_aa")


def test_tf32_is_for_the_products_of_the_scorer_alone(clip_folder, images):
    settings, seen = torch.backends.cuda.matmul, []
    scorer = load_scorer("pickscore", clip_folder, precision="tf32")
    expected = load_scorer("pickscore", clip_folder).score(images, PROMPTS)
    scorer.clip.model.vision_model.register_forward_hook(lambda *_: seen.append(settings.fp32_precision))
    before = settings.fp32_precision
    assert torch.equal(scorer.score(images, PROMPTS), expected)  # a CPU has no such products
    assert seen == ["tf32"]
    assert settings.fp32_precision == before != "tf32"


def test_low_precision_images_are_accepted(clip_folder, images):
    scorer = load_scorer("pickscore", clip_folder)
    rounded = scorer.score(images.half().float(), PROMPTS)
    assert torch.allclose(scorer.score(images.half(), PROMPTS), rounded, atol=1e-5)


@pytest.mark.parametrize(
    ("bad", "prompts", "message"),
    [
        (torch.zeros(3, 8, 8), PROMPTS, r"must be a float tensor \(B, 3, H, W\)"),
        (torch.zeros(4, 1, 8, 8), PROMPTS, r"not torch.float32 \(4, 1, 8, 8\)"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), PROMPTS, "not torch.uint8"),
        (torch.zeros(4, 3, 8, 8), PROMPTS[:3], "4 images but 3 prompts"),
        (torch.full((4, 3, 8, 8), 255.0), PROMPTS, r"must lie in \[0, 1\], not 255 to 255; divide bytes by 255"),
        (torch.linspace(-1, 1, 768).view(4, 3, 8, 8), PROMPTS, r"must lie in \[0, 1\], not -1 to 1"),
    ],
)
def test_wrong_input_is_one_line(bad, prompts, message):
    with pytest.raises(UserError, match=f"mean: .*{message}"):
        Mean().score(bad, prompts)


def test_pixels_may_overshoot_a_little_and_a_batch_may_be_empty(clip_folder, images):
    scorer = load_scorer("pickscore", clip_folder)
    assert torch.equal(
        scorer.score(images * 1.04 - 0.02, PROMPTS), scorer.score((images * 1.04 - 0.02).clamp(0, 1), PROMPTS)
    )
    assert scorer.score(images[:0], []).shape == (0,)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_pixel_that_is_no_number_names_the_prompt(images, value):
    bad = images.clone()
    bad[1, 2, 3, 4] = value
    with pytest.raises(UserError, match="mean: the image for prompt 'two blue squares' is not finite"):
        Mean().score(bad, PROMPTS)


def test_a_score_that_is_no_number_names_scorer_prompt_and_remedy(images):
    scorer = Mean(value=lambda i: torch.tensor([0.0, 1.0, 2.0, float("nan")]))
    with pytest.raises(UserError, match="mean: the score for prompt 'a green triangle.*' is not finite; use precision"):
        scorer.score(images, PROMPTS)


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (torch.zeros(4, 1), r"\(4, 1\)"),
        (torch.tensor(0.0), r"\(\)"),
        (torch.zeros(3), r"\(3,\)"),
        (None, "NoneType"),
        ([[1.0], [2.0, 3.0]], "list"),
        (torch.zeros(4, dtype=torch.complex64), "Tensor"),
        (np.array(["1", "2", "3", "4"]), "ndarray"),
        ([10**400] * 4, "list"),
    ],
)
def test_what_is_not_one_score_for_each_image_names_the_scorer(images, returned, told):
    class Forgetful(BatchedScorer):
        def score_batch(self, images, prompts):
            return returned

    scorer = Forgetful.load(None, "cpu")
    with pytest.raises(UserError, match=f"^Forgetful: returned {told} for 4 images; return one number each$"):
        scorer.score(images, PROMPTS)


@pytest.mark.parametrize(
    "returned",
    [
        np.arange(4.0)[::-1],
        np.arange(3, -1, -1).astype(np.longdouble),
        np.array([3, 2, 1, 0], dtype=object),
        torch.tensor([3.0, 2.0, 1.0, 0.0]).to_sparse(),
        torch.tensor([3, 2, 1, 0]),
        (3, 2.0, True, 0),
    ],
)
def test_scores_may_be_numbers_of_any_kind(images, returned):
    class Numbers(BatchedScorer):
        def score_batch(self, images, prompts):
            return returned

    assert Numbers.load(None, "cpu").score(images, PROMPTS).tolist() == [3, 2, 1, 0]


def test_scores_may_be_a_list(images):
    scores = Mean(value=lambda i: i.mean((1, 2, 3)).tolist()).score(images, PROMPTS)
    assert torch.equal(scores, images.mean((1, 2, 3)))


def test_unknown_precision_and_batch_size_are_one_line():
    with pytest.raises(UserError, match="precision 'fp8' is unknown; use one of fp32, bf16, fp16, tf32"):
        Mean(precision="fp8")
    with pytest.raises(UserError, match="batch_size 0 must be at least 1"):
        Mean(batch_size=0)


def test_a_prompt_is_encoded_once():
    distinct, index = unique_prompts(PROMPTS)
    assert distinct == [PROMPTS[0], PROMPTS[1], PROMPTS[3]]
    assert [distinct[k] for k in index] == PROMPTS


def test_unknown_kind_option_and_folder_are_one_line(tmp_path, clip_folder):
    with pytest.raises(UserError, match="'hps' is unknown; use one of hpsv2, imagereward, pickscore"):
        load_scorer("hps", tmp_path)
    with pytest.raises(UserError, match="pickscore: option 'size' is unknown; known: scale, preprocess, tokenizer"):
        load_scorer("pickscore", clip_folder, size=3)
    with pytest.raises(UserError, match="aesthetic: option 'scale' is unknown; known: head, preprocess"):
        load_scorer("aesthetic", clip_folder, scale=2)
    with pytest.raises(UserError, match="no such folder; fetch the weights"):
        load_scorer("pickscore", tmp_path / "nothing")
    with pytest.raises(UserError, match="needs a folder of weights"):
        load_scorer("pickscore", None)


def test_a_weighted_sum_is_that_of_its_scorers(images):
    scorers = {"dark": Mean(value=lambda i: 1 - i.mean((1, 2, 3))), "bright": Mean(), "unused": Mean()}
    total = WeightedSum(scorers, {"bright": 0.7, "dark": 1.4}).score(images, PROMPTS)
    parts = {name: scorers[name].score(images, PROMPTS) for name in ("bright", "dark")}
    assert torch.allclose(total, 0.7 * parts["bright"] + 1.4 * parts["dark"])
    assert scorers["unused"].sizes == []


def test_a_weighted_sum_names_a_scorer_that_is_not_there():
    with pytest.raises(UserError, match="reward: scorer 'clip' is unknown; known: mean"):
        WeightedSum({"mean": Mean()}, {"clip": 1.0})
    with pytest.raises(UserError, match="no scorer is named"):
        WeightedSum({"mean": Mean()}, {})


@pytest.mark.parametrize(
    ("option", "value"), [("--prompts", "0"), ("--prompts", "-5"), ("--seed", "-1"), ("--seed", str(10**30))]
)
def test_a_report_of_no_prompts_or_of_no_seed_is_refused(tmp_path, capsys, option, value):
    (tmp_path / "pickscore").mkdir()
    out = tmp_path / "r.json"
    assert main(["scorers", "report", "--scorers", str(tmp_path), "--out", str(out), option, value]) == 2
    assert f"{option} {value}: must be between" in capsys.readouterr().err
    assert not out.exists()
