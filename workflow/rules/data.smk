# Where models, scorers and prompts come from: the remote inside the repository, training them anew, or the public manifest.


localrules:
    restore_miniature,
    fetch,


if OPTIONS["miniature"] == "stored":

    rule restore_miniature:
        input:
            pointer=f"{MINIATURE}.dvc",
        output:
            MINIATURE_FILES,
        log:
            "results/logs/miniature/restore.log",
        benchmark:
            "results/benchmarks/miniature/restore.tsv"
        conda:
            "../../environment.yml"
        resources:
            mem_mb=4000,
            runtime=30,
        shell:
            "dvc pull --force {input.pointer:q} > {log:q} 2>&1"

else:

    include: "miniature.smk"


rule fetch:
    output:
        record=fetched("{source}"),
    log:
        "results/logs/fetch/{source}.log",
    benchmark:
        "results/benchmarks/fetch/{source}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        folder=subpath(output.record, parent=True),
    shell:
        "progrpo fetch {wildcards.source:q} --to {params.folder:q} --yes > {log:q} 2>&1"
