# The published results in the place of the rules that train and evaluate: --config results=stored.
# Training curves need the runs themselves, which are not published.

PUBLISHED = Path("results/published", TIER.tier)
PARTS = ["evaluations", "analysis", *(["curves"] if TIER.learning_curve else [])]
POINTERS = [f"{PUBLISHED}/{part}.dvc" for part in PARTS]

if not all(Path(pointer).is_file() for pointer in POINTERS):
    sys.exit(
        f"Snakefile: --config results=stored: nothing is published of tier {TIER.tier} ({POINTERS[0]} is missing)"
    )
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
        "dvc pull --force {input.pointers:q} > {log:q} 2>&1 && cp -r {params.folders:q} {input.summary:q} {params.results:q}/"
