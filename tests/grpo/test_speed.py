"""Every way of being fast against the plain way: the same samples, the same gradient, a first ratio of exactly 1."""

import threading

import pytest
import torch
from test_gradient import BETA, FAMILIES, accumulated, configuration, moved, trainer_of

import tiny
from progrpo.config import Group
from progrpo.errors import UserError
from progrpo.grpo import micro_batch
from progrpo.grpo.backbone import load_backbone
from progrpo.grpo.checkpoint import StateStore
from progrpo.grpo.micro_batch import cheapest_batch, recomputed_bytes_per_row, saved_bytes_per_row
from progrpo.grpo.progress import UpdateStatistics
from progrpo.grpo.text_cache import TextCache, encoder_hash
from progrpo.grpo.tuning import Tuning


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tiny.make_models(tmp_path_factory.mktemp("models"))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_does_not_depend_on_the_micro_batch(models, tmp_path, family):
    """Of 8 pairs, 4 fill one step, 3 and 6 cut through a step and leave a rest that is filled up, 8 are all; sampling is the same."""
    results = []
    for pairs in (4, 1, 2, 3, 6, 8):
        trainer = trainer_of(configuration(tmp_path, models, family, BETA, True, pairs), tmp_path / "out")
        samples = moved(trainer)
        statistics = UpdateStatistics()
        trainer._accumulate(samples, 0, 4, statistics)
        gradient = torch.cat([parameter.grad.flatten() for parameter in trainer.tuning.parameters])
        results.append((samples, gradient, torch.cat(statistics.loss)))
    (plain, gradient, loss), *others = results
    assert len(loss) == 8
    for samples, other, its_loss in others:
        assert torch.equal(samples.rollout.states, plain.rollout.states)
        assert relative(other, gradient) < 1e-3  # 6e-7 here, of a U-Net 3e-5: kernels differ with the batch
        torch.testing.assert_close(its_loss, loss, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("together", [False, True], ids=["two calls", "one call"])
def test_the_first_ratio_is_exactly_one_in_pairs(models, tmp_path, family, together):
    speed = {"batched_guidance": together}
    config = configuration(tmp_path, models, family, BETA, True, 6, sampling_batch=None, speed=speed)
    trainer = trainer_of(config, tmp_path / "out")
    statistics = trainer._update(trainer._sample())
    assert statistics.first_ratio_error == 0
    assert trainer.one_call == together


@pytest.mark.parametrize("family", FAMILIES)
def test_one_call_for_both_branches_gives_the_gradient_of_two(models, tmp_path, family):
    gradients = []
    for together in (False, True):
        speed = {"batched_guidance": together}
        trainer = trainer_of(configuration(tmp_path, models, family, BETA, True, 4, speed=speed), tmp_path / "out")
        samples = moved(trainer)
        calls = []
        trainer.backbone.denoiser.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        gradients.append((accumulated(trainer, samples)[0], len(calls)))
    (two, calls_of_two), (one, calls_of_one) = gradients
    assert calls_of_one == calls_of_two / 2
    assert relative(one, two) < 1e-3  # samples differ by the rounding of sampling too


def test_a_detached_branch_is_never_part_of_one_call(models, tmp_path):
    speed = {"batched_guidance": True}
    trainer = trainer_of(configuration(tmp_path, models, "flow", 0.0, False, 4, speed=speed), tmp_path / "out")
    assert not trainer.one_call


def test_old_log_probabilities_are_scored_again_only_when_the_ratio_is_not_one(models, tmp_path, monkeypatch):
    """Another batch while sampling is no reason by itself."""
    settings = configuration(tmp_path, models, "flow", 0.0, True, 4, sampling_batch=2)
    trainer, again = trainer_of(settings, tmp_path / "out"), []
    rescore = trainer._rescore
    monkeypatch.setattr(trainer, "_rescore", lambda samples: again.append(1) or rescore(samples))
    answers = iter([True, False, True])
    monkeypatch.setattr(trainer, "_on_policy", lambda statistics: next(answers))
    trainer._update(trainer._sample())
    assert (again, trainer.rescoring) == ([], False)
    trainer._update(trainer._sample())
    assert (again, trainer.rescoring) == ([1], True)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_scoring_again_makes_the_very_calls_of_training(models, tmp_path, monkeypatch, family, both):
    """As kernels may do, the model rounds otherwise with gradients and at another row; eight pairs in calls of three fill one up."""
    more = {"micro_batch": 3, "sampling_batch": 2, "speed": {"batched_guidance": False}}
    trainer = trainer_of(configuration(tmp_path, models, family, 0.0, both, **more), tmp_path / "out")
    call = trainer.backbone._call

    def rounding(denoiser, x, *rest):
        row = torch.arange(len(x)).view(-1, 1, 1, 1)
        return call(denoiser, x, *rest) + 1e-6 * (row + 1 + 5 * torch.is_grad_enabled())

    monkeypatch.setattr(trainer.backbone, "_call", rounding)
    statistics = trainer._update(trainer._sample())
    assert trainer.rescoring
    assert statistics.first_ratio_error == 0


def test_the_cheapest_batch_fills_calls_and_stays_within_the_limit():
    assert cheapest_batch([64] * 20, [608] * 2, 10**6) == 64  # DanceGRPO of tier mini
    assert cheapest_batch([64] * 20, [608] * 2, 40) == 32
    assert cheapest_batch([64] * 20, [608] * 2, 5) == 5
    assert cheapest_batch([6], [6], 100) == 8
    with pytest.raises(ValueError, match="not even one"):
        cheapest_batch([64], [64], 0)


def test_bytes_kept_per_row_are_those_of_a_known_graph():
    weight = torch.ones(1000, requires_grad=True)
    assert saved_bytes_per_row(lambda rows: (torch.ones(rows, 1000) * weight).exp().sum()) == 2 * 4000


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpoints_keep_little_and_bring_one_block_back_at_a_time(models, tmp_path, family):
    backbone = trainer_of(configuration(tmp_path, models, family, 0.0, True, 4), tmp_path / "out").backbone
    denoiser = backbone.denoiser

    def forward(rows: int) -> torch.Tensor:
        text = backbone.unconditional().rows(torch.zeros(rows, dtype=torch.long))
        return backbone.predict(torch.zeros(rows, *backbone.latent_shape), torch.tensor(500.0), text, 1.0)

    whole, blocks = saved_bytes_per_row(forward), []
    denoiser.enable_gradient_checkpointing(lambda block, *inputs: (blocks.append(block), block(*inputs))[1])
    forward(1)
    denoiser.enable_gradient_checkpointing()
    kept, block = saved_bytes_per_row(forward), recomputed_bytes_per_row(denoiser, forward)
    assert kept < whole / 3
    # what the checkpoints dropped comes back: if all blocks were equal, a share of it each
    assert (whole - kept) / len(blocks) <= block <= whole
    assert saved_bytes_per_row(forward) == kept  # checkpoints are on as before


def test_auto_counts_the_block_that_a_checkpoint_brings_back(models, tmp_path, monkeypatch):
    more = {"sampling_batch": None, "speed": {"memory_gb": 1e-3}, "gradient_checkpointing": True}
    config = configuration(tmp_path, models, "flow", 0.0, True, "auto", **more)
    monkeypatch.setattr(micro_batch, "saved_bytes_per_row", lambda forward: 10)
    monkeypatch.setattr(micro_batch, "recomputed_bytes_per_row", lambda denoiser, forward: 2**30 // 3000)
    assert trainer_of(config, tmp_path / "out").micro_batch <= 3


def test_auto_keeps_within_the_memory_and_says_when_nothing_fits(models, tmp_path):
    sizes = {}
    for memory in (2e-3, 2.0):
        speed = {"memory_gb": memory}
        config = configuration(tmp_path, models, "flow", 0.0, True, "auto", sampling_batch=None, speed=speed)
        sizes[memory] = trainer_of(config, tmp_path / "out").micro_batch
    assert 1 <= sizes[2e-3] < sizes[2.0] == 8
    speed = {"memory_gb": 1e-6}
    with pytest.raises(UserError, match="speed.memory_gb"):
        trainer_of(configuration(tmp_path, models, "flow", 0.0, True, "auto", speed=speed), tmp_path / "out")


def test_active_trajectories_are_those_before_a_step_prunes():
    assert Group(size=4, pruning=({"step": 2, "keep": 3}, {"step": 3, "keep": 2})).active(4) == [4, 4, 4, 3]


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_encoded_once_and_then_the_encoders_are_gone(models, tmp_path, monkeypatch, family):
    speed = {"text_cache": str(tmp_path / "texts")}
    plain = trainer_of(configuration(tmp_path, models, family, BETA, True, 4), tmp_path / "plain")
    expected = plain._sample()
    for attempt in ("encoded", "read"):
        trainer = trainer_of(configuration(tmp_path, models, family, BETA, True, 4, speed=speed), tmp_path / attempt)
        if attempt == "read":
            trainer.backbone.unconditional()
            monkeypatch.setattr(trainer.backbone, "_encode", lambda prompts: pytest.fail("encoded again"))
        trainer._encode_once()
        assert not list(trainer.backbone._text_encoders())
        samples = trainer._sample()
        torch.testing.assert_close(samples.text.embeddings, expected.text.embeddings, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(samples.rollout.states, expected.rollout.states, rtol=1e-3, atol=1e-3)
        assert trainer._update(samples).first_ratio_error == 0


def test_another_encoder_has_another_cache(models, tmp_path):
    backbone = trainer_of(configuration(tmp_path, models, "flow", 0.0, True, 4), tmp_path / "out").backbone
    before = encoder_hash(backbone)
    assert encoder_hash(backbone) == before
    backbone.model = backbone.model.model_copy(update={"max_sequence_length": 8})
    assert encoder_hash(backbone) != before


def test_a_spoilt_text_is_one_line(models, tmp_path):
    backbone = trainer_of(configuration(tmp_path, models, "flow", 0.0, True, 4), tmp_path / "out").backbone
    cache = TextCache(backbone, tmp_path / "texts")
    cache.fill(["a red circle"])
    next(cache.folder.iterdir()).write_bytes(b"torn")
    with pytest.raises(UserError, match="cannot be read"):
        cache.read(["a red circle"])


def test_adapters_take_activations_as_they_are(models, tmp_path, monkeypatch):
    """Under autocast peft's copy to float32 and back changes no bit."""
    from peft.tuners.tuners_utils import BaseTunerLayer  # never before progrpo

    trainer = trainer_of(configuration(tmp_path, models, "flow", 0.0, True, 4), tmp_path / "out")
    moved(trainer)
    backbone, outputs, casts = trainer.backbone, [], []
    backbone.dtype = torch.bfloat16
    cast = BaseTunerLayer._cast_input_dtype

    def counted(layer, x, dtype):
        result = cast(layer, x, dtype)
        casts.append(result.dtype != x.dtype)
        return result

    monkeypatch.setattr(BaseTunerLayer, "_cast_input_dtype", counted)
    layers = [module for module in backbone.denoiser.modules() if isinstance(module, BaseTunerLayer)]
    x = torch.randn(4, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    for enabled in (False, True):
        for layer in layers:
            assert enabled or not layer.cast_input_dtype_enabled
            layer.cast_input_dtype_enabled = enabled
        with torch.no_grad():
            outputs.append(backbone.predict(x, torch.tensor(500.0), backbone.encode(["a red circle"] * 4), 1.0))
        assert any(casts) == enabled
    assert torch.equal(*outputs)


def test_merged_adapters_are_the_adapters(models, tmp_path):
    """Survivors, their states and rewards, and the gradient, which the reference enters with its KL; the ratio stays exactly 1."""
    results = []
    for merged in (False, True):
        speed = {"merged_adapters": merged}
        trainer = trainer_of(configuration(tmp_path, models, "flow", BETA, True, 4, speed=speed), tmp_path / "out")
        moved(trainer)  # with B = 0 there would be nothing to merge
        products = []
        for module in trainer.backbone.denoiser.modules():
            if isinstance(module, torch.nn.Linear) and module.out_features == trainer.run.lora.rank:
                module.register_forward_hook(lambda *_, products=products: products.append(1))
        samples = trainer._sample()
        gradient, loss = accumulated(trainer, samples)
        results.append((samples.rollout, gradient, loss))
        assert bool(products) != merged
        assert trainer._update(samples).first_ratio_error == 0
    (beside, gradient, loss), (rollout, its_gradient, its_loss) = results
    assert torch.equal(rollout.trajectories, beside.trajectories)
    torch.testing.assert_close(rollout.states, beside.states, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(rollout.rewards, beside.rewards, rtol=1e-3, atol=1e-3)
    assert relative(its_gradient, gradient) < 1e-3
    assert its_loss == pytest.approx(loss, rel=1e-3, abs=1e-4)


def test_adapters_are_merged_in_float32_alone_and_where_there_are_some(models, tmp_path):
    config = configuration(tmp_path, models, "flow", 0.0, True, 4, speed={"merged_adapters": True})
    half = config.models["sd35m"].model_copy(update={"precision": "bf16"})
    with pytest.raises(UserError, match="needs precision fp32, not bf16"):
        Tuning(load_backbone(half, torch.device("cpu")), config.runs["run"].lora, False, merged=True)
    with pytest.raises(UserError, match="the run has no lora"):
        configuration(tmp_path, models, "diffusion", 0.0, True, 4, speed={"merged_adapters": True})


@pytest.mark.parametrize("family", FAMILIES)
def test_compiling_changes_no_number_beyond_rounding(models, tmp_path, monkeypatch, family):
    """With the compiler's tracing alone: its code generation takes a minute."""
    compile_module = torch.nn.Module.compile
    traced = []

    def trace(module, **options):
        traced.append(module)
        compile_module(module, backend="aot_eager", **options)

    monkeypatch.setattr(torch.nn.Module, "compile", trace)
    monkeypatch.setattr("shutil.which", lambda name: name)
    gradients = []
    for on in (False, True):
        config = configuration(tmp_path, models, family, BETA, False, 8, sampling_batch=None, speed={"compile": on})
        trainer = trainer_of(config, tmp_path / "out")
        gradients.append(accumulated(trainer, moved(trainer))[0])
    assert traced[0] is trainer.backbone.denoiser
    assert relative(gradients[1], gradients[0]) < 1e-3
    assert trainer._update(trainer._sample()).first_ratio_error == 0


def test_compiling_without_a_compiler_is_one_line(models, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match="speed.compile: needs a C"):
        trainer_of(configuration(tmp_path, models, "flow", 0.0, True, 4, speed={"compile": True}), tmp_path / "out")


def test_a_save_behind_the_training_is_what_was_handed_over(tmp_path, monkeypatch):
    store, begin = StateStore(tmp_path), threading.Event()
    save = store.save
    monkeypatch.setattr(store, "save", lambda *arguments: begin.wait(30) and save(*arguments))
    weights = torch.ones(3)
    copy = store.copied({"weights": weights, "step": 1})
    store.save_behind(1, copy)
    assert not list(tmp_path.glob("*.pt"))
    weights.zero_()
    threading.Timer(0.3, begin.set).start()
    again = store.copied({"weights": weights, "step": 2, "average": weights})  # waits for the writing
    step, state = store.load_latest()
    assert step == 1
    assert torch.equal(state["weights"], torch.ones(3))
    assert again["weights"].data_ptr() == copy["weights"].data_ptr() != weights.data_ptr()  # in the same memory
    assert again["average"].data_ptr() != again["weights"].data_ptr()
    assert again == {"weights": again["weights"], "step": 2, "average": again["average"]}
    assert not again["weights"].any()


def test_a_copy_of_another_shape_has_memory_of_its_own(tmp_path):
    store = StateStore(tmp_path)
    store.copied({"weights": torch.ones(3)})
    for other in (torch.ones(4), torch.ones(4, dtype=torch.float64)):
        copy = store.copied({"weights": other})["weights"]
        assert torch.equal(copy, other)
        assert copy.dtype == other.dtype


def test_a_save_that_fails_behind_the_training_ends_it(models, tmp_path, monkeypatch):
    trainer = trainer_of(configuration(tmp_path, models, "flow", 0.0, True, 4), tmp_path / "out")

    def full(*arguments):
        raise UserError("disk full")

    monkeypatch.setattr(trainer.store, "save", full)
    with pytest.raises(UserError, match="disk full"):
        trainer.train()
