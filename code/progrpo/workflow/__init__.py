"""What the Snakefile asks: which jobs a tier has, what each reads, and which code its result depends on; and what this machine can run."""
