# What the rules ask: the tier's configuration, and the plan that progrpo.workflow makes of it. No rule stands here.
import sys
from pathlib import Path

from progrpo.config import load_config
from progrpo.errors import UserError
from progrpo.names import evaluated_names
from progrpo.plugins import SCORER_FILES
from progrpo.report import stored
from progrpo.report.claims_file import load_claims
from progrpo.workflow import options, publishing
from progrpo.workflow.code_inputs import Code
from progrpo.workflow.plan import (
    ANALYSIS_FIGURES,
    CURVES,
    PILOT,
    Plan,
    run_folders,
)
from progrpo.workflow.site import load_site
from progrpo.workflow.sources import (
    MINIATURE,
    MINIATURE_FILES,
    MINIATURE_MODELS,
    MINIATURE_PROMPTS,
    fetched,
)

try:
    OPTIONS = options.choose(config)
    CONFIG_FILE = options.config_file(OPTIONS)
    TIER = load_config(CONFIG_FILE)
    options.require_own_place(CONFIG_FILE, TIER)
    CLAIMS = load_claims("config/claims.yaml")
    SITE = load_site()
    PUBLISHED = stored.PUBLISHED / TIER.tier
    STORED = STORED_CURVES = None
    if OPTIONS["results"] == "weights":
        TIER = publishing.with_published_weights(TIER, PUBLISHED)
        STORED_CURVES = publishing.stored_curves(TIER, PUBLISHED)
    if OPTIONS["results"] == "stored":
        STORED = publishing.stored_files(PUBLISHED)
except UserError as error:
    sys.exit(f"Snakefile: {error}")
JUDGED = bool(CLAIMS.of_tier(TIER.tier))
PLAN = Plan(TIER, Code(Path("code")), stored=STORED, curves=STORED_CURVES, site=SITE)


def regex(names):
    """A wildcard constraint for a list of names; one that fits nothing for an empty list."""
    return "|".join(names) or "(?!)"
