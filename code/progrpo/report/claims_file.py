"""`config/claims.yaml`: the claims, their comparisons and decision rules as data, read and checked."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from progrpo.config import Config
from progrpo.errors import UserError
from progrpo.typed import Count, Name, Number, check, read_yaml

CLAIMS = Path("config/claims.yaml")
Text = Annotated[str, Field(min_length=1, max_length=300)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weights = Annotated[dict[Name, Number], Field(min_length=2)]
Statistic = Literal[
    "clustering_share",
    "gaussian_distance",
    "uniform_variance",
    "ovf_share",
    "gradient_noise",
    "gradient_signal",
    "preview_at_half",
    "calls_ratio",
    "seconds_ratio",
    "cost_model",
]


class Part(BaseModel):
    """A part of the file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Contrast(Part):
    """Weighted gains of runs, at equal iterations or at the smallest of their budgets of calls or seconds."""

    contrast: Weights
    at: Literal["iterations", "calls", "seconds"]
    share_of: Weights | None = None  # another contrast; the ratio of the two is reported beside the verdict

    @model_validator(mode="after")
    def _sums(self):
        for weights in filter(None, (self.contrast, self.share_of)):
            if abs(sum(weights.values())) > 1e-9 or 0 in weights.values():
                raise ValueError("the weights of a contrast must sum to 0, and none be 0")
        return self


class OfAnalysis(Part):
    """A number, with its interval, that an analysis of the tier has."""

    statistic: Statistic


class Superiority(Part):
    """Above 0; not supported where even `relevant` is excluded."""

    kind: Literal["superiority"]
    relevant: Positive


class Margin(Part):
    """No worse than -margin, or within +-margin."""

    kind: Literal["non_inferiority", "equivalence"]
    margin: Positive


class Threshold(Part):
    """The interval on one side of a number."""

    kind: Literal["at_least", "at_most"]
    threshold: Number


class Within(Part):
    """The interval between two numbers."""

    kind: Literal["within"]
    low: Number
    high: Number

    @model_validator(mode="after")
    def _ordered(self):
        if self.low >= self.high:
            raise ValueError("low must be less than high")
        return self


Rule = Annotated[Superiority | Margin | Threshold | Within, Field(discriminator="kind")]


class Claim(Part):
    """One claim: what is said, where, what is compared, and by which rule it is judged."""

    id: Name
    statement: Text
    place: Text
    family: Literal["primary", "descriptive", "control"]
    tiers: Annotated[tuple[Name, ...], Field(min_length=1)]
    guard: Name | None = None
    metrics: tuple[Name, ...] = ()
    comparison: Contrast | OfAnalysis
    rule: Rule
    predicted: Number | None = None
    paper: Number | None = None
    n: Count
    seen: Text | None = None

    @model_validator(mode="after")
    def _fits(self):
        of_runs = isinstance(self.comparison, Contrast)
        if of_runs != (self.guard is not None) or of_runs != bool(self.metrics):
            raise ValueError(f"{self.id}: a contrast of runs has guard and metrics, a statistic has neither")
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError(f"{self.id}: a metric stands twice")
        if of_runs == isinstance(self.rule, Threshold | Within):
            raise ValueError(f"{self.id}: rule {self.rule.kind} does not fit what is compared")
        two = isinstance(self.comparison, Contrast) and len(self.comparison.contrast) == 2
        if self.family == "primary" and (not two or self.rule.kind == "equivalence"):
            raise ValueError(f"{self.id}: a primary claim is a contrast of two arms with a p-value")
        return self


class Guard(Part):
    """What a baseline must gain in every seed: each of `every_seed`, and one and the same of `one_of`."""

    baseline: Name
    every_seed: Annotated[tuple[Name, ...], Field(min_length=1)]
    one_of: Annotated[tuple[Name, ...], Field(min_length=1)]


class Claims(Part):
    """The file."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)]
    exact_from: Annotated[int, Field(ge=2)]
    unit: Text
    guards: dict[Name, Guard]
    claims: Annotated[tuple[Claim, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _references(self):
        names = [claim.id for claim in self.claims] + [f"validity_{guard}" for guard in self.guards]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"claims {', '.join(sorted(twice))} stand twice")
        for claim in self.claims:
            if claim.guard is not None and claim.guard not in self.guards:
                raise ValueError(f"{claim.id}: guard {claim.guard!r} is not defined")
        return self

    def check(self, config: Config, tiers: Sequence[str]) -> None:
        """UserError for a tier, or in the configuration's tier for a run or metric, that is none, and for arms of another model.

        tiers: names of those that there are; none where they are not known, outside the repository.
        """
        scorers = config.evaluations[config.learning_curve].scorers if config.learning_curve else ()
        for claim in self.claims if tiers else ():
            _known(claim.id, "tier", claim.tiers, {*tiers, config.tier})
        for claim in self.of_tier(config.tier):
            if isinstance(claim.comparison, Contrast) and claim.guard:
                guard = self.guards[claim.guard]
                arms = {guard.baseline, *claim.comparison.contrast, *(claim.comparison.share_of or {})}
                _known(claim.id, "run", arms, config.runs)
                metrics = {*claim.metrics, *guard.every_seed, *guard.one_of}
                _known(claim.id, "metric of the learning curve", metrics, scorers)
                if len({config.runs[arm].model for arm in arms}) > 1:
                    raise UserError(f"{CLAIMS}: {claim.id}: arms of several models; their gains have no unit in common")

    def of_tier(self, tier: str) -> list[Claim]:
        """The claims that are judged in a tier, in the order of the file."""
        return [claim for claim in self.claims if tier in claim.tiers]

    def guards_of(self, tier: str) -> dict[str, Guard]:
        """The guards that the claims of a tier have."""
        used = {claim.guard for claim in self.of_tier(tier)}
        return {name: guard for name, guard in self.guards.items() if name in used}


def _known(claim: str, what: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in sorted({*names} - {*known}):
        raise UserError(f"{CLAIMS}: {claim}: {name!r} is no {what}; known: {', '.join(sorted(known))}")


def load_claims(path: Path | str) -> Claims:
    """Read and check the file; UserError names the first key that is wrong."""
    return check(Claims, read_yaml(path), path)
