"""What the Snakefile asks (the jobs of a tier, what each reads, the code it depends on), and what this machine can run."""
