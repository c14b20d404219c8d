"""The mutants of `make mutants`: one changed text each, and the tests that must notice it.

A mutant that no test can notice, because the changed code computes the same, says why in `judged`; at most 3 % may.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """In `file`, `old` becomes `new`; `tests` are arguments of pytest."""

    file: str
    tests: str
    old: str
    new: str
    judged: str = ""

    def applied_to(self, text: str) -> str:
        """The file's text with the change; ValueError when `old` does not stand there exactly once."""
        if (found := text.count(self.old)) != 1:
            raise ValueError(f"{self.file}: {self.old!r} occurs {found} times, not once")
        return text.replace(self.old, self.new)

    def __str__(self) -> str:
        return f"{self.file}: {' '.join(self.old.split())} -> {' '.join(self.new.split()) or 'nothing'}"


def _of(file: str, tests: str, *changes: tuple[str, ...]) -> list[Mutant]:
    return [Mutant(f"code/progrpo/{file}", tests, *change) for change in changes]


GRADIENT = "tests/grpo/test_gradient.py"
UPDATE = "tests/grpo/test_update.py"

TRAINER = [
    *_of(
        "grpo/trainer.py",
        f"{UPDATE} -k _that_",
        ("if self.accelerator.scaler and not norm.isfinite():", "if False and not norm.isfinite():"),
        ("self.updates >= self.average.config.every", "self.updates >= 0"),
    ),
    *_of(
        "grpo/trainer.py",
        f"{GRADIENT} -k whole_loss",
        ("            samples.advantages[pairs.rows][:count]", "            -samples.advantages[pairs.rows][:count]"),
        ("loss + settings.kl_beta * kl", "loss - settings.kl_beta * kl"),
        ("loss + settings.kl_beta * kl", "loss + kl"),
        ("(loss * samples.counted[pairs.rows][:count]).sum()", "loss.sum()"),
        ("* samples.counted[pairs.rows][:count]).sum() / total)", "* samples.counted[pairs.rows][:count]).sum())"),
        (
            "pairs, self.model, settings.unconditional_gradient)",
            "pairs, self.model, True)",
        ),
        (
            "pairs, self.model, settings.unconditional_gradient)",
            "pairs, self.model)",
        ),
        (
            "return log_prob(self.table, pairs.steps,",
            "return log_prob(self.table, (pairs.steps - 1).clamp(min=0),",
        ),
        ("mean_ref = self._mean(samples, pairs, reference)", "mean_ref = self._mean(samples, pairs, None)"),
        ("self.prompts[stream[position]] for", "self.prompts[position] for"),
        ("self.run.sampling.guidance_scale,\n            denoiser", "1.0,\n            denoiser"),
    ),
    *_of(
        "grpo/trainer.py",
        f"{UPDATE} -k all_samples_once",
        (
            "self._accumulate(samples, update * size, size, statistics)",
            "self._accumulate(samples, 0, size, statistics)",
        ),
    ),
    *_of(
        "grpo/trainer.py",
        f"{UPDATE} -k clips_its_own",
        ("prompts), self.run.sampling.guidance_scale", "prompts), 1.0"),
        ("self.run.optimizer.max_grad_norm)", "1.0)"),
        (
            "            self.optimizer.zero_grad(set_to_none=True)\n            norm = whole(",
            "            norm = whole(",
        ),
    ),
    *_of(
        "grpo/trainer.py",
        f"{UPDATE} -k global_step",
        (
            "self.average.update(self.tuning.parameters, self.updates)",
            "self.average.update(self.tuning.parameters, self.updates + 1)",
        ),
        (
            "self.average.update(self.tuning.parameters, self.updates)",
            "self.average.update(self.tuning.parameters, update)",
        ),
        (
            "copy_into(self.tuning.parameters, average.values)",
            "copy_into(self.average.values, self.tuning.parameters)",
        ),
    ),
    *_of(
        "grpo/trainer.py",
        f"{UPDATE} -k advantages_are",
        ("std=settings.advantage_std", 'std="group"'),
        ("unbiased=settings.advantage_unbiased", "unbiased=False"),
        ("eps=settings.advantage_epsilon", "eps=1e-4"),
        ("clamp=settings.advantage_clamp", "clamp=None"),
    ),
    *_of(
        "grpo/trainer.py",
        "tests/grpo/test_speed.py -k scoring_again",
        ("with self._gradients_apart():\n                    mean", "with torch.no_grad():\n                    mean"),
        (
            "old[meant] = self._log_prob(samples, pairs, mean)[: pairs.count]",
            "old[pairs.rows, pairs.steps] = self._log_prob(samples, pairs, mean)",
        ),
    ),
    *_of(
        "grpo/trainer.py",
        f"{UPDATE} -k snapshots_state",
        ("self.store.finish()  # its state", "pass  # its state"),
    ),
    *_of(
        "grpo/trainer.py",
        "tests/jobs/test_ranks.py -k same_update",
        ("population=self.accelerator.gather(rewards)", "population=rewards"),
    ),
    *_of(
        "grpo/tuning.py",
        f"{UPDATE} -k optimizer_is",
        ("betas=settings.betas,", ""),
        ("weight_decay=settings.weight_decay,", ""),
    ),
    *_of(
        "grpo/trainer.py",
        f"{UPDATE} -k noise_is_new",
        ("self.seed, self.iteration, list(owned)", "self.seed, 0, list(owned)"),
        ("self.seed, self.iteration, list(owned)", "0, self.iteration, list(owned)"),
        ("backbone.latent_shape, run.sampling.shared_initial_noise", "backbone.latent_shape"),
    ),
    *_of(
        "grpo/training_state.py",
        f"{UPDATE} -k whole_state",
        ('state["updates"], state["rescoring"]', '0, state["rescoring"]'),
        ('state["updates"], state["rescoring"]', 'state["updates"], False'),
        (
            'copy_into(trainer.average.values, state["average"])',
            'copy_into(trainer.average.values, state["parameters"])',
        ),
        (
            'trainer.optimizer.load_state_dict(_spread(state["optimizer"] | {"param_groups": kernels}, parameters))',
            "pass",
        ),
    ),
    *_of(
        "grpo/checkpoint.py",
        "tests/grpo/test_speed.py -k behind",
        ("        self.finish()\n\n        def copy", "        def copy"),
        ("room.copy_(whole(leaf.detach()))", "leaf.detach()"),
    ),
    *_of(
        "grpo/sharding.py",
        "tests/grpo/test_sharding.py",
        (", reshard_after_forward=True", ""),
        (".div_(dist.get_world_size())", ""),
        ("        dist.all_reduce(everywhere, dist.ReduceOp.MIN)\n", ""),
        ("ignored_params=whole_ones", "ignored_params=set()"),
    ),
    *_of(
        "grpo/training_state.py",
        "tests/jobs/test_ranks.py -k stopped_resumed",
        ("_spread(state[", "dict(state["),
    ),
    *_of(
        "grpo/groups.py",
        f"{UPDATE} -k configured_group",
        ("plugins.load(group.rule,", 'plugins.load("ovf",'),
        ("plugins.SELECTION_RULES), group.preview)", "plugins.SELECTION_RULES))"),
    ),
    *_of(
        "config.py",
        f"{UPDATE} -k divide",
        ("if prompts % (ranks * updates):", "if prompts % ranks:"),
    ),
    *_of(
        "grpo/trainer.py",
        f"{UPDATE} -k all_samples_once",
        (
            "start, size, steps, self.micro_batch,",
            "0, size, steps, self.micro_batch,",
        ),
    ),
    *_of(
        "grpo/trainer.py",
        f"{GRADIENT} -k two_ranks",
        ("owned = range(self.accelerator.process_index,", "owned = range(0,"),
    ),
]

MICRO_BATCH = _of(
    "grpo/micro_batch.py",
    "tests/grpo/test_speed.py -k not_depend",
    ("count = min(batch, total - first)", "count = batch"),
) + _of(
    "grpo/micro_batch.py",
    f"{GRADIENT} -k whole_loss",
    ("Pairs(start + pair % size, steps.start + pair // size", "Pairs(start + pair % len(steps), pair // size"),
    ("total = size * len(steps)", "total = size * (len(steps) - 1)"),
)

TUNING = [
    *_of(
        "grpo/tuning.py",
        "tests/grpo/test_tuning.py -k adds_alpha",
        ("lora_alpha=lora.alpha", "lora_alpha=lora.rank"),
        ("r=lora.rank, lora_alpha", "r=lora.alpha, lora_alpha"),
    ),
    *_of(
        "grpo/tuning.py",
        "tests/grpo/test_tuning.py -k average",
        ("if (step + 1) % self.config.every == 0:", "if step % self.config.every == 0:"),
        ("min((1 + step) / (10 + step), self.config.decay)", "self.config.decay"),
        ("(1 + step) / (10 + step)", "(2 + step) / (11 + step)"),
        ("for p in parameters], 1 - decay)", "for p in parameters], decay)"),
        ("self.values = [p.detach().clone() for p", "self.values = [p.detach() for p"),
    ),
    *_of(
        "grpo/tuning.py",
        "tests/grpo/test_tuning.py -k loaded_adapter",
        ("parameter.data = parameter.data.float()", "pass"),
        ("    set_peft_model_state_dict(backbone.denoiser, layers, adapter_name=TRAINED_ADAPTER)\n", ""),
    ),
    *_of(
        "grpo/tuning.py",
        "tests/grpo/test_tuning.py -k does_not_say",
        ("        if fits and name not in adapted:", "        if False:"),
        ("or value <= 0:", "or value < 0:"),
    ),
    *_of(
        "model_files.py",
        "tests/grpo/test_backbone.py",
        ("if not 0.9 * knows <= known <= knows:", "if not known <= knows:"),
        ('if len(model["merges"]) < 0.9 * len(joined):', "if False:"),
        ("end not in (2, tokenizer.eos_token_id)", "False"),
        ("if kind.__name__ in DENOISERS and", "if False and"),
    ),
    *_of(
        "pieces/train_pipeline.py",
        "tests/test_train_pipeline.py",
        ("        peft_adapters(backbone.denoiser)\n", "        pass\n"),
        ("if record.is_file() and record.read_text() != found:", "if False:"),
        (", apart_from_the_caller(backbone.device):", ":"),
        ("trainer.train(lambda: publish_snapshot(trainer, run, seed, out))", "trainer.train()"),
    ),
    *_of(
        "grpo/tuning.py",
        "tests/grpo/test_tuning.py -k full_fine_tune",
        ("folder / name, dtype=torch.float32)", "folder / name, dtype=torch.bfloat16)"),
    ),
    *_of(
        "grpo/tuning.py",
        "tests/grpo/test_tuning.py -k not_finite",
        ('    require_finite(weights.values(), f"{folder}: the trained weights")\n', "    pass\n"),
    ),
    *_of(
        "grpo/tuning.py",
        f"{GRADIENT} -k whole_loss",
        ("self.backbone.denoiser.disable_adapters()", "pass"),
        ("self.backbone.denoiser.enable_adapters()", "pass"),
        ("deepcopy(denoiser).requires_grad_(False) if", "denoiser if"),
    ),
]

ROLLOUT = _of(
    "grpo/rollout.py",
    "tests/grpo/test_rollout.py",
    ("self.noise.seed_of(p, 2**31 + step)", "self.noise.seed_of(p, 2**31)"),
    ("self.noise.seed_of(p, 2**31 + step)", "self.noise.seed_of(2**31 + step)"),
    ("manual_seed(self.seed_of(2**31, part))", "manual_seed(self.key[1] + part)"),
    ("position // self.shared_initial", "position % self.shared_initial"),
    ("self._shared(self.prompts[p])", "self._shared(p)"),
    ("SeedSequence((*self.key, *path))", "SeedSequence(path)"),
    ("manual_seed(self.seed_of(*key))", "manual_seed(self.seed_of(key[0]))"),
    ("key = (self.prompts[prompt], trajectory)", "key = (prompt, trajectory)"),
    ("if key not in self._generators:", "if True:"),
    ("else outputs[kept]", "else outputs[: len(kept)]"),
    ("preview(self.table, step, self.states[step], outputs)", "self.states[step]"),
    (
        "self.trajectory[rows]",
        "self.trajectory[: len(rows)]",
    ),
    ("torch.arange(self.prompts)[:, None] * rewards.shape[1]", "torch.arange(self.prompts)[:, None]"),
    ("log_prob(self.table, step, sample, mean)", "log_prob(self.table, step, rows_x, mean)"),
    ("self.counters.denoiser += len(x)", "self.counters.denoiser += self.batch"),
    ("self.counters.decoder += len(latents)", "self.counters.decoder += 1"),
    ("        check_finite(rewards)\n", ""),
    ("rewards = rewards.flatten()[rows].view", "rewards = rewards.flatten()[: len(rows)].view"),
    ("index[:1].expand(size - len(index))", "index[:0]"),
)

SAVING = [
    *_of(
        "grpo/groups.py",
        "tests/grpo/test_groups.py -k in_parts",
        ("policy.predict(x, step, prompt + first)", "policy.predict(x, step, prompt)"),
        ("noise.of(slice(first, first + at_once))", "noise.of(slice(0, at_once))"),
        ("rows = slice(first * keep, first * keep + len(part.states))", "rows = slice(0, len(part.states))"),
    ),
    *_of(
        "grpo/samples.py",
        f"{GRADIENT} -k whole_loss",
        ("pairs.rows // self.rollout.rewards.shape[1]", "pairs.rows % len(self.rollout.rewards)"),
        ("pairs.steps + 1", "pairs.steps"),
    ),
    *_of(
        "grpo/micro_batch.py",
        "tests/grpo/test_window.py -k moved",
        ("steps.start + pair // size", "pair // size"),
    ),
    *_of(
        "grpo/rollout.py",
        "tests/grpo/test_groups.py -k leave_no_states",
        ("self.survivors = None if self.selections else self._room()", "self.survivors = self._room()"),
    ),
    *_of(
        "grpo/rollout.py",
        "tests/grpo/test_groups.py -k not_cut_by_it",
        ("regrouped(images(), scored), prompt.split(scored)", "images(), prompt.split(self.decode_batch)"),
        ("torch.cat([waiting, part])", "torch.cat([part, waiting])"),
        ("waiting = waiting[size:]", "waiting = waiting[:0]"),
    ),
    *_of(
        "report/arms_page.py",
        "tests/report/test_claims_page.py",
        ("sorted(rows, reverse=True)", "rows"),
        ('if f"validity_{name}" in learnt and', "if"),
        ("[str(group.size), *(", "[*("),
        ("!= evidence.config.runs[guard.baseline].iterations", "!= 0"),
    ),
    *_of(
        "grpo/rollout.py",
        "tests/grpo/test_previews.py -k agreement_is_measured",
        ("self.rewards_of(latents, self.policy.decode) if check", "rewards if check"),
    ),
    *_of(
        "grpo/samplers.py",
        "tests/grpo/test_window.py -k outside",
        ("getattr(noisy, name), getattr(quiet, name)", "getattr(quiet, name), getattr(noisy, name)"),
    ),
]

CHECKPOINT = _of(
    "grpo/checkpoint.py",
    "tests/grpo/test_checkpoint.py",
    ("past[: self.keep - 1]", "past[: self.keep]"),
    ("if _step(path) < step and", "if"),
    ("and path not in self._spoilt]", "]"),
    ("path.stat().st_mtime_ns), reverse=True)", "path.stat().st_mtime_ns))"),
    ("(_step(path), path.stat()", "(path.name, path.stat()"),
    ("self.hash.update(data)", "self.hash.update(data[:1])"),
    ('    _check_plain(key, f"a key of {where}")', "    pass"),
    ("raise writer.failure or error from None", "raise error from None"),
    ("signal.signal(number, handler)", "pass"),
)

SAMPLERS = _of(
    "grpo/samplers.py",
    "tests/grpo/test_samplers.py",
    ("torch.where(s > UNIT_SIGMA, sigmas[1], s)", "torch.where(s > UNIT_SIGMA, s[0] - 1e-3, s)"),
    ("mean_x=1 - h * correction", "mean_x=1 + h * correction"),
    ("mean_m=-h * (1 + correction * (1 - s))", "mean_m=-h * (1 + correction * s)"),
    ("std=std_dev_t * torch.sqrt(h)", "std=std_dev_t"),
    ("preview_m=-s,", "preview_m=-sigmas[1:],"),
    ("kl_std=std_dev_t", "kl_std=std_dev_t * torch.sqrt(h)"),
    (".clamp(min=0)]", ".clamp(min=1)]"),
    (
        "eta * torch.sqrt((1 - a_p) / (1 - a_t) * (1 - a_t / a_p))",
        "eta * torch.sqrt((1 - a_p) / (1 - a_t) * (1 - a_t))",
    ),
    ("- torch.log(std) - math.log", "- math.log"),
    ("((x_next.detach() - mean)", "((x_next - mean)"),
    ("density.flatten(1).mean(dim=1)", "density.flatten(1).sum(dim=1)"),
)

OBJECTIVE = _of(
    "grpo/objective.py",
    "tests/grpo/test_objective.py",
    ("(exact if population is None else population.to(exact))", "exact"),
    ("correction=int(unbiased)", "correction=0"),
    ("/ (spread + eps)", "/ spread"),
    ("result.clamp(-clamp, clamp)", "result.clamp(max=clamp)"),
    ("torch.maximum(-advantages * ratio", "torch.minimum(-advantages * ratio"),
    ("ratio.clamp(1 - clip_range, 1 + clip_range)", "ratio.clamp(max=1 + clip_range)"),
    (
        "torch.exp((log_prob - old_log_prob.detach()).clamp(max=80))",
        "torch.exp((log_prob - old_log_prob).clamp(max=80))",
    ),
    ("/ (2 * std**2)", "/ std**2"),
    ('table.kl_std if form == "code" else table.std', "table.kl_std"),
    ("(mean - mean_ref.detach())", "(mean - mean_ref)"),
    ("exact - exact[:, :1]", "exact"),
)

OVF = _of(
    "grpo/ovf.py",
    "tests/grpo/test_ovf.py",
    (
        "torch.arange(keep + 1)  # a",
        "torch.arange(keep)  # a",
        "the keep lowest never vary more: exchanging the highest of them for the highest of all moves it away from their mean",
    ),
    ("square / keep - (total / keep) ** 2", "square / keep - total**2"),
    ("square / keep - (total / keep) ** 2", "square / keep"),
    ("(position >= count - keep + split)", "(position > count - keep + split)"),
    ("lowest = keep // 2", "lowest = keep - keep // 2"),
    ("manual_seed(seed)) for seed in seeds", "manual_seed(0)) for seed in seeds"),
    ("- EQUAL_VARIANCE", ""),
    ("(values / 2 - (low / 2 + high / 2)) / torch", "values / 2 / torch"),
)

SUMMARY = _of(
    "report/summary.py",
    "tests/report/test_summary.py",
    ("lines[-max(1, round(TAIL * len(lines))) :]", "lines[: max(1, round(TAIL * len(lines)))]"),
    ("max(1, round(TAIL * len(lines)))", "round(TAIL * len(lines))"),
    ("TAIL = 0.2", "TAIL = 0.5"),
    ('"vae": seconds["decoder"]', '"vae": seconds["reward"]'),
    ('"denoiser": seconds["denoiser"]', '"denoiser": seconds["total"]'),
    ("run in evaluated_names(config) and", "run in config.runs and"),
    (" and seed in seeds_of(config, run)", ""),
    ('if key != "iteration"]', "]"),
    (" if len(column) == len(last)", ""),
    ('"overall": geneval["overall"], **geneval["tags"]', '**geneval["tags"]'),
    ('metrics["score"] = compbench["score"]', "pass"),
    ('metrics[f"{name}.{metric}"]', 'metrics[f"test.{metric}"]'),
    ('seconds.get("settings") == _timing_hash(config, run)', "True"),
    ("DIGITS = 10 ", "DIGITS = 3 "),
)

TABLES = [
    *_of(
        "report/tables/bodies.py",
        "tests/report/test_bodies.py",
        ('values["high"] - values["mean"]', 'values["high"]'),
        ('Estimate(values["mean"], half_width, values["n"])', 'Estimate(values["mean"], half_width)'),
        (
            '_flops_run(summary, "measured", run).get("one_plus_reduction")',
            '_flops_run(summary, "measured", run).get("speedup")',
        ),
        ('_flops_run(summary, "measured", run).get', '_flops_run(summary, "published", run).get'),
        ('or run not in summary["evaluations"]', ""),
        ("sorted({min(counts), max(counts)})", "sorted({max(counts)})"),
        ('int(step) / PAPER_STEPS * pilot["steps"]', "int(step)"),
        ('Estimate(candidate["spearman"][1])', 'Estimate(candidate["spearman"][0])'),
        ('Estimate(candidate["variance"])', 'Estimate(candidate["cost_ratio"])'),
        (
            '(("reproduced", "_without_attention"), ("measured", ""))',
            '(("reproduced", ""), ("measured", "_without_attention"))',
        ),
        (
            '(("reproduced", "published"), ("measured", "measured"))',
            '(("reproduced", "measured"), ("measured", "published"))',
        ),
        ('counted["tflop"]["total"]', 'counted["tflop"]["rollout"]'),
        ('Estimate(counted["speedup"])', 'Estimate(counted["one_plus_reduction"])'),
        ('BACKBONES = {"flow": SD35M, "diffusion": SD14}', 'BACKBONES = {"flow": SD14, "diffusion": SD35M}'),
        ("Estimate(seconds[column.key]) for", 'Estimate(seconds["total"]) for'),
        ('sorted(summary["hardware"].items())', 'summary["hardware"].items()'),
        ("cells[column.key] = ABSENT\n", "cells[column.key] = UNKNOWN\n"),
    ),
    *_of(
        "report/tables/bodies.py",
        "tests/report/test_tables.py -k gains",
        ("paper - other", "other - paper"),
    ),
    *_of(
        "report/summary.py",
        "tests/report/test_tables.py -k gains",
        ("value - second[seed]", "value"),
    ),
    *_of(
        "report/tables/settings.py",
        "tests/report/test_bodies.py -k setting",
        ("run.hardware.ranks", "max(1, run.hardware.gpus)"),
        ("// run.updates_per_iteration * run.group.survivors", "* run.group.survivors"),
        ("stages[0].keep if len(stages) > 1", "stages[-1].keep if len(stages) > 1"),
        ("stages[1].step if len(stages) > 1", "stages[0].step if len(stages) > 1"),
    ),
    *_of(
        "report/tables/latex.py",
        "tests/report/test_tables.py -k bold",
        ('sign = 1 if column.better == "high" else -1', "sign = 1"),
        ("sign * round(cell.mean, column.digits)", "sign * cell.mean"),
        ("if len(values) > 1 and (", "if (True) and ("),
        ("source != MEASURED or _clear(", "source != MEASURED or not _clear("),
        ("cells[first].mean - half > sign", "cells[first].mean > sign"),
        ("if half is None:\n        return False", "if half is None:\n        return True"),
    ),
    *_of(
        "analysis/contrasts.py",
        "tests/analysis/test_contrasts.py",
        ("(sums >= values.sum() - rounding)", "(sums > values.sum() + rounding)"),
        ("freedom = (table.shape[0] - 1) * (table.shape[1] - 1)", "freedom = table.size - 1"),
        ("places = generator.integers(n, size=(times, n))", "places = np.arange(n)"),
        ("for start in range(0, RESAMPLES, AT_ONCE)", "for start in range(0, RESAMPLES, 2 * AT_ONCE)"),
    ),
    *_of(
        "jobs/ingredients.py",
        "tests/jobs/test_ingredients.py",
        ('exclude={"path", "source", *unused}', 'exclude={"path", "source", "limit_per_style", *unused}'),
        (
            'exclude={"path", "options", "sources", "batch_size"}',
            'exclude={"path", "options", "sources", "batch_size", "precision"}',
        ),
    ),
    *_of(
        "provenance.py",
        "tests/test_provenance.py",
        (', "previews": {"agreement"}}', "}"),
        ("LABELS | CUTS | {*without}", "LABELS | {*without}"),
    ),
    *_of(
        "provenance.py",
        "tests/workflow/test_plan.py -k reruns_what_it_decides",
        ("LABELS | CUTS | {*without}", "LABELS | CUTS"),
    ),
    *_of(
        "benchmarks/compbench/spatial.py",
        "tests/benchmarks/test_compbench_spatial.py",
        ('best.setdefault(found["label"], found)', 'best.setdefault(as_label(found["label"]), found)'),
    ),
    *_of(
        "report/verdicts.py",
        "tests/report/test_verdicts.py",
        ("p < alpha and low > 0, high < rule.relevant", "p < 1 and low > 0, high < rule.relevant"),
        ("p < alpha and low > 0, high < rule.relevant", "p < alpha, high < rule.relevant"),
        ("threshold = -claim.rule.margin if", "threshold = claim.rule.margin if"),
        ("guard.verdict != SUPPORTED:", "guard.verdict == NOT_RUN:"),
        ("None if name in void else verdict.p", "verdict.p"),
    ),
    *_of(
        "report/evidence.py",
        "tests/report/test_verdicts.py",
        ("gains = curve.scores[metric] - base.scores[metric][0]", "gains = curve.scores[metric]"),
        ("(1 - share) * gains[before] + share * gains[before + 1]", "gains[before + 1]"),
        ("[curve.iterations[-1] for curve in curves.values()]", "[]"),
        ('[cost["decides"] for cost in costs.values() if cost.get("decides")]', "[]"),
    ),
]

VERDICT = _of(
    "benchmarks/geneval/verdict.py",
    "tests/benchmarks/test_geneval_verdict.py",
    ('protocol.counting_threshold if tag == "counting"', 'protocol.threshold if tag == "counting"'),
    ("scores[ranked] > threshold", "scores[ranked] >= threshold"),
    ("np.argsort(scores)[::-1]", "np.argsort(scores)"),
    ("[: protocol.max_objects]", ""),
    ("if len(found) < clause", "if len(found) <= clause"),
    ("if number >= clause", "if number > clause"),
    ('[: clause["count"]]', ""),
    ("groups.append(found if failure is None else None)", "groups.append(found)"),
    ("if relation not in relations:\n                return", "if not relations:\n                return"),
    ("dx < -0.5", "dx > 0.5"),
    ("- threshold * (size_a + size_b)", ""),
    ("/ np.linalg.norm(offset)", "/ np.linalg.norm(shrunk)"),
    ('fmean(entry["score"] for entry in tags.values())', 'fmean(r["correct"] for r in results)'),
    ("fmean(any(c) for c in", "fmean(all(c) for c in"),
    ("box[2] - box[0] + 1, 0", "box[2] - box[0], 0"),
)

MUTANTS = [
    *SAVING,
    *OBJECTIVE,
    *OVF,
    *SAMPLERS,
    *ROLLOUT,
    *TRAINER,
    *MICRO_BATCH,
    *TUNING,
    *CHECKPOINT,
    *SUMMARY,
    *TABLES,
    *VERDICT,
]
