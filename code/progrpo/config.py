"""The configuration of a tier: typed, validated once, passed down as values. `config/<tier>.yaml` is its only source."""

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_serializer, model_validator

from progrpo.benchmark_settings import Benchmarks
from progrpo.errors import UserError
from progrpo.execution import Hardware, Positive, Previews, Sampling, Section, Share, Speed, TrackerName
from progrpo.plugins import SCORERS, SELECTION_RULES, known_name
from progrpo.typed import Name, PathText, SourceName, check, read_yaml, require_numbers


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must differ, got {list(seeds)[:10]}")
    return seeds


def _finite_options(options: dict[str, Any]) -> dict[str, Any]:
    json.dumps(options, allow_nan=False, default=str)  # options may be nested; the ValueError says what is wrong
    return options


Seed = Annotated[int, Field(ge=0, lt=2**32)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_distinct)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Title = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", max_length=200)]
Options = Annotated[dict[str, Any], AfterValidator(_finite_options)]
ScorerKind = Annotated[str, AfterValidator(partial(known_name, table=SCORERS))]
Rule = Annotated[str, AfterValidator(partial(known_name, table=SELECTION_RULES))]
Precision = Literal["fp32", "bf16", "fp16"]
NOT_TIERS = ("claims", "site")  # files of config/ beside the tiers
Target = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$", max_length=200)]  # or its name's end


class Model(Section):
    """A base model in the official folder layout."""

    family: Literal["flow", "diffusion"]
    path: PathText
    source: SourceName | None = None  # name in the manifest of weights; none for what the project trains itself
    resolution: Annotated[int, Field(gt=0, le=8192)]
    precision: Precision = "fp32"
    vae_precision: Literal["fp32", "bf16"] = "fp32"  # of its decoder, for previews and images alike
    max_sequence_length: Positive = 128  # T5 tokens of the flow family; Flow-GRPO trains with 128 beside CLIP's 77


class Scorer(Section):
    """A reward or metric; `options` go to the scorer itself, `sources` are the manifest's names of what it reads."""

    kind: ScorerKind  # of plugins.SCORERS, or package.module:Class
    path: PathText | None = None
    sources: tuple[SourceName, ...] = ()
    precision: Precision | Literal["tf32"] = "fp32"
    batch_size: Positive = 16
    options: Options = {}


class PromptSet(Section):
    """Prompts of a training or an evaluation: one per line (.txt), GenEval records (.jsonl), a list (.json), or HPSv2's folder."""

    path: PathText
    source: SourceName | None = None
    images_per_prompt: Annotated[int, Field(gt=0, le=10**4)] = 1
    limit: Positive | None = None  # the first so many of all
    limit_per_style: Positive | None = None  # the first so many of each of HPSv2's styles
    distinct: bool = False  # repeated prompts count once: DrawBench's file has each five times
    layout: Literal["plain", "geneval", "compbench", "hpsv2"] = "plain"  # image names as the original evaluator expects


class Pruning(Section):
    """One pruning step: after `step` completed denoising steps, keep `keep` trajectories of each group."""

    step: Positive
    keep: Positive


class Group(Section):
    """A group of trajectories of one prompt: `size` (G_max) are started, the last stage's `keep` (K) are trained on.

    A stage before the last denoising step selects on one-step previews; a stage at the last step selects on terminal rewards
    (static filtering; without any earlier stage this is the oracle of pruning).
    """

    size: Annotated[int, Field(ge=2, le=10**5)]
    pruning: tuple[Pruning, ...] = ()
    rule: Rule = "ovf"  # of plugins.SELECTION_RULES, or package.module:function
    preview: Literal["reuse", "recompute"] = "reuse"

    @property
    def survivors(self) -> int:
        """K, the number of trajectories of a group that are trained on."""
        return self.pruning[-1].keep if self.pruning else self.size

    def active(self, steps: int) -> list[int]:
        """Trajectories of a group that the denoiser sees at each of so many denoising steps."""
        counts, count, kept = [], self.size, {stage.step: stage.keep for stage in self.pruning}
        for step in range(steps):
            counts.append(count)
            count = kept.get(step, count)
        return counts

    @model_validator(mode="after")
    def _funnel(self):
        steps = [stage.step for stage in self.pruning]
        if any(a >= b for a, b in zip(steps, steps[1:], strict=False)):
            raise ValueError(f"pruning steps must increase (t1 < t2), got {steps}")
        counts = [self.size] + [stage.keep for stage in self.pruning]
        if any(a < b for a, b in zip(counts, counts[1:], strict=False)):
            raise ValueError(f"a pruning step cannot keep more trajectories than there are (K <= G), got {counts}")
        if counts[-1] < 2:
            raise ValueError("at least 2 trajectories must survive: one alone has no advantage")
        return self


class Objective(Section):
    """Advantages, clipped surrogate and KL, with every quirk of the baselines as a named setting."""

    clip_range: Annotated[float, Field(gt=0)] = 1e-4
    trained_fraction: Share = 1.0  # of the denoising steps, the first ones; .99 drops the last of 10 and of 50
    advantage_std: Literal["group", "global"] = "group"
    advantage_unbiased: bool = False
    advantage_epsilon: Annotated[float, Field(gt=0)] = 1e-4
    advantage_clamp: Annotated[float, Field(gt=0)] = 5.0
    zero_advantages: Literal["keep", "drop"] = "keep"  # drop: of an update's mean, as Flow-GRPO does
    kl_beta: Annotated[float, Field(ge=0)] = 0.0
    kl_form: Literal["code", "paper"] = "code"  # code: without dt, as Flow-GRPO computes it; paper: the Gaussian KL
    unconditional_gradient: bool = True  # False: the guidance's unconditional branch is detached (Flow-GRPO, July 2025)


class Optimizer(Section):
    """AdamW without a schedule."""

    learning_rate: Annotated[float, Field(gt=0, le=10)]
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 1e-4
    max_grad_norm: Annotated[float, Field(gt=0, le=1e9)] = 1.0


class Lora(Section):
    """Low-rank adapters on the attention projections of the denoiser."""

    rank: Annotated[int, Field(gt=0, le=4096)] = 32
    alpha: Positive = 64
    targets: Annotated[tuple[Target, ...], Field(min_length=1)] = (
        "attn.to_q",
        "attn.to_k",
        "attn.to_v",
        "attn.to_out.0",
        "attn.add_q_proj",
        "attn.add_k_proj",
        "attn.add_v_proj",
        "attn.to_add_out",
    )


class Ema(Section):
    """Average of the trained weights: decay min((1 + s)/(10 + s), decay) after update s = 0, 1, ... where (s + 1) % every == 0."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.9
    every: Positive = 8


def require_prunable(group: Group, sampling: Sampling, iteration: int = 0) -> None:
    """ValueError where a group is pruned beyond the last step, or before its trajectories differ."""
    if group.pruning and group.pruning[-1].step > sampling.steps:
        raise ValueError(f"pruning step {group.pruning[-1].step} lies beyond the {sampling.steps} denoising steps")
    first = sampling.noisy(iteration).start
    if sampling.shared_initial_noise and group.pruning and group.pruning[0].step <= first:
        raise ValueError(
            f"pruning step {group.pruning[0].step} comes before the window adds noise (step {first}): with"
            " shared_initial_noise all trajectories of a group are still one"
        )


class Run(Section):
    """One training: a method applied to a model with a reward."""

    method: Title  # what a training calls itself: DanceGRPO, Flow-GRPO, Pro-GRPO ...; decides nothing
    model: str
    prompts: str
    reward: dict[str, Annotated[float, Field(ge=-1e6, le=1e6)]]
    sampling: Sampling
    group: Group
    objective: Objective
    optimizer: Optimizer
    lora: Lora | None = None
    ema: Ema | None = None
    prompts_per_iteration: Positive
    updates_per_iteration: Positive = 1
    micro_batch: Positive | Literal["auto"]  # (sample, step) pairs of a backward pass; auto: by speed.memory_gb
    sampling_batch: Positive | None = None  # rows per denoiser call while sampling; default: micro_batch
    iterations: Positive
    save_every: Positive = 1
    snapshots: tuple[Positive, ...] = ()  # iterations after which the weights are published as well: learning curves
    gradient_checkpointing: bool = False
    seeds: Seeds | None = None  # default: the tier's seeds
    evaluations: tuple[str, ...] | None = None  # prompt sets to evaluate on; default: all of the tier
    hardware: Hardware = Hardware()
    previews: Previews = Previews()
    speed: Speed = Speed()

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, dump):
        """As a sampling without a window."""
        written = dump(self)
        if self.previews.plain:
            written.pop("previews", None)
        return written

    def trained(self, iteration: int = 0) -> range:
        """The denoising steps that are trained: of those that add noise the first int(T * fraction), as the public codes round."""
        noisy, counted = self.sampling.noisy(iteration), self.sampling.steps * self.objective.trained_fraction
        return range(noisy.start, min(noisy.stop, max(1, int(counted + 1e-9))))

    @property
    def trained_steps(self) -> int:
        """Number of denoising steps that are trained in the first iteration; a window that moves keeps it, but at the last steps."""
        return len(self.trained())

    @property
    def trained_pairs(self) -> int:
        """Number of (sample, step) pairs that an iteration trains on."""
        return self.prompts_per_iteration * self.group.survivors * self.trained_steps

    @model_validator(mode="after")
    def _arithmetic(self):
        if self.sampling.noise == 0:
            raise ValueError("sampling.noise must be > 0: a deterministic sampler has no policy to train")
        for iteration in (0, self.iterations - 1):
            if not self.trained(iteration):
                raise ValueError(
                    f"objective.trained_fraction leaves none of the window's steps {self.sampling.noisy(iteration)} to train"
                )
        require_prunable(self.group, self.sampling, self.iterations - 1)
        self.require_divided(self.hardware.ranks)
        if not self.reward:
            raise ValueError("reward names no scorer")
        if self.speed.merged_adapters and self.lora is None:
            raise ValueError("speed.merged_adapters: the run has no lora")
        if list(self.snapshots) != sorted({n for n in self.snapshots if n < self.iterations}):
            raise ValueError(
                f"snapshots must increase and come before the last iteration ({self.iterations}), got {[*self.snapshots]}"
            )
        return self

    def require_divided(self, ranks: int) -> None:
        """ValueError when prompts and updates do not divide evenly over so many processes, one for each GPU."""
        prompts, updates = self.prompts_per_iteration, self.updates_per_iteration
        if prompts % (ranks * updates):
            raise ValueError(
                f"prompts_per_iteration ({prompts}) must be a multiple of ranks x updates_per_iteration ({ranks} x {updates});"
                " use fewer GPUs or another number of prompts"
            )


class Evaluation(Section):
    """How a trained model's images are made and scored on one prompt set."""

    sampling: dict[Literal["flow", "diffusion"], Sampling]
    scorers: tuple[str, ...] = ()
    benchmarks: tuple[Literal["geneval", "compbench"], ...] = ()
    batch: Positive = 16
    hardware: Hardware = Hardware()


class Analysis(Section):
    """Sampling side of an analysis: which model, which scorer, how many prompts and trajectories."""

    model: str
    scorer: str
    prompts: str
    prompt_count: Positive
    group: Annotated[int, Field(ge=2)]
    sampling: Sampling
    seed: Seed = 0
    batch: Positive = 48  # rows per model call
    grid: Positive = 4  # pilot: prompts whose previews are kept for the figure
    candidates: tuple[tuple[int, int], ...] = ()  # pairs (t1, t2): the pilot compares some, a gradient study has one
    keep: tuple[int, int] | None = None  # survivors after t1 and after t2
    gradients_of: Name | None = None  # gradient study: the run whose trained parameters and steps the gradients are of
    hardware: Hardware = Hardware()

    @model_validator(mode="after")
    def _can_be_analysed(self):
        """What `progrpo analyse` would refuse after hours of sampling."""
        last = self.sampling.steps - (0 if self.gradients_of else 1)  # a gradient study may select by terminal rewards
        if wrong := [[first, second] for first, second in self.candidates if not 1 <= first < second <= last]:
            raise ValueError(f"candidates must be pairs 1 <= t1 < t2 <= {last}, got {wrong[0]}")
        keep = self.keep or ((self.group // 2, self.group // 4) if self.candidates else None)
        if keep and not self.group >= keep[0] >= keep[1] >= 2:
            raise ValueError(f"keep must not grow, from group ({self.group}) down to at least 2, got {[*keep]}")
        if self.gradients_of and (len(self.candidates) != 1 or self.keep is None):
            raise ValueError(f"gradients_of needs one pair of candidates, not {len(self.candidates)}, and keep")
        return self


class Config(Section):
    """Everything that distinguishes a tier."""

    tier: Name
    results: PathText
    seeds: Seeds
    models: dict[Name, Model]
    scorers: dict[Name, Scorer]
    prompt_sets: dict[Name, PromptSet]
    evaluations: dict[Name, Evaluation]  # by prompt set
    evaluation_jobs: Literal["per_prompt_set", "per_model"] = (
        "per_prompt_set"  # how the workflow cuts evaluations into jobs
    )
    learning_curve: Name | None = (
        None  # of the evaluations: the one that snapshots are scored on, and that is no other job
    )
    benchmarks: Benchmarks = {}  # weights and options of geneval and compbench
    runs: dict[Name, Run]
    analyses: dict[Name, Analysis] = {}
    tracking: tuple[TrackerName, ...] = ("tensorboard",)  # where trainings can be watched, besides metrics.jsonl

    @model_validator(mode="after")
    def _references(self):
        for names in (self.models, self.scorers, self.prompt_sets, self.runs, self.analyses):
            same = Counter(name.casefold() for name in names)
            if twice := [name for name in names if same[name.casefold()] > 1]:
                raise ValueError(f"{' and '.join(twice)} differ in case only; some file systems take them for one")
        for name, run in self.runs.items():
            if name.startswith("base_"):
                raise ValueError(f"runs.{name}: base_... names the models that runs start from; choose another name")
            _known(self.models, run.model, f"runs.{name}.model")
            _known(self.prompt_sets, run.prompts, f"runs.{name}.prompts")
            for scorer in run.reward:
                _known(self.scorers, scorer, f"runs.{name}.reward")
            used = self.evaluations if run.evaluations is None else run.evaluations
            for prompts in filter(None, (*used, self.learning_curve)):
                _known(self.evaluations, prompts, f"runs.{name}.evaluations, learning_curve")
                sampling, family = self.evaluations[prompts].sampling, self.models[run.model].family
                _known(sampling, family, f"evaluations.{prompts}.sampling, for run {name}")
        for name, evaluation in self.evaluations.items():
            _known(self.prompt_sets, name, "evaluations")
            for scorer in evaluation.scorers:
                _known(self.scorers, scorer, f"evaluations.{name}.scorers")
        for name, analysis in self.analyses.items():
            _known(self.models, analysis.model, f"analyses.{name}.model")
            _known(self.scorers, analysis.scorer, f"analyses.{name}.scorer")
            _known(self.prompt_sets, analysis.prompts, f"analyses.{name}.prompts")
            if analysis.gradients_of is not None:
                _known(self.runs, analysis.gradients_of, f"analyses.{name}.gradients_of")
        return self

    def run_seeds(self, name: str) -> tuple[int, ...]:
        """Seeds of a run: its own, or the tier's."""
        return self.runs[name].seeds or self.seeds

    def get_run(self, name: str) -> Run:
        """The run of that name; UserError lists the known ones."""
        if name not in self.runs:
            raise UserError(f"--run {name}: no such run in tier {self.tier}; known: {', '.join(self.runs)}")
        return self.runs[name]

    def get_analysis(self, name: str) -> Analysis:
        """The analysis of that name; UserError lists the known ones."""
        if name not in self.analyses:
            known = ", ".join(self.analyses) or "none"
            raise UserError(f"--analysis {name}: no such analysis in tier {self.tier}; known: {known}")
        return self.analyses[name]


def _known(names: dict, name: str, where: str) -> None:
    if name not in names:
        raise ValueError(f"{where}: {name!r} is not defined; known: {', '.join(names)}")


def tier_files(folder: Path = Path("config")) -> list[Path]:
    """The files of the tiers, one each; the claims that are judged in them and the cluster's shape stand in the same folder."""
    return sorted(path for path in folder.glob("*.yaml") if path.stem not in NOT_TIERS)


def load_config(path: Path | str) -> Config:
    """Read and validate a tier's YAML; UserError names the first offending key and what is wrong with it."""
    if not Path(path).exists():
        raise UserError(f"{path}: no such config; the tiers are the files config/<tier>.yaml")
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping of keys, found {type(data).__name__}")
    data.pop("templates", None)  # YAML anchors that runs share
    config = check(Config, data, path)
    require_numbers(data, config.model_dump(), "", path)
    return config
