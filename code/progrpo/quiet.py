"""Without the libraries' own progress bars and notices."""

from importlib import import_module


def silence_libraries(*names: str) -> None:
    """Progress bars and notices of loading would bury this project's own lines; errors still show.

    `names` are libraries that the caller uses, of `diffusers` and `transformers`: to import another would cost seconds.
    """
    for name in names:
        logging = import_module(f"{name}.utils.logging")
        logging.set_verbosity_error()
        logging.disable_progress_bar()
