"""Expand and prune, the GRPO objective, and the loop that trains: what the paper is about."""
