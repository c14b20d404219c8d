# Evaluations and analyses as DVC stores them, in the place of the rules that train and evaluate: --config results=stored.
# The tier's summary is in git. Training curves need the runs themselves, which are not stored.


localrules:
    restore_evaluations,
    restore_analyses,


rule restore_evaluations:
    input:
        pointer="<results>/evaluations.dvc",
    output:
        PLAN.evaluation_files(),
    log:
        "<results>/logs/restore/evaluations.log",
    benchmark:
        "<results>/benchmarks/restore/evaluations.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=30,
    shell:
        "dvc pull --force {input.pointer} > {log} 2>&1"


rule restore_analyses:
    input:
        pointer="<results>/analysis.dvc",
    output:
        PLAN.analysis_files(),
        PLAN.stored_samples(),
    log:
        "<results>/logs/restore/analyses.log",
    benchmark:
        "<results>/benchmarks/restore/analyses.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=30,
    shell:
        "dvc pull --force {input.pointer} > {log} 2>&1"
