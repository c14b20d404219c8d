# The published weights in the place of the rules that train: --config results=weights. Images, scores and analyses are made
# anew, of the runs and seeds whose weights are published and of no others. Learning curves are made anew where all snapshots are
# published; where they are not, the published curves are taken.

FINALS = PLAN.weights_files(TIER.runs)

if foreign := publishing.foreign_training(Path(TIER.results)):
    sys.exit(
        f"Snakefile: --config results=weights: {foreign} is a training of your own; move {TIER.results} away first"
    )


localrules:
    adopt_weights,


rule adopt_weights:
    input:
        finals=[f"{PUBLISHED}/runs/{Path(file).parts[-3]}/final.dvc" for file in FINALS],
        snapshots=sorted(map(str, PUBLISHED.glob("runs/*/snapshots.dvc"))),
        records=f"{PUBLISHED}/training.dvc",
    output:
        FINALS,
    log:
        "<results>/logs/adopt_weights.log",
    benchmark:
        "<results>/benchmarks/adopt_weights.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        published=PUBLISHED,
        results=subpath(output[0], ancestor=4),
    shell:
        "dvc pull --force {input:q} > {log:q} 2>&1"
        " && sha256sum {params.published:q}/runs/*/final/provenance.json > {params.results:q}/adopted.sha256"
        " && tar -C {params.published:q} -c --exclude='*.dvc' --exclude=.gitignore runs | tar -C {params.results:q} -x"
        " && cp -r {params.published:q}/training/. {params.results:q}/runs/"
        " && find {params.results:q}/runs -name '*.jsonl.gz' -exec gunzip -f {{}} +"


if PLAN.learning_curve_files() and STORED_CURVES is not None:

    localrules:
        adopt_curves,

    rule adopt_curves:
        input:
            f"{PUBLISHED}/curves.dvc",
        output:
            PLAN.learning_curve_files(),
        log:
            "<results>/logs/adopt_curves.log",
        benchmark:
            "<results>/benchmarks/adopt_curves.tsv"
        conda:
            "../../environment.yml"
        resources:
            mem_mb=4000,
            runtime=30,
        params:
            folder=f"{PUBLISHED}/curves",
            results=subpath(output[0], ancestor=2),
        shell:
            "dvc pull --force {input:q} > {log:q} 2>&1 && cp -r {params.folder:q} {params.results:q}/"
