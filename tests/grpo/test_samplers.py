"""The two samplers against reference numbers, against diffusers, and against what a sampler must be."""

import math
from pathlib import Path

import numpy as np
import official_schedules
import pytest
import torch

from progrpo.grpo.objective import step_kl
from progrpo.grpo.samplers import (
    ddim_table,
    flow_sde_table,
    log_prob,
    preview,
    step_mean,
    step_sample,
)

ALPHAS = official_schedules.alphas_cumprod()
TABLES = {
    "flow": official_schedules.flow(10, 0.7),
    "flow ODE": official_schedules.flow(10, 0.0),
    "ddim": official_schedules.ddim(50, 1.0),
    "ddim ODE": official_schedules.ddim(50, 0.0),
}
STOCHASTIC = ("flow", "ddim")
GOLDEN = Path(__file__).parents[1] / "data" / "golden"


def arrays(path):
    with np.load(path) as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file}


def states(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3)]


def assert_close(actual, expected, atol, rtol=0.0):
    torch.testing.assert_close(actual, expected.to(actual.dtype), atol=atol, rtol=rtol)


# Reference numbers, measured with the public implementations of both baselines: tests/data/golden/README.md.


@pytest.mark.parametrize("steps", [10, 28, 40])
def test_flow_schedule_is_the_reference(steps):
    golden = arrays(GOLDEN / "flow_schedule_shift3.npz")
    assert_close(official_schedules.flow_sigmas(steps), golden[f"T{steps}_sigmas"], atol=6e-8)  # both are float32
    assert_close(official_schedules.flow(steps, 0.7).timesteps, golden[f"T{steps}_timesteps"], atol=6e-5)


def test_flow_steps_are_the_reference():
    golden = arrays(GOLDEN / "flow_sde_step.npz")
    table = flow_sde_table(golden["sigmas"], 0.7)
    assert_close(table.kl_std, golden["a0.7_std_dev_t"], atol=1e-12)
    for i in range(table.steps):
        x, m, noise = golden["sample"][i], golden["model_output"][i], golden["noise"][i]
        output_new = golden["model_output_new"][i].requires_grad_()
        mean, mean_new = step_mean(table, i, x, m), step_mean(table, i, x, output_new)
        mean_ref = step_mean(table, i, x, golden["model_output_ref"][i])
        x_next = step_sample(table, i, mean, noise)
        log_prob_new = log_prob(table, i, x_next, mean_new)
        log_prob_new.sum().backward()
        assert_close(mean, golden["a0.7_prev_sample_mean"][i], atol=1e-12)
        assert_close(x_next, golden["a0.7_prev_sample"][i], atol=1e-12)
        assert_close(log_prob(table, i, x_next, mean), golden["a0.7_log_prob"][i], atol=5e-8)
        assert_close(log_prob_new, golden["a0.7_log_prob_new"][i], atol=5e-8)
        assert_close(output_new.grad, golden["a0.7_grad_model_output_new"][i], atol=1e-15, rtol=1e-9)
        assert_close(step_kl(table, i, mean_new, mean_ref, "code"), golden["a0.7_kl_code"][i], atol=1e-15, rtol=1e-9)
        assert_close(
            step_kl(table, i, mean_new, mean_ref, "paper"), golden["a0.7_kl_with_dt"][i], atol=1e-15, rtol=1e-9
        )
        euler = step_mean(flow_sde_table(golden["sigmas"], 0.0), i, x, m)
        assert_close(euler, golden["a0_prev_sample"][i], atol=1e-12)


def test_ddim_schedule_is_the_reference():
    golden = arrays(GOLDEN / "ddim_schedule_sd14.npz")
    assert torch.equal(TABLES["ddim"].timesteps.long(), golden["timesteps_T50"])
    assert_close(ALPHAS, golden["alphas_cumprod_f64"], atol=1e-6)
    assert_close(ALPHAS, golden["alphas_cumprod_f32"], atol=1e-6)


@pytest.mark.parametrize("eta", [1.0, 0.0])
def test_ddim_steps_are_the_reference(eta):
    golden = arrays(GOLDEN / "ddim_step.npz")
    alphas = arrays(GOLDEN / "ddim_schedule_sd14.npz")["alphas_cumprod_f32"]
    table = ddim_table(alphas, golden["timesteps"], eta)
    for i in range(table.steps):
        x, noise = golden["sample"][i], golden["noise"][i]
        mean = step_mean(table, i, x, golden["model_output"][i])
        x_next = step_sample(table, i, mean, noise)
        assert_close(x_next, golden[f"epsilon_eta{eta}_prev_sample"][i], atol=1e-12)
        if eta > 0:
            output_new = golden["model_output_new"][i].requires_grad_()
            log_prob_new = log_prob(table, i, x_next, step_mean(table, i, x, output_new))
            log_prob_new.sum().backward()
            assert_close(log_prob(table, i, x_next, mean), golden["epsilon_eta1.0_log_prob"][i], atol=5e-8)
            assert_close(log_prob_new, golden["epsilon_eta1.0_log_prob_new"][i], atol=5e-8)
            assert_close(output_new.grad, golden["epsilon_eta1.0_grad_model_output_new"][i], atol=1e-15, rtol=1e-9)


# Numbers of Flow-GRPO's and DDPO's step functions, measured on the public code.


def test_standard_deviations_of_the_flow_steps():
    table = TABLES["flow"]
    transition = torch.tensor([0.7, 0.74296, 0.53615, 0.4459, 0.39179, 0.3528, 0.31907, 0.28201, 0.22536, 0.00628])
    assert_close(table.std, transition, 5e-6)
    published = torch.tensor([3.5057, 3.4351, 2.2726, 1.7185, 1.3592, 1.0881, 0.8612, 0.6524, 0.4344, 0.0664])
    assert_close(table.kl_std, published, 5e-5)
    assert_close(table.timesteps[[5, 7]] / 1000, torch.tensor([0.7073, 0.4649]), 5e-5)  # the pruning steps of SD3.5-M


def test_standard_deviations_of_the_ddim_steps():
    table = TABLES["ddim"]
    rows = [table.timesteps.tolist().index(t) for t in (981, 781, 581, 381, 181, 81, 41, 21, 1)]
    published = torch.tensor([0.4545, 0.3908, 0.3229, 0.2518, 0.1771, 0.1323, 0.0999, 0.0395, 0.02065])
    assert_close(table.std[rows], published, 5e-5)
    assert table.timesteps[[30, 40]].tolist() == [381, 181]  # the pruning steps of SD-v1.4
    assert_close(ALPHAS[[381, 181]], torch.tensor([0.4552, 0.7827]), 5e-5)


# diffusers, an independent implementation of the deterministic steps and of DDIM's noise.


def test_flow_without_noise_is_diffusers_euler_step():
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(10)
    table = TABLES["flow ODE"]
    for i, t in enumerate(scheduler.timesteps):
        x, m, noise = states(2, 3, 4, 4, dtype=torch.float32, seed=i)
        assert_close(table.timesteps[i], t, atol=6e-5)
        expected = scheduler.step(m, t, x).prev_sample
        assert_close(step_sample(table, i, step_mean(table, i, x, m), noise), expected, atol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("steps", [20, 50])
def test_ddim_is_diffusers_ddim_step(steps, eta):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(**official_schedules.SD14, clip_sample=False)
    scheduler.set_timesteps(steps)
    table = official_schedules.ddim(steps, eta)
    assert torch.equal(scheduler.timesteps, table.timesteps.long())
    for i, t in enumerate(scheduler.timesteps):
        x, m, noise = states(2, 3, 4, 4, seed=i)
        expected = scheduler.step(m, t, x, eta=eta, variance_noise=noise)
        assert_close(step_sample(table, i, step_mean(table, i, x, m), noise), expected.prev_sample, atol=1e-5)
        assert_close(preview(table, i, x, m), expected.pred_original_sample, atol=3e-5)


# What must hold of any such sampler.


def variance_after(table, variance, response):
    """Exact variance of a Gaussian state after all steps when the model is linear, m = response(i) x."""
    for i in range(table.steps):
        gain = table.mean_x[i] + table.mean_m[i] * response(i)
        variance = gain**2 * variance + table.std[i] ** 2
    return variance.item()


@pytest.mark.parametrize("noise_level", [0.0, 0.7])
def test_flow_carries_noise_to_the_data_distribution(noise_level):
    """With the exact velocity of data N(0, .25) every noise level ends at variance .25, up to O(h)."""
    data = 0.25

    def error(steps):
        sigmas = torch.linspace(0.98, 0, steps + 1, dtype=torch.float64)

        def velocity(i):  # E[noise - data | x] / x
            s = sigmas[i]
            return (s - (1 - s) * data) / ((1 - s) ** 2 * data + s**2)

        start = (1 - sigmas[0]) ** 2 * data + sigmas[0] ** 2
        return abs(variance_after(flow_sde_table(sigmas, noise_level), start, velocity) - data)

    assert error(1000) < 0.01 * data
    assert error(1000) < 0.6 * error(500)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_carries_noise_to_the_data_distribution(eta):
    finer = {"num_train_timesteps": 10_000, "beta_start": 0.000085, "beta_end": 0.0012}  # ten times as fine
    data, fine = 0.25, official_schedules.alphas_cumprod(**finer)

    def error(steps):
        table = official_schedules.ddim(steps, eta, **finer)
        timesteps = table.timesteps.long()

        def epsilon(i):  # E[noise | x] / x
            a = fine[timesteps[i]]
            return torch.sqrt(1 - a) / (a * data + 1 - a)

        start, end = (fine[t] * data + 1 - fine[t] for t in (timesteps[0], 0))
        return abs(variance_after(table, start, epsilon) - end.item())

    assert error(2500) < 0.01 * data
    assert error(2500) < 0.6 * error(1250)


@pytest.mark.parametrize("family", TABLES)
def test_the_preview_inverts_the_noising(family):
    table = TABLES[family]
    data, noise, _ = states(2, 3, 4, 4)
    for i in range(table.steps):
        t = table.timesteps[i]
        if family.startswith("flow"):
            x, m = (1 - t / 1000) * data + t / 1000 * noise, noise - data
        else:
            a = ALPHAS[t.long()]
            x, m = torch.sqrt(a) * data + torch.sqrt(1 - a) * noise, noise
        assert_close(preview(table, i, x, m), data, atol=1e-12)


def test_the_last_deterministic_step_is_the_preview():
    x, m, _ = states(2, 3, 4, 4)
    flow = TABLES["flow ODE"]
    assert_close(step_mean(flow, 9, x, m), preview(flow, 9, x, m), atol=1e-15)
    clean_end = ALPHAS.clone()
    clean_end[0] = 1  # the public DDIM steps end at alphas_cumprod[0], short of the clean image
    ddim = ddim_table(clean_end, TABLES["ddim ODE"].timesteps.long(), 0.0)
    assert_close(step_mean(ddim, 49, x, m), preview(ddim, 49, x, m), atol=1e-15)


@pytest.mark.parametrize("family", STOCHASTIC)
def test_log_prob_is_the_mean_normal_density(family):
    table = TABLES[family]
    for i in (0, table.steps // 2, table.steps - 1):
        x_next, mean, _ = states(3, 2, 4, 4, seed=i)
        expected = torch.distributions.Normal(mean, table.std[i]).log_prob(x_next).mean(dim=(1, 2, 3))
        assert_close(log_prob(table, i, x_next, mean), expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("family", STOCHASTIC)
def test_gradients_agree_with_finite_differences(family):
    table = TABLES[family]
    x, m, noise = states(2, 2, 3, 3)
    for i in (0, table.steps - 2):
        x_next = step_sample(table, i, step_mean(table, i, x, m), noise)

        def density(output, i=i, x_next=x_next):
            return log_prob(table, i, x_next, step_mean(table, i, x, output))

        assert torch.autograd.gradcheck(density, (m + 0.01).requires_grad_())


def test_no_gradient_flows_to_the_sampled_state():
    x, m, noise = states(2, 2, 3, 3)
    mean = step_mean(TABLES["flow"], 3, x, m.requires_grad_())
    x_next = step_sample(TABLES["flow"], 3, mean, noise)  # still attached to m
    log_prob(TABLES["flow"], 3, x_next, mean).sum().backward()
    attached = m.grad
    m.grad = None
    log_prob(TABLES["flow"], 3, x_next.detach(), step_mean(TABLES["flow"], 3, x, m)).sum().backward()
    assert torch.equal(attached, m.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", STOCHASTIC)
def test_a_step_for_each_row_is_the_scalar_step_bit_for_bit(family, dtype):
    table = TABLES[family].to(dtype=dtype)
    x, m, noise = states(5, 3, 4, 4, dtype=dtype)
    rows = torch.tensor([0, 7, 3, 3, 9])
    mean = step_mean(table, rows, x, m)
    x_next = step_sample(table, rows, mean, noise)
    assert mean.dtype == x_next.dtype == dtype
    for row, i in enumerate(rows.tolist()):
        one = slice(row, row + 1)
        alone = step_mean(table, i, x[one], m[one])
        assert torch.equal(mean[one], alone)
        assert torch.equal(x_next[one], step_sample(table, i, alone, noise[one]))
        assert torch.equal(preview(table, rows, x, m)[one], preview(table, i, x[one], m[one]))
        assert torch.equal(log_prob(table, rows, x_next, mean)[one], log_prob(table, i, x_next[one], alone))
        for form in ("code", "paper"):
            kl, kl_alone = step_kl(table, rows, mean, x, form)[one], step_kl(table, i, alone, x[one], form)
            assert torch.equal(kl, kl_alone)


def test_an_unchanged_policy_has_ratio_exactly_one():
    """Re-scoring a stored float32 state gives its log-probability bit for bit, low noise included."""
    for family in STOCHASTIC:
        table = TABLES[family].to(dtype=torch.float32)
        for i in range(table.steps):
            x, m, noise = states(4, 4, 8, 8, dtype=torch.float32, seed=i)
            mean = step_mean(table, i, x, m)
            x_next = step_sample(table, i, mean, noise)
            old = log_prob(table, i, x_next, mean)
            stored = x_next.clone()
            assert torch.equal(log_prob(table, i, stored, step_mean(table, i, x.clone(), m.clone())), old)


def test_states_stay_in_full_precision():
    x, m, noise = states(2, 3, 4, 4, dtype=torch.float32)
    table = TABLES["flow"]
    mean = step_mean(table, 3, x, m.bfloat16())
    assert torch.equal(mean, step_mean(table, 3, x, m.bfloat16().float()))
    assert mean.dtype == step_sample(table, 3, mean, noise.half()).dtype == torch.float32
    with pytest.raises(TypeError, match="bfloat16"):
        step_mean(table, 3, x.bfloat16(), m)
    with pytest.raises(ValueError, match="float16"):
        table.to(dtype=torch.float16)


def run_every_function(table, device, i):
    x, m, noise = (state.to(device) for state in states(2, 3, 4, 4, dtype=torch.float32))
    mean = step_mean(table, i, x, m)
    x_next = step_sample(table, i, mean, noise)
    return preview(table, i, x, m), log_prob(table, i, x_next, mean), step_kl(table, i, mean, x)


@pytest.mark.parametrize("family", STOCHASTIC)
def test_no_step_reads_a_value_on_the_host(family):
    """On the meta device tensors have no values, so that any `.item()` or branch on a tensor would raise."""
    table = TABLES[family].to(device="meta", dtype=torch.float32)
    for i in (4, torch.tensor([4, 5], device="meta")):
        image, density, kl = run_every_function(table, "meta", i)
        assert image.shape == (2, 3, 4, 4)
        assert density.shape == kl.shape == (2,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_no_step_waits_for_the_device():
    table = TABLES["flow"].to(device="cuda", dtype=torch.float32)
    rows = torch.tensor([4, 5], device="cuda")
    x, m, noise = (state.cuda() for state in states(2, 3, 4, 4, dtype=torch.float32))
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError):
            noise.sum().item()  # a wait is an error in this mode
        for i in (4, rows):
            mean = step_mean(table, i, x, m)
            log_prob(table, i, step_sample(table, i, mean, noise), mean)
            preview(table, i, x, m)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_only_the_denominator_of_the_first_step_is_patched():
    table = TABLES["flow"]
    clean = 1 - official_schedules.flow_sigmas(10)[1].item()
    assert table.kl_std[0].item() == pytest.approx(0.7 * math.sqrt(1 / clean), rel=1e-14)
    assert table.kl_std[1].item() == pytest.approx(0.7 * math.sqrt((1 - clean) / clean), rel=1e-14)


@pytest.mark.parametrize("shift", [0.4, 0.58, 1.0, 3.0, 12.34])  # the first two not exactly, in float32
def test_every_shift_begins_at_one(shift):
    table = official_schedules.flow(8, 0.7, shift)
    assert table.timesteps[0].item() == pytest.approx(1000, rel=1e-6)
    assert table.std[0].item() == pytest.approx(0.7, rel=1e-6)  # a sqrt(h / (1 - sigma_1)) with h = 1 - sigma_1
    assert table.std.isfinite().all()


@pytest.mark.parametrize("family", ["flow ODE", "ddim ODE"])
def test_deterministic_steps_add_nothing_and_have_no_density(family):
    table = TABLES[family]
    mean, noise, other = states(2, 3, 4, 4)
    assert torch.equal(step_sample(table, 3, mean, noise), mean)
    with pytest.raises(ValueError, match="deterministic"):
        log_prob(table, 3, other, mean)
    with pytest.raises(ValueError, match="deterministic"):
        step_kl(table, 3, mean, other)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: flow_sde_table(torch.tensor([0.0, 1.0]), 0.7), "decreasing"),
        (lambda: flow_sde_table(torch.tensor([1.0]), 0.7), "at least 2"),
        (lambda: flow_sde_table(torch.tensor([1000.0, 0.0]), 0.7), "1 >= sigmas"),
        (lambda: official_schedules.flow(4, -0.1), "noise_level"),
        (lambda: official_schedules.flow(4, math.nan), "noise_level"),
        (lambda: official_schedules.ddim(1000, 1.0), r"1\.\.999"),  # the offset of 1 puts the first at 1000
        (lambda: official_schedules.ddim(10, 1.5), "eta"),
        (lambda: ddim_table(ALPHAS, torch.tensor([1000, 0]), 1.0), r"1\.\.999"),
    ],
)
def test_impossible_schedules_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("i", [-1, 10])
def test_a_step_out_of_range_is_named(i):
    with pytest.raises(IndexError, match=rf"step {i} is outside 0\.\.9"):
        step_mean(TABLES["flow"], i, *states(1, 2)[:2])
