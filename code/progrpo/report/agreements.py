"""Where the paper's printed numbers agree with each other, each computed: records as those of its discrepancies."""

from progrpo.analysis import gaussian
from progrpo.cost.flops import PUBLISHED, TABLE9_COST_RATIOS, TABLE9_COUNTS, Phases, call_counts, cost_ratio
from progrpo.paper_runs import DANCEGRPO_SD14, PROGRPO, PROGRPO_FLASH, PROGRPO_SD14
from progrpo.report.discrepancies import TABLE13, record


def agreements() -> list[dict]:
    """Checks of the same kind that come out well."""
    ratios = [
        (
            str(pair),
            cost_ratio(Phases(TABLE9_COUNTS, pair, 10)),
            f"{pair}: {cost_ratio(Phases(TABLE9_COUNTS, pair, 10)):.3f}",
        )
        for pair in TABLE9_COST_RATIOS
    ]
    base, pro = TABLE13[DANCEGRPO_SD14], TABLE13[PROGRPO_SD14]
    calls = [call_counts(PUBLISHED[name].phases) for name in (DANCEGRPO_SD14, PROGRPO_SD14)]
    vae, unet = (calls[1][key] / calls[0][key] for key in ("decoder", "total"))
    wall = [
        ("vae", pro[0] / base[0], f"VAE {pro[0] / base[0]:.2f}, cost model {vae:.2f}"),
        ("denoiser", pro[1] / base[1], f"U-Net {pro[1] / base[1]:.3f}, cost model {unet:.3f}"),
    ]
    region = [
        (name, step / PUBLISHED[name].phases.steps, f"{name}: t{k}/T = {step / PUBLISHED[name].phases.steps:.2f}")
        for name in (PROGRPO, PROGRPO_SD14)
        for k, step in enumerate(PUBLISHED[name].phases.pruning_steps, 1)
    ]
    return [
        record(
            "cost_ratio",
            "CostRatio of Table 9",
            ".450, .600, .675, .825",
            ratios,
            "Exact: sum of N_k dt_k over N_0 T, with t_i counted in completed steps.",
        ),
        record(
            "table9_variance",
            "Var of Table 9 against its Spearman column",
            ".0012, .0017, .0019, .0021",
            _copula_lines(),
            "A Gaussian copula with 48-24-12 explains all four rows with one reward variance; 24-16-12 would not.",
        ),
        record(
            "wall_clock_diffusion", "SD-v1.4 half of Table 13", "69.27 s to 61.71 s", wall, "Follows the call counts."
        ),
        record(
            "operating_region",
            "Operating region of appendix C",
            "t1 in [.5, .6] T, t2 in [.7, .8] T",
            region,
            "Both schedules lie inside.",
        ),
    ]


def _copula_lines() -> list[tuple[str, float, str]]:
    """The reward variance that each row of Table 9 implies, and how far apart the four were with Flash's counts."""
    found = [
        (str(row["pruning_steps"]), row["implied_reward_variance"], _copula_line(row))
        for row in gaussian.table9_implied_variance()
    ]
    rows = gaussian.table9_implied_variance(PUBLISHED[PROGRPO_FLASH].phases.counts)
    flash = [row["implied_reward_variance"] for row in rows]
    apart = max(flash) / min(flash)
    return [*found, ("flash", apart, f"with 24-16-12 the four would differ by {apart:.2f} times")]


def _copula_line(row: dict) -> str:
    quotient = f"{row['published_variance']:.4f} / {row['simulated_variance']:.2f}"
    return f"({', '.join(map(str, row['pruning_steps']))}): {quotient} = {row['implied_reward_variance']:.5f}"
