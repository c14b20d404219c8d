"""What the Snakefile is given with `--config`: which tier, and where its miniature models and its results come from."""

from collections.abc import Mapping

from progrpo.config import tier_files
from progrpo.errors import UserError

DEFAULTS = {
    "tier": "paper",  # config/<tier>.yaml
    "miniature": "stored",  # "stored": from the DVC remote in this repository; "trained": made anew
    "results": "made",  # "made": trained and evaluated here; "weights": published weights evaluated here; "stored": published
}


def choose(given: Mapping[str, str]) -> dict[str, str]:
    """Every option with its value; UserError for an unknown option or value. Tiers are the files of `config/`."""
    choices = {
        "tier": [path.stem for path in tier_files()],
        "miniature": ["stored", "trained"],
        "results": ["made", "weights", "stored"],
    }
    for option in given:
        if option not in DEFAULTS:
            raise UserError(f"--config {option}: no such option; known: {', '.join(DEFAULTS)}")
    chosen = {**DEFAULTS, **given}
    for option, known in choices.items():
        if chosen[option] not in known:
            raise UserError(f"--config {option}={chosen[option]}: use one of {', '.join(known)}")
    return chosen


def config_file(chosen: Mapping[str, str]) -> str:
    """The file of the chosen tier."""
    return f"config/{chosen['tier']}.yaml"
