# The published results in the place of the rules that train and evaluate: --config results=stored. What is not published is left out.
# Training curves need the runs themselves, which are not published.

POINTERS = [
    pointer
    for name in publishing.RESULTS
    if Path(pointer := f"{PUBLISHED}/{name}.dvc").is_file()
]

if Path(TIER.results, "runs").exists():
    sys.exit(
        f"Snakefile: --config results=stored: {TIER.results} holds a run of your own; move it away first"
    )


localrules:
    adopt_published,


rule adopt_published:
    input:
        pointers=POINTERS,
        summary=f"{PUBLISHED}/summary.json",
    output:
        PLAN.evaluation_files(),
        PLAN.learning_curve_files(),
        PLAN.analysis_files(),
        PLAN.stored_samples(),
        summary="<results>/summary.json",
    log:
        "<results>/logs/adopt_published.log",
    benchmark:
        "<results>/benchmarks/adopt_published.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        folders=[pointer.removesuffix(".dvc") for pointer in POINTERS],
        results=subpath(output.summary, parent=True),
    shell:
        "dvc pull --force {input.pointers:q} > {log:q} 2>&1"
        " && cp -r {params.folders:q} {input.summary:q} {params.results:q}/"
        " && find {params.results:q} -name '*.jsonl.gz' -exec gunzip -f {{}} +"
