"""From results on disk to what a person reads: the summary, figures, LaTeX tables, the paper's discrepancies."""
