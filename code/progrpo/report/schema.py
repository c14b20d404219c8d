"""What the files that tables and figures are made from hold, as far as something is made from it; other keys pass."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from progrpo.typed import Count, Number

Pair = tuple[Number, Number]
Label = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", max_length=1000)]  # also written to terminals
Series = Annotated[list[Number], Field(min_length=1)]


class Part(BaseModel):
    """A part of a stored result."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Estimate(Part):
    """A mean over seeds."""

    mean: Number
    low: Number | None
    high: Number | None
    std: Number | None
    n: Annotated[Count, Field(ge=1)]
    seeds: dict[Annotated[str, Field(pattern=r"^\d{1,20}$")], Number]


class CurvePoint(Part):
    """A point of a learning curve: mean and interval over seeds."""

    mean: Number
    low: Number | None
    high: Number | None
    n: Annotated[Count, Field(ge=1)]


class Tflop(Part):
    """TFLOP of a training iteration, per prompt batch as its accounting has it."""

    total: Number


class FlopsRun(Part):
    """One training method: its operations and what it saves against the baseline."""

    tflop: Tflop
    one_plus_reduction: Number
    speedup: Number


class Accounting(Part):
    """The training methods under one way of counting."""

    runs: dict[str, FlopsRun]


class Accountings(Part):
    """The paper's way of counting, and all that is executed."""

    published: Accounting
    measured: Accounting


class Atomic(Part):
    """TFLOP of one call by architecture and component."""

    measured: dict[str, dict[str, Number]]


class Flops(Part):
    """`progrpo flops`."""

    accountings: Accountings
    atomic: Atomic


class PairOfSteps(Part):
    """Two pruning steps: their share of the unpruned cost, and the reward variance that their survivors keep."""

    cost_ratio: Number
    variance: Number


class Candidate(PairOfSteps):
    """A pair that the pilot decides on, with the rank correlations of its previews with the terminal rewards."""

    pruning_steps: tuple[Count, Count]
    spearman: Pair
    variance_low: Number
    variance_high: Number
    decision: Literal["selected", "inefficient", "borderline", "inseparable", "unreliable"]


class Reliability(Part):
    """Mean rank correlation of previews with terminal rewards after a fraction of the steps, with its interval."""

    fraction: Number
    spearman: Number
    low: Number
    high: Number


class PaperSpearman(Part):
    """The paper's rank correlation after a fraction of the steps."""

    fraction: Number
    spearman: Number


class Selected(Part):
    """The selected pair, as fractions of the steps."""

    fractions: Pair


class ReferenceVariances(Part):
    """Reward variances to compare with: the best subset, the whole group, a random subset."""

    oracle: Number
    pool: Number
    random: Number


class Pilot(Part):
    """`progrpo analyse pruning-pilot`."""

    candidates: list[Candidate]
    all_pairs: list[PairOfSteps]
    steps: Annotated[Count, Field(ge=1)]
    reliability: Annotated[list[Reliability], Field(min_length=1)]
    paper_spearman: Annotated[list[PaperSpearman], Field(min_length=1)]
    selected: Selected
    reference_variances: ReferenceVariances


class Histogram(Part):
    """Density of standardised rewards, and of Gaussian groups standardised the same way."""

    edges: Annotated[Series, Field(min_length=2)]
    density: Series
    gaussian_groups: Series


class Moments(Part):
    """Mean and standard deviation of all rewards."""

    mean: Number
    std: Annotated[Number, Field(gt=0)]


class Quantiles(Part):
    """Quantiles of a Gaussian and of the standardised rewards."""

    theoretical: Series
    observed: Series


class Share(Part):
    """Share of the rewards within `delta` standard deviations of their group's mean."""

    delta: Number
    observed: Number
    gaussian_groups: Number


class SubsetShare(Part):
    """That share in a subset."""

    share: Number


class SubsetShares(Part):
    """That share in a subset, for each `delta`."""

    shares: list[SubsetShare]


class Subsampling(Part):
    """A rule that keeps so many of a group, on rewards and on Gaussian groups."""

    keep: Count
    rule: Literal["uniform", "ovf"]
    observed: SubsetShares
    gaussian: SubsetShares


class Clustering(Part):
    """`progrpo analyse reward-clustering`."""

    histogram: Histogram
    moments: Moments
    group: Count
    trajectories: Count
    qq: Quantiles
    shares: Annotated[list[Share], Field(min_length=1)]
    subsampling: Annotated[list[Subsampling], Field(min_length=1)]


class Band(Part):
    """A curve over iterations with its interval, None where one seed gives none."""

    mean: Series
    low: list[Number | None]
    high: list[Number | None]


class Quantities(Part):
    """What the arms of the static study are compared in."""

    reward: Band
    reward_std: Band


class Curves(Part):
    """The arms of the static study."""

    full: Quantities
    uniform: Quantities
    ovf: Quantities


class OvfStudy(Part):
    """`progrpo analyse ovf-study`."""

    curves: Curves


class Interval(Part):
    """A number with its interval."""

    value: Number
    low: Number
    high: Number


class GradientRule(Part):
    """A selection rule: the variance and number of what it keeps, and the gain that they predict."""

    rule: str
    keep: Count
    predicted: Number


class GradientSignal(Part):
    """`progrpo analyse gradient-signal`."""

    prompts: Count
    noise: Interval
    signal: Interval
    rules: Annotated[list[GradientRule], Field(min_length=1)]


class Analyses(Part):
    """What a summary holds of the analyses; what was not run is absent."""

    flops: Flops | None = None
    pruning_pilot: Pilot | None = None
    reward_clustering: Clustering | None = None
    ovf_study: OvfStudy | None = None
    gradient_signal: GradientSignal | None = None


class Seconds(Part):
    """Seconds of an iteration by part, as a summary has them."""

    vae: Number
    denoiser: Number
    total: Number


class Summary(BaseModel):
    """`progrpo summary`: all numbers of a tier."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tier: Label
    evaluations: dict[Label, dict[Label, Estimate]]
    training: dict[Label, dict[Label, Estimate]]
    analysis: Analyses
    hardware: dict[Label, dict[Label, Seconds]]
    weights: dict[
        Label, dict[str, dict[str, str]]
    ] = {}  # run -> seed -> final, snapshots -> DVC's hash; of published ones
    learning_curves: dict[Label, dict[str, dict[str, CurvePoint]]] = {}  # run -> held-out metric -> iteration


class Score(Part):
    """A scorer's mean over the images of a prompt set."""

    mean: Number


class GenEval(Part):
    """GenEval's score, in all and by tag."""

    overall: Number
    tags: dict[Label, Number]


class CompBench(Part):
    """The score of a category of T2I-CompBench++."""

    score: Number


class Evaluation(Part):
    """`progrpo evaluate`: one prompt set. `partial` says which images were missing."""

    scores: dict[Label, Score]
    geneval: GenEval | None = None
    compbench: CompBench | None = None
    partial: str | None = None


class Timing(Part):
    """Seconds of an iteration by part, as `progrpo bench` writes them."""

    decoder: Number
    denoiser: Number
    total: Number
    settings: Label | None = None
    prompts: Annotated[int, Field(ge=1)] | None = None


class WallClock(Part):
    """`progrpo bench`: the seconds of an iteration of so many prompts, after so many iterations that do not count."""

    what: Label
    device: Label
    warmup: Annotated[int, Field(ge=0)] = 0
    runs: dict[Label, Timing]


class Rewards(Part):
    """`progrpo sample-rewards`: terminal rewards of P prompts x n trajectories."""

    rewards: Annotated[list[Series], Field(min_length=1)]


class Previews(Part):
    """`progrpo sample-rewards` of a pilot: previews P x N x T and terminal rewards P x N."""

    previews: Annotated[list[list[Series]], Field(min_length=1)]
    terminal: Annotated[list[Series], Field(min_length=1)]
    candidates: list[tuple[Count, Count]] | None = None
    keep: tuple[Count, Count] | None = None


Metrics = dict[str, Number | None]  # a line of metrics.jsonl
