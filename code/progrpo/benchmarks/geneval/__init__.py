"""GenEval (Ghosh et al. 2023, djghosh13/geneval @af4902f) on transformers: prompts, detection, verdicts."""
