"""A tier's jobs: which there are, what each reads, what of configuration and code decides its result, what it asks of a cluster.

A configuration goes in, names and files come out; the rules of `workflow/rules/` ask for nothing else. Functions that Snakemake calls
with a job's wildcards return a function of these.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from progrpo.config import Config, Hardware
from progrpo.names import base_of, evaluated_names, is_base, model_of, prompt_sets_of, seed_folder, seeds_of
from progrpo.paper_runs import DANCEGRPO_SD14, FLOWGRPO, PROGRPO, PROGRPO_FLASH, PROGRPO_SD14, SD35M
from progrpo.plugins import SCORERS, SELECTION_RULES, inner_module
from progrpo.provenance import decisive
from progrpo.workflow.code_inputs import Code
from progrpo.workflow.site import Site
from progrpo.workflow.sources import benchmark_files, model_file, own_code, prompt_file, scorer_files

GRID_MODELS = (base_of(SD35M), FLOWGRPO, PROGRPO)  # Figs. 4 and 8 to 11
OVF_STUDY = {  # Figs. 1 and 2: what a static filter of a finished group does
    "full": FLOWGRPO,
    "uniform": "uniform_sd35m",
    "ovf": "ovf_sd35m",
}
CURVES = {  # Fig. 5: training curves per model and reward
    "curves_flow": (FLOWGRPO, PROGRPO_FLASH, PROGRPO),
    "curves_diffusion": (DANCEGRPO_SD14, PROGRPO_SD14),
    "curves_diffusion_multi": ("dancegrpo_sd14_multi", "progrpo_sd14_multi"),
}
PILOT = "pruning_pilot"  # the analysis that also stores images: Fig. 7
QUALITATIVE = "qualitative"  # the prompt set whose images are only looked at: Figs. 4 and 8 to 11
ANALYSIS_FIGURES = {"ovf_study": "fig2", "reward_clustering": "fig6", PILOT: "pilot"}  # analysis -> `progrpo figures`

DEFAULT_SITE = Site()

OfJob = Callable[[Any], Any]  # a function of a job's wildcards


def digest(*parts: Any) -> str:
    """16 hexadecimal digits of parts of the configuration: a job runs again when its part changes, not when the file does."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def run_folders(weights: Iterable[str]) -> list[str]:
    """Run folders, seen from the provenance files of their trained weights."""
    return [str(Path(file).parents[1]) for file in weights]


class Plan:
    """The jobs of one tier. `site`: the cluster.

    stored: files of the results folder that are published; where it is given, nothing is made, and what is not among them left out.
    curves: the same for learning curves alone.
    """

    def __init__(
        self,
        config: Config,
        code: Code,
        stored: Iterable[str] | None = None,
        curves: Iterable[str] | None = None,
        site: Site = DEFAULT_SITE,
    ):
        self.config, self.code, self.site = config, code, site
        self.stored = None if stored is None else frozenset(stored)
        self.curves = self.stored if curves is None else frozenset(curves)

    # What there is

    def several_nodes(self) -> list[str]:
        """Runs that are trained on more than one node."""
        return [name for name, run in self.config.runs.items() if self.site.shape(run.hardware).nodes > 1]

    def evaluation_jobs(self) -> dict[str, list[str]]:
        """{name: prompt sets} of the jobs that evaluations are cut into: each set of its own, or a model's sets together."""
        if self.config.evaluation_jobs == "per_prompt_set":
            drawn = self.config.learning_curve
            return {prompts: [prompts] for prompts in self.config.evaluations if prompts != drawn}
        together = {tuple(prompt_sets_of(self.config, name)) for name in evaluated_names(self.config)} - {()}
        names = {sets: "_and_".join([sets[0], f"{len(sets) - 1}_more"][: len(sets)]) for sets in sorted(together)}
        alike = Counter(names.values())
        return {name if alike[name] == 1 else f"{name}_{digest(sets)[:6]}": list(sets) for sets, name in names.items()}

    def models_of(self, sets: list[str]) -> list[str]:
        """Models whose evaluation consists of, or contains, a job's prompt sets."""
        exact = self.config.evaluation_jobs == "per_model"
        chosen = {name: prompt_sets_of(self.config, name) for name in evaluated_names(self.config)}
        return [name for name, own in chosen.items() if (own == sets if exact else set(sets) <= set(own))]

    def scored(self, sets: Iterable[str]) -> list[str]:
        """Those of some prompt sets whose images are scored; the others are only looked at."""
        evaluations = self.config.evaluations
        return [name for name in sets if evaluations[name].scorers or evaluations[name].benchmarks]

    def analyses(self) -> list[str]:
        """Names of the tier's analyses, as far as their runs and settings are in its configuration."""
        return [*self.config.analyses, *(["ovf_study"] if self._study_seeds() else [])]

    def grids(self) -> list[str]:
        """Figures made of images: previews over steps, and models side by side."""
        previews = ["previews"] if PILOT in self.config.analyses else []
        compared = QUALITATIVE in self.config.evaluations and set(GRID_MODELS) <= set(evaluated_names(self.config))
        return [*previews, *([QUALITATIVE] if compared else [])]

    # Files of the results folder

    def weights_files(self, runs: Iterable[str]) -> list[str]:
        """The provenance of the trained weights of runs, for all their seeds: written last."""
        return [self._weights_file(run, seed) for run in runs for seed in seeds_of(self.config, run)]

    def _weights_file(self, run: str, seed: int | str) -> str:
        return f"{self.config.results}/runs/{seed_folder(run, seed)}/final/provenance.json"

    def evaluation_files(self) -> list[str]:
        """Every evaluation of the tier: models x their seeds x their prompt sets."""
        return self._there(
            f"{self.config.results}/evaluations/{seed_folder(name, seed)}/{prompts}.json"
            for name in evaluated_names(self.config)
            for seed in seeds_of(self.config, name)
            for prompts in self.scored(prompt_sets_of(self.config, name))
        )

    def learning_curve_files(self) -> list[str]:
        """Every learning curve of the tier, of runs and base models x their seeds, and the costs of the runs."""
        config = self.config
        if config.learning_curve is None:
            return []
        pairs = sorted((name, seed) for name in evaluated_names(config) for seed in seeds_of(config, name))
        curves = [f"{config.results}/curves/{seed_folder(name, seed)}.npz" for name, seed in pairs]
        costs = [file.removesuffix(".npz") + ".costs.json" for file in curves if not is_base(Path(file).name)]
        return self._there(curves + costs, self.curves)

    def grid_listings(self) -> list[str]:
        """The listings of the images that are shown side by side, of the first seed that all have: the same noise; else of each."""
        seeds = {name: seeds_of(self.config, name) for name in GRID_MODELS if name in evaluated_names(self.config)}
        common = set.intersection(*map(set, seeds.values())) if seeds else set()
        return [
            f"{self.config.results}/images/{seed_folder(name, min(common or own))}/{QUALITATIVE}/prompts.jsonl"
            for name, own in seeds.items()
        ]

    def analysis_files(self) -> list[str]:
        """Every analysis of the tier, and the cost model."""
        return self._there(f"{self.config.results}/analysis/{name}.json" for name in ["flops", *self.analyses()])

    def stored_samples(self) -> list[str]:
        """The images that grids are drawn from."""
        return self._there(map(self._sample, self.grids()))

    def _sample(self, grid: str) -> str:
        name = {"previews": PILOT, QUALITATIVE: QUALITATIVE}[grid]
        return f"{self.config.results}/analysis/samples/{name}.npz"

    def figure_files(self) -> list[str]:
        """Every figure of the tier; training curves only where the runs are."""
        made = self.stored is None
        curves = [name for name, runs in CURVES.items() if made and set(runs) <= set(self.config.runs)]
        analysed = {Path(file).stem for file in self.analysis_files()}
        drawn = [name for name in self.analyses() if name in ANALYSIS_FIGURES and name in analysed]
        grids = [grid for grid in self.grids() if made or self._there([self._sample(grid)])]
        return [f"{self.config.results}/figures/{name}.pdf" for name in [*curves, *drawn, *grids]]

    def _there(self, files: Iterable[str], published: frozenset[str] | None = None) -> list[str]:
        """Those of some files of the results folder that are among what is published (`stored`); all where they are made."""
        known = self.stored if published is None else published
        return [file for file in files if known is None or os.path.relpath(file, self.config.results) in known]

    # Code

    def code_of(self, *entries: str, scorers: Iterable[str] = ()) -> OfJob:
        """Fingerprint of the code that decides a job's result, the same for all jobs of a rule.

        A function, so that the Snakemake inside a job reads the modules of that job and of no other.
        """
        return lambda wildcards: self._fingerprint(*entries, scorers=scorers)

    def _fingerprint(self, *entries: str, scorers: Iterable[str] = (), rules: Iterable[str] = ()) -> str:
        """That of the scorers and selection rules that a job loads included."""
        chosen = {inner_module(self.config.scorers[name].kind, SCORERS) for name in scorers}
        chosen |= {inner_module(rule, SELECTION_RULES) for rule in rules}
        return self.code.fingerprint(*entries, *filter(None, chosen))

    # Training

    def train_inputs(self, wildcards) -> list[str]:
        """What a training reads: its base model, prompts and reward scorers."""
        run = self.config.runs[wildcards.run]
        files = [model_file(self.config, run.model), prompt_file(self.config, run.prompts)]
        decoder = run.previews.decoder and Path(run.previews.decoder)
        files += sorted(str(path) for path in decoder.rglob("*") if path.is_file()) if decoder else []
        return [*files, *scorer_files(self.config, run.reward), *own_code(run.group.rule, SELECTION_RULES)]

    def train_settings(self, wildcards) -> str:
        """Digest of the configuration that decides a training."""
        run = self.config.runs[wildcards.run]
        prompts = decisive(self.config.prompt_sets[run.prompts], {"images_per_prompt", "layout"})
        scorers = {name: decisive(self.config.scorers[name]) for name in run.reward}
        return digest(decisive(run), decisive(self.config.models[run.model]), prompts, scorers)

    def train_code(self, wildcards) -> str:
        """Fingerprint of the code that decides a training."""
        run = self.config.runs[wildcards.run]
        return self._fingerprint("progrpo.jobs.train", scorers=run.reward, rules=[run.group.rule])

    def train_resources(self) -> dict[str, OfJob]:
        """What a training asks of a cluster, each a function of its wildcards."""
        return self._resources_of(lambda wildcards: self.config.runs[wildcards.run].hardware)

    def _resources_of(self, hardware: Callable[[Any], Hardware]) -> dict[str, Any]:
        def one(key: str) -> OfJob:
            return lambda wildcards: self.site.resources(hardware(wildcards))[key]

        return {key: one(key) for key in self.site.resources(Hardware())}

    def train_nodes(self, wildcards) -> int:
        """Number of nodes of a training."""
        return self.site.shape(self.config.runs[wildcards.run].hardware).nodes

    def launch(self, wildcards, output) -> list[int]:
        """Nodes and GPUs per node, for the launcher.

        It takes `output`, without need, because Snakemake runs a job again when a parameter changes, but not for one that follows
        from the output: on how many GPUs a run is trained is no reason to train it again.
        """
        return [*self.site.shape(self.config.runs[wildcards.run].hardware)]

    # Images and their scores; `sets` are the prompt sets of one of the evaluation jobs

    def weights_of(self, wildcards) -> list[str]:
        """The trained weights that a run's images are made with; a base model has none."""
        return [] if is_base(wildcards.model) else [self._weights_file(wildcards.model, wildcards.seed)]

    def generate_inputs(self, sets: list[str]) -> OfJob:
        """Base model and prompts of a generation."""
        prompts = [prompt_file(self.config, name) for name in sets]
        return lambda wildcards: [model_file(self.config, model_of(self.config, wildcards.model)), *prompts]

    def generate_settings(self, sets: list[str]) -> OfJob:
        """Digest of the configuration that decides a generation."""
        prompts = {name: decisive(self.config.prompt_sets[name]) for name in sets}

        def settings(wildcards) -> str:
            model = self.config.models[model_of(self.config, wildcards.model)]
            sampling = {name: decisive(self.config.evaluations[name].sampling[model.family]) for name in sets}
            return digest(decisive(model), prompts, sampling)

        return settings

    def generate_code(self) -> OfJob:
        """Fingerprint of the code that decides a generation."""
        return self.code_of("progrpo.jobs.generate")

    def _scorers_of(self, sets: Iterable[str]) -> list[str]:
        return sorted({name for prompts in sets for name in self.config.evaluations[prompts].scorers})

    def _benchmarks_of(self, sets: Iterable[str]) -> list[str]:
        return sorted({name for prompts in sets for name in self.config.evaluations[prompts].benchmarks})

    def evaluate_inputs(self, sets: list[str]) -> list[str]:
        """Scorers and benchmark models of an evaluation."""
        scorers = scorer_files(self.config, self._scorers_of(sets))
        return sorted({*scorers, *benchmark_files(self.config, self._benchmarks_of(sets))})

    def evaluate_settings(self, sets: list[str]) -> str:
        """Digest of the configuration that decides an evaluation of given images."""
        evaluations = {name: decisive(self.config.evaluations[name], {"sampling"}) for name in sets}
        scorers = {name: decisive(self.config.scorers[name]) for name in self._scorers_of(sets)}
        benchmarks = {name: self.config.benchmarks.get(name) for name in self._benchmarks_of(sets)}
        return digest(evaluations, scorers, benchmarks)

    def evaluate_code(self, sets: list[str]) -> OfJob:
        """Fingerprint of the code that decides an evaluation of given images."""
        functions = ["evaluate_images", *(f"run_{name}" for name in self._benchmarks_of(sets))]
        entries = [f"progrpo.jobs.evaluate:{function}" for function in functions]
        return self.code_of(*entries, scorers=self._scorers_of(sets))

    def evaluation_resources(self, sets: list[str]) -> dict[str, Any]:
        """What a job asks of a cluster: the largest of its prompt sets, and the time of all."""
        return self.site.resources(*(self.config.evaluations[name].hardware for name in sets))

    # Learning curves

    def curve_inputs(self, wildcards) -> list[str]:
        """What a learning curve reads beside trained weights: base model, prompts and scorers."""
        drawn = str(self.config.learning_curve)
        files = [model_file(self.config, model_of(self.config, wildcards.model)), prompt_file(self.config, drawn)]
        return files + scorer_files(self.config, self._scorers_of([drawn]))

    def curve_settings(self, wildcards) -> str:
        """Digest of the configuration that decides a learning curve of given weights."""
        drawn = [str(self.config.learning_curve)]
        return digest(self.generate_settings(drawn)(wildcards), self.evaluate_settings(drawn))

    def curve_code(self) -> OfJob:
        """Fingerprint of the code that decides a learning curve of given weights."""
        return self.code_of("progrpo.jobs.learning_curve", scorers=self._scorers_of([str(self.config.learning_curve)]))

    def costs_settings(self, wildcards) -> str:
        """Digest of the configuration that a training's costs are counted by."""
        return digest(decisive(self.config.runs[wildcards.run]))

    # The miniature world, analyses and tables

    def miniature_code(self, module: str) -> OfJob:
        """Fingerprint of the code behind a part of the miniature world; the command's own text knows some numbers of steps."""
        return self.code_of(f"progrpo.miniature.{module}", "progrpo.commands.miniature:")

    def analysis_inputs(self, wildcards) -> list[str]:
        """Base model, prompts and scorer of an analysis."""
        analysis = self.config.analyses[wildcards.analysis]
        files = [model_file(self.config, analysis.model), prompt_file(self.config, analysis.prompts)]
        return files + scorer_files(self.config, [analysis.scorer])

    def gradient_studies(self) -> list[str]:
        """Names of the analyses that sample gradients: one at most."""
        return [name for name, analysis in self.config.analyses.items() if analysis.gradients_of is not None]

    def analysis_settings(self, wildcards) -> str:
        """Digest of the configuration that decides the samples of an analysis."""
        analysis = self.config.analyses[wildcards.analysis]
        prompts = decisive(self.config.prompt_sets[analysis.prompts], {"images_per_prompt", "layout"})
        scorer = decisive(self.config.scorers[analysis.scorer])
        trained = decisive(self.config.runs[analysis.gradients_of]) if analysis.gradients_of else None
        return digest(decisive(analysis), decisive(self.config.models[analysis.model]), prompts, scorer, trained)

    def analysis_code(self, wildcards) -> str:
        """Fingerprint of the code that decides the samples of an analysis."""
        analysis = self.config.analyses[wildcards.analysis]
        job = "progrpo.jobs.sample_gradients" if analysis.gradients_of else "progrpo.jobs.sample_rewards"
        return self._fingerprint(job, scorers=[analysis.scorer])

    def analysis_resources(self) -> dict[str, OfJob]:
        """What the sampling of an analysis asks of a cluster, each a function of its wildcards."""
        return self._resources_of(lambda wildcards: self.config.analyses[wildcards.analysis].hardware)

    def study_weights(self, arm: str) -> list[str]:
        """The trained weights of one arm of the static study, for the seeds that all arms have: they are compared in pairs."""
        return [self._weights_file(OVF_STUDY[arm], seed) for seed in self._study_seeds()]

    def _study_seeds(self) -> list[int]:
        arms = OVF_STUDY.values()
        if not set(arms) <= set(self.config.runs):
            return []
        return sorted(set.intersection(*(set(seeds_of(self.config, run)) for run in arms)))

    def table_files(self, cells: Iterable[tuple[str, str]]) -> list[str]:
        """The evaluations and analyses of cells (model, prompt set or analysis), as far as the tier has them."""
        evaluated = {
            (name, prompts) for name in evaluated_names(self.config) for prompts in prompt_sets_of(self.config, name)
        }
        files = []
        for name, source in sorted(cells):
            if (name, source) in evaluated and self.scored([source]):
                folders = [seed_folder(name, seed) for seed in seeds_of(self.config, name)]
                files += [f"{self.config.results}/evaluations/{folder}/{source}.json" for folder in folders]
            elif source in ("flops", *self.analyses()):
                files.append(f"{self.config.results}/analysis/{source}.json")
        return sorted(set(files))

    def arms_settings(self) -> str:
        """Digest of the configuration that decides how all runs train: whose progress gradients predict."""
        return digest({name: decisive(run) for name, run in self.config.runs.items()})

    def tables_settings(self) -> str:
        """Digest of the configuration that tables print: everything about the runs, of where they ran only on how many GPUs."""
        return digest(
            *(
                (run.model_dump(mode="json", exclude={"hardware", "speed"}), run.hardware.ranks)
                for run in self.config.runs.values()
            )
        )
