"""What can be used on its own, from Python and without a configuration; the names of `progrpo` itself stand for it."""
