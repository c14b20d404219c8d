"""What a tier's run made, where it lies and how it reads: the closing lines of `make reproduce`."""

import sys
from pathlib import Path

from progrpo.config import load_config
from progrpo.files import read_json


def measured(summary: dict, config, prompts: str) -> list[str]:
    """One line per model: its metrics on a prompt set, mean over seeds."""
    lines = []
    for model, metrics in summary["evaluations"].items():
        values = {key.removeprefix(f"{prompts}."): value for key, value in metrics.items() if key.startswith(f"{prompts}.")}
        if values:
            seeds = max(value["n"] for value in values.values())
            numbers = "  ".join(f"{metric} {value['mean']:.4g}" for metric, value in sorted(values.items()))
            lines.append(f"  {model:24} {seeds} seed{'s' * (seeds > 1)}  {numbers}")
    return lines


def main(tier: str) -> None:
    """Print the overview of a tier."""
    config = load_config(f"config/{tier}.yaml")
    summary = read_json(Path(config.results) / "summary.json")
    figures = sorted(Path(config.results, "figures").glob("*.pdf"))
    tables = sorted(Path("paper_tables", tier).glob("*.tex"))
    print(f"\nTier {tier} is complete: {len(config.runs)} runs, {len(config.run_seeds(next(iter(config.runs))))} seed(s) each")
    print(f"  tables    paper_tables/{tier}/  ({len(tables)} LaTeX fragments; on paper: make paper-tables.pdf TIER={tier})")
    print(f"  figures   {config.results}/figures/  ({', '.join(path.stem for path in figures)})")
    print(f"  numbers   {config.results}/summary.json  (every number that a table reads, with its seeds)")
    print(f"  runs      {config.results}/runs/<run>-seed<seed>/  (trained weights in final/, metrics.jsonl)")
    print(f"  images    {config.results}/images/<model>-seed<seed>/<prompt set>/")
    prompts = next(iter(config.evaluations))
    print(f"\nOn the prompt set `{prompts}`:")
    print("\n".join(measured(summary, config, prompts)))
    if all(model.source is None for model in config.models.values()):
        print("\nMiniature models and scorers: compare rows with each other, not with the paper's numbers.")


if __name__ == "__main__":
    main(sys.argv[1])
