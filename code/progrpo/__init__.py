"""Pro-GRPO: expand-and-prune GRPO for text-to-image models (arXiv 2512.15347)."""
