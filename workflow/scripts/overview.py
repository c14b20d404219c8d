"""What a tier's run made, where it lies and how it reads: the closing lines of every way to run it."""

import sys
from pathlib import Path

from progrpo.config import Config, load_config
from progrpo.errors import UserError
from progrpo.names import parse_seed_folder, seed_folder, seeds_of
from progrpo.report.metrics import main_metrics
from progrpo.report.stored import load_summary

PARTS = ("runs", "evaluations", "curves")  # of a results folder that are named by run and seed


def main_numbers(summary: dict, config: Config) -> list[str]:
    """One line per evaluated model: its metrics on the in-domain test prompts of its family, and GenEval, mean over seeds."""
    lines = []
    for model, metrics in main_metrics(summary, config).items():
        if seeds := metrics.pop("seeds"):
            numbers = "  ".join(f"{metric} {value:.4g}" for metric, value in metrics.items())
            lines.append(f"  {model:22} {numbers}  (n = {seeds})")
    return lines


def complete(results: Path, config: Config) -> str:
    """What a tier's folder has of its trainings, whose results may have been adopted."""
    wanted = {(run, seed) for run in config.runs for seed in seeds_of(config, run)}
    found = {parse_seed_folder(path.name.split(".")[0]) for part in PARTS for path in results.glob(f"{part}/*")}
    there = wanted & found
    seeds = ", ".join(map(str, sorted({seed for _, seed in there})))
    runs = len({run for run, _ in there})
    if there == wanted:
        return f"Tier {config.tier} is complete: {runs} runs with seeds {seeds}."
    return (
        f"Tier {config.tier}: results of {len(there)} of {len(wanted)} trainings ({runs} of {len(config.runs)} runs"
        f"{', seeds ' + seeds if seeds else ''})."
    )


def main(tier: str) -> None:
    """Print the overview of a tier."""
    config = load_config(f"config/{tier}.yaml")
    results = Path(config.results)
    summary = load_summary(results / "summary.json", config.tier)
    figures = ", ".join(path.stem for path in sorted((results / "figures").glob("*.pdf")))
    print(f"\n{complete(results, config)}")
    print(
        f"  tables   {results}/tables.html, {results}/tables/*.tex; on paper: make paper-tables.pdf OWN=1 TIER={tier}"
    )
    print(f"  figures  {results}/figures/  {figures}")
    print(f"  numbers  {results}/summary.json  every number that a table reads, with its seeds")
    if (results / "runs").is_dir():  # published results come without weights and images
        print(
            f"  runs     {results}/runs/{seed_folder('<run>', '<seed>')}/  weights in final/, a line per iteration in metrics.jsonl"
        )
        print(f"  images   {results}/images/{seed_folder('<model>', '<seed>')}/<prompt set>/")
    print("\nIn-domain test prompts and GenEval, mean over seeds:")
    print("\n".join(main_numbers(summary, config)))
    if all(model.source is None for model in config.models.values()):
        print("\nMiniature models and scorers: compare rows with each other, not with the paper's numbers.")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except UserError as error:  # as after --touch, which makes empty files of what is not there
        print(f"overview: {error}", file=sys.stderr)
