"""Where the paper's printed numbers and texts disagree with each other, each computed.

Only what a computation on the supplement's own figures shows is listed. Every claim is a record
{"id", "title", "printed", "computation": [lines], "reading", "values": {name: number}}.
"""

from progrpo.cost.flops import (
    PRINTED,
    PUBLISHED,
    TABLE9_COUNTS,
    Phases,
    call_counts,
    cost_ratio,
    printed_costs,
    prompt_tflop,
    run_tflop,
    solve_atomic_costs,
    solved_decode_and_reward,
)
from progrpo.paper_runs import DANCEGRPO_SD14, FLOWGRPO, PROGRPO, PROGRPO_FLASH, PROGRPO_SD14, SD14, SD35M

# Table 13, seconds per training iteration: (VAE, denoiser).
TABLE13 = {
    DANCEGRPO_SD14: (0.45, 68.82),
    PROGRPO_SD14: (2.48, 59.23),
    FLOWGRPO: (0.33, 16.96),
    PROGRPO: (0.60, 6.58),
}
# SD-v1.4: GPUs of the paper, prompts on each of them in Table 8 and in the public DanceGRPO configuration (batch_size 4).
GPUS_SD14, PRO_PROMPTS_PER_GPU, BASELINE_PROMPTS_PER_GPU = 8, 8, 4
PRO_RUNS = (PROGRPO, PROGRPO_FLASH, PROGRPO_SD14)
# Tables 5 and 6, SD-v1.4 on HPSv2.1 in domain: by G_max, and at pruning steps (30, 40), printed as "32 -> 8".
TABLE5_HPSV2, TABLE6_HPSV2 = {32: 0.386, 48: 0.391, 64: 0.393}, 0.391


def record(identifier, title, printed, rows, reading):
    """A claim of the page; `rows`: (name, value, computation as text)."""
    return {
        "id": identifier,
        "title": title,
        "printed": printed,
        "computation": [text for _, _, text in rows],
        "reading": reading,
        "values": {name: value for name, value, _ in rows},
    }


def speedup_labels() -> dict:
    """Tables 10 and 11 print 1 + relative reduction as a speedup."""
    rows = []
    for name in PRO_RUNS:
        run = PUBLISHED[name]
        base = PUBLISHED[run.baseline].tflop
        ratio, label = base / run.tflop, 2 - run.tflop / base
        text = f"{name}: {base:.2f} / {run.tflop:.2f} = {ratio:.3f}; 1 + relative reduction = {label:.3f}"
        rows.append((name, ratio, f"{text}; printed {run.label:.2f}"))
    return record(
        "speedup_labels",
        "The speedups are one plus the relative reduction",
        "Tables 10 and 11: speedups of 1.26, 1.41 and 1.09.",
        rows,
        "The ratios of the printed totals are larger than the labels; this repository reports both.",
    )


def preview_calls() -> dict:
    """The published totals do not hold the extra call for every active trajectory."""
    rows = []
    for name in PRO_RUNS:
        run = PUBLISHED[name]
        reuse = call_counts(run.phases, "reuse")["denoiser"]
        every = call_counts(run.phases, "recompute")["denoiser"]
        total = run_tflop(name, "equation_22_as_written", {})["total"]
        published = run_tflop(name, "published", {})["total"]
        text = (
            f"{name}: equation (22) as written, {every} sampling calls per prompt, {total:.2f} TFLOP "
            f"({100 * (total / run.tflop - 1):+.2f} %); survivors reuse the preview's call, {reuse} calls, "
            f"{published:.2f}; printed {run.tflop:.2f}"
        )
        rows.append((name, total / run.tflop - 1, text))
    return record(
        "preview_calls",
        "The extra denoiser call at a pruning step is charged to pruned trajectories only",
        "Equation (22) and its text: one additional evaluation on all active trajectories at each pruning step.",
        rows,
        "The totals of Tables 10 and 11 follow when survivors take their next step from the preview's network output.",
    )


def decode_and_reward() -> dict:
    """Table 10's totals hold another decode + reward cost than its printed rows."""
    printed = PRINTED[SD35M].decoder + PRINTED[SD35M].reward
    solved = solved_decode_and_reward()
    rows = [
        (
            "solved",
            solved,
            f"from all three totals {solved:.5f}, as (453474.18 / 96 - 1200 x 3.88) / 24; printed 2.49 + 0.34 = {printed:.2f}",
        )
    ]
    names = [name for name in PUBLISHED if PUBLISHED[name].backbone == SD35M]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        denoiser, image = solve_atomic_costs(names[first], names[second])
        text = f"solved from {names[first]} and {names[second]}: denoiser {denoiser:.5f}, decode + reward {image:.5f}"
        rows.append((f"{names[first]}+{names[second]}", image, text))
    return record(
        "decode_and_reward",
        "Table 10's totals hold a smaller decode + reward cost than its rows",
        "Table 10: VAE decoding 2.49, reward 0.34 TFLOP.",
        rows,
        "The three totals agree on one value, which the printed parts allow only at the lower end of their rounding "
        "(2.485 + 0.335); Table 11 uses its printed values.",
    )


def epoch_definition() -> dict:
    """The two tables' epochs hold 96 and 4 prompts."""
    rows = []
    for name in (FLOWGRPO, DANCEGRPO_SD14):
        run = PUBLISHED[name]
        per_prompt = run_tflop(name, "equation_22_as_written", {})["total"] / run.prompts
        count = run.tflop / per_prompt
        text = f"{name}: {run.tflop:.2f} / {per_prompt:.2f} TFLOP per prompt at printed costs = {count:.3f} prompts"
        rows.append((name, count, text))
    return record(
        "epoch_definition",
        "An epoch is 96 prompts in Table 10 and 4 in Table 11",
        'Both captions say "per-epoch"; Table 7 has 96 prompts per epoch, Table 8 has 8 prompts per batch.',
        rows,
        "Table 10 counts the whole cluster; Table 11 fits the baseline's 4 prompts of one GPU. Ratios are unaffected.",
    )


def reference_model() -> dict:
    """Without the reference the SD-v1.4 saving changes sign."""
    rows = []
    printed = PRINTED[SD14]
    for passes in (4, 3):
        costs = []
        for name in (DANCEGRPO_SD14, PROGRPO_SD14):
            calls, phases = call_counts(PUBLISHED[name].phases), PUBLISHED[name].phases
            update = passes * phases.steps * phases.counts[-1]
            images = calls["decoder"] * (printed.decoder + printed.reward)
            costs.append((calls["denoiser"] + update) * printed.denoiser + images)
        change = costs[1] / costs[0] - 1
        text = (
            f"{passes} calls per trained step: {costs[0]:.2f} -> {costs[1]:.2f} TFLOP per prompt, {100 * change:+.2f} %"
        )
        rows.append((f"passes_{passes}", change, text))
    return record(
        "reference_model",
        "SD-v1.4 is charged for a reference model that its baseline does not have",
        "Equation (21) assumes a KL-regularised objective, four calls per trained step; Table 8 lists no KL term, and "
        "the public DanceGRPO configuration for Stable Diffusion has none.",
        rows,
        "With three calls (policy forward and backward) Pro-GRPO's schedule costs about as much as the baseline.",
    )


def prompts_per_batch() -> dict:
    """Table 8 read as 64 prompts per iteration makes Pro-GRPO dearer than its baseline."""
    calls = {name: call_counts(PUBLISHED[name].phases)["total"] for name in (DANCEGRPO_SD14, PROGRPO_SD14)}
    rows = []
    for per_gpu in (PRO_PROMPTS_PER_GPU, BASELINE_PROMPTS_PER_GPU):
        prompts = GPUS_SD14 * per_gpu, GPUS_SD14 * BASELINE_PROMPTS_PER_GPU
        totals = prompts[0] * calls[PROGRPO_SD14], prompts[1] * calls[DANCEGRPO_SD14]
        ratio = totals[0] / totals[1]
        text = (
            f"{per_gpu} prompts on each of {GPUS_SD14} GPUs: {prompts[0]} x {calls[PROGRPO_SD14]} = {totals[0]} calls per"
            f" iteration; baseline {prompts[1]} x {calls[DANCEGRPO_SD14]} = {totals[1]}; ratio {ratio:.2f}"
        )
        rows.append((f"prompts_{prompts[0]}", ratio, text))
    return record(
        "prompts_per_batch",
        "Table 8 doubles the prompts, and with them the calls",
        "Table 8: 8 prompts per batch, where the public baseline has 4 on each of 8 GPUs; appendix D: compute falls.",
        rows,
        "Read as 64 prompts per iteration Pro-GRPO makes 1.74 times the baseline's calls; the compute of Table 11 falls only with "
        "the baseline's own number of prompts.",
    )


def trained_steps() -> dict:
    """The baselines train T - 1 steps, the cost model T."""
    rows = []
    for name in PUBLISHED:
        phases = PUBLISHED[name].phases
        counted = call_counts(phases)["update"]
        executed = counted * (phases.steps - 1) // phases.steps
        text = f"{name}: {counted} update calls per prompt counted, {executed} with T - 1 = {phases.steps - 1} steps"
        rows.append((name, executed / counted, text))
    return record(
        "trained_steps",
        "The cost model trains all T steps",
        "Equation (21): N T 4 C_unet; the public code of both baselines trains 9 of 10 and 49 of 50 steps.",
        rows,
        "The update is overstated by 11 % on SD3.5-M and 2 % on SD-v1.4, for all methods alike.",
    )


def attention(measured: dict[str, dict[str, float]]) -> dict:
    """The printed denoiser costs leave out attention's matrix products."""
    rows = []
    for backbone, printed in PRINTED.items():
        without, full = (measured[backbone][f"denoiser{suffix}"] for suffix in ("_without_attention", ""))
        text = f"{backbone}: printed {printed.denoiser}; measured {without:.3f} without and {full:.3f} with attention"
        rows.append((backbone, full / without - 1, f"{text} ({100 * (full / without - 1):+.1f} %)"))
    return record(
        "attention",
        "The denoiser costs leave out the matrix products of attention",
        "Tables 10 and 11: noise prediction 3.88 and 1.36 TFLOP per call.",
        rows,
        "Both printed costs match a guided pair counted without attention; the real cost of a call is higher.",
    )


def group_size() -> dict:
    """N is G_max in the text but the baseline's own group in the totals."""
    rows = []
    for name in (FLOWGRPO, DANCEGRPO_SD14):
        run = PUBLISHED[name]
        wide = Phases((48,), (), run.phases.steps)
        factor = call_counts(wide)["total"] / call_counts(run.phases)["total"]
        counts = f"the total holds N = {run.phases.counts[0]}"
        text = f"{name}: {counts}; with G_max = 48 it would be {factor:.0f} times as large"
        rows.append((name, factor, text))
    pair = (5, 7)
    relative = cost_ratio(Phases(TABLE9_COUNTS, pair, 10)) * TABLE9_COUNTS[0] / 24
    text = f"Table 9's CostRatio .675 at {pair} is relative to 48 unpruned trajectories"
    rows.append(("cost_ratio_to_baseline", relative, f"{text}; to the baseline's 24 it is {relative:.2f}"))
    return record(
        "group_size",
        "N is called G_max, but is the baseline's own group",
        'Appendix D: "Let N be the initial group size (G_max)", used in equations (21) and (22).',
        rows,
        "The comparison is with the public baselines' groups of 24 and 16; with G_max = 48, sampling alone costs more than theirs.",
    )


def wall_clock_flow() -> dict:
    """Table 13's flow timings fit no schedule of Table 7."""
    base, pro = TABLE13[FLOWGRPO], TABLE13[PROGRPO]
    baseline = call_counts(PUBLISHED[FLOWGRPO].phases)
    wide = call_counts(Phases((48,), (), 10))
    rows = [
        ("total", sum(base) / sum(pro), f"total {sum(base):.2f} / {sum(pro):.2f} s = {sum(base) / sum(pro):.2f} times"),
        ("vae", pro[0] / base[0], f"VAE {pro[0]:.2f} / {base[0]:.2f} = {pro[0] / base[0]:.2f}"),
        ("denoiser", pro[1] / base[1], f"denoiser {pro[1]:.2f} / {base[1]:.2f} = {pro[1] / base[1]:.3f}"),
    ]
    for name in (PROGRPO, PROGRPO_FLASH):
        calls = call_counts(PUBLISHED[name].phases)
        for label, reference in (("24", baseline), ("48", wide)):
            decodes, total = calls["decoder"] / reference["decoder"], calls["total"] / reference["total"]
            text = f"cost model, {name} against a baseline of G = {label}: VAE {decodes:.2f}, denoiser {total:.3f}"
            rows.append((f"{name}_against_{label}", total, text))
    return record(
        "wall_clock_flow",
        "The SD3.5-M wall clock does not follow the cost model",
        "Table 13: 17.29 s to 7.18 s; appendix D.4 calls the timings consistent with D.3.",
        rows,
        "The printed ratios come closest to a baseline of 48 trajectories; the SD-v1.4 half follows the model (below).",
    )


def savings_by_schedule() -> dict:
    """The larger saving of SD3.5-M comes from its schedule more than from its denoiser."""
    rows = []
    for pro, other in ((PROGRPO, SD14), (PROGRPO_SD14, SD35M)):
        run, base = PUBLISHED[pro], PUBLISHED[PUBLISHED[pro].baseline]
        shares = []
        for backbone in (run.backbone, other):
            costs = printed_costs(backbone, solved=False)
            totals = [prompt_tflop(one.phases, costs, "reuse", one.phases.steps)["total"] for one in (run, base)]
            shares.append(1 - totals[0] / totals[1])
        calls = [call_counts(one.phases)["total"] for one in (run, base)]
        text = (
            f"{pro}: {calls[0]} of {calls[1]} calls save {100 * (1 - calls[0] / calls[1]):.0f} % of the denoiser alone; with "
            f"decoder and reward at its own printed costs {100 * shares[0]:.1f} %, at those of {other} {100 * shares[1]:.1f} %"
        )
        rows.append((pro, shares[1], text))
    return record(
        "savings_by_schedule",
        "SD3.5-M saves more because of its schedule, not only of its denoiser",
        "Section D.3 explains the saving of 26 %, against 9 % on SD-v1.4, by the cost of SD3.5-M's denoiser.",
        rows,
        "With the costs exchanged, SD3.5-M's schedule still saves more: the schedules differ, not only the models.",
    )


def middle_group() -> dict:
    """Table 6's path does not begin at its own G_max."""
    rows = [
        (
            "best",
            TABLE6_HPSV2,
            f"Table 6 at (30, 40): {TABLE6_HPSV2:.3f}, noted as 32 -> 8; Table 5: {TABLE5_HPSV2[32]:.3f} at G_max = 32, "
            f"{TABLE5_HPSV2[48]:.3f} at 48; Table 8: 48 -> 32 -> 8",
        )
    ]
    return record(
        "middle_group",
        "Table 6 names a smaller group than the one it was measured with",
        'Table 6, by public reading notes: its path is given as "32 -> 8".',
        rows,
        "Its best value is Table 5's of G_max = 48: read as 48 -> 32 -> 8, as the runs of `config/paper.yaml` are.",
    )


def survivors_share() -> dict:
    """N_2 << N against Flash's 12 of 24."""
    rows = []
    for name in PRO_RUNS:
        counts = PUBLISHED[name].phases.counts
        baseline = PUBLISHED[PUBLISHED[name].baseline].phases.counts[0]
        text = f"{name}: K / G_max = {counts[-1]} / {counts[0]} = {counts[-1] / counts[0]:.3f}; K / baseline group = "
        rows.append((name, counts[-1] / counts[0], f"{text}{counts[-1]} / {baseline} = {counts[-1] / baseline:.3f}"))
    return record(
        "survivors_share",
        "Half of the baseline's group is trained on in every schedule",
        "Appendix D.2: only N_2 << N survivors enter the update; A.3 and D.5 speak of expansion.",
        rows,
        "Flash starts from the baseline's own group of 24, so its gain in reward is not one of expansion. The smaller "
        "update accounts for most or all of each saving.",
    )


def discrepancies(measured: dict[str, dict[str, float]]) -> list[dict]:
    """All discrepancies, in the order of the page; `measured` is `atomic_costs.measure()`."""
    return [
        speedup_labels(),
        preview_calls(),
        decode_and_reward(),
        epoch_definition(),
        reference_model(),
        prompts_per_batch(),
        trained_steps(),
        attention(measured),
        group_size(),
        wall_clock_flow(),
        savings_by_schedule(),
        middle_group(),
        survivors_share(),
    ]
