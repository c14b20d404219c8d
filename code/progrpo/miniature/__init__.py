"""A small text-to-image world in which the whole paper runs on a CPU: scenes, prompts, an exact checker, and small models of the
official architectures, pre-trained here and saved in the official folder layouts."""
