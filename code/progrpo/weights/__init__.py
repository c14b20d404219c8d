"""Public weights and prompts: the manifest, and fetching by it."""
