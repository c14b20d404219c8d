"""Tier paper rehearsed: every file of the manifest with random weights at small width, in the layout of its release."""
