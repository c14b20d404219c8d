# The whole reproduction as one DAG. The tier decides sizes, nothing else:
#   snakemake all --profile local --config tier=smoke     2 CPU cores, minutes
#   snakemake --profile slurm all                         tier paper, a GPU cluster
#   snakemake --profile slurm table_flow_main             what one table reads, and the table
# Reads   config/<tier>.yaml, results/miniature.dvc, the manifest of public weights and prompts
# Writes  results/ only; paper_tables/ belongs to DVC (dvc.yaml)
from snakemake.utils import min_version

min_version("9.20")


include: "workflow/rules/common.smk"


report: "workflow/report/workflow.rst"


pathvars:
    results=TIER.results,


wildcard_constraints:
    model=regex(evaluated_names(TIER)),
    prompts=regex(TIER.evaluations),
    seed=r"0|[1-9]\d*",


include: "workflow/rules/data.smk"
include: "workflow/rules/report.smk"


if OPTIONS["results"] == "stored":

    include: "workflow/rules/stored.smk"

else:

    if OPTIONS["results"] == "weights":

        include: "workflow/rules/stored_weights.smk"

    else:

        include: "workflow/rules/train.smk"
    include: "workflow/rules/evaluate.smk"
    include: "workflow/rules/analyse.smk"
    include: "workflow/rules/tables.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        PLAN.evaluation_files(),
        PLAN.learning_curve_files(),
        PLAN.analysis_files(),
        [f"{TIER.results}/claims.json"] if JUDGED else [],
        rules.show_tables.output,
        PLAN.figure_files(),


onsuccess:
    if all(Path(path).is_file() for path in rules.all.input):
        shell("python workflow/scripts/overview.py {TIER.tier:q}")
