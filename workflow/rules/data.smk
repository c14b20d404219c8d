# Where models, scorers and prompts come from: the remote inside the repository, training them anew, or the public manifest.


localrules:
    restore_miniature,
    fetch,


if option_of("miniature") == "stored":

    rule restore_miniature:
        input:
            pointer=f"{MINIATURE}.dvc",
        output:
            MINIATURE_FILES,
        log:
            "results/logs/miniature/restore.log",
        conda:
            "../../environment.yml"
        shell:
            "dvc pull --force {input.pointer} > {log} 2>&1"

else:

    include: "miniature.smk"


rule fetch:
    output:
        record=fetched("{source}"),
    log:
        "results/logs/fetch/{source}.log",
    conda:
        "../../environment.yml"
    params:
        folder=subpath(output.record, parent=True),
    shell:
        "progrpo fetch {wildcards.source} --to {params.folder} --yes > {log} 2>&1"
