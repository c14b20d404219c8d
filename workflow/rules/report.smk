# What a person reads: figures, image grids, and the one file that the tables are set from.


rule draw_training_curves:
    input:
        weights=lambda wildcards: run_files(CURVES[wildcards.curves]),
        code=code("figures.py"),
    output:
        report(
            "<results>/figures/{curves}.png",
            category="Training",
            caption="../report/training_curves.rst",
            labels={"figure": "{curves}"},
        ),
        "<results>/figures/{curves}.pdf",
    log:
        "<results>/logs/figures/{curves}.log",
    wildcard_constraints:
        curves=regex(CURVES),
    conda:
        "../../environment.yml"
    params:
        runs=lambda wildcards, input: run_folders(input.weights),
        quantities=CURVE_KEYS,
        stem=subpath(output[1], strip_suffix=".pdf"),
    shell:
        "progrpo figures --figure fig5 --data {params.runs} --keys {params.quantities} --out {params.stem} > {log} 2>&1"


rule draw_analysis:
    input:
        data="<results>/analysis/{analysis}.json",
        code=code("figures.py"),
    output:
        report(
            "<results>/figures/{analysis}.png",
            category="Analyses",
            caption="../report/analysis.rst",
            labels={"figure": "{analysis}"},
        ),
        "<results>/figures/{analysis}.pdf",
    log:
        "<results>/logs/figures/{analysis}.log",
    wildcard_constraints:
        analysis=regex(ANALYSIS_FIGURES),
    conda:
        "../../environment.yml"
    params:
        figure=lambda wildcards: ANALYSIS_FIGURES[wildcards.analysis],
        stem=subpath(output[1], strip_suffix=".pdf"),
    shell:
        "progrpo figures --figure {params.figure} --data {input.data} --out {params.stem} > {log} 2>&1"


rule summarise:
    input:
        evaluations=evaluation_files(),
        weights=run_files(TIER.runs),
        analyses=expand("<results>/analysis/{name}.json", name=["flops", *analyses()]),
        code=code("summary.py"),
    output:
        summary=report(
            "<results>/summary.json",
            category="Summary",
            caption="../report/summary.rst",
        ),
    log:
        "<results>/logs/summary.log",
    conda:
        "../../environment.yml"
    params:
        config=CONFIG_FILE,
    shell:
        "progrpo summary --config {params.config} --out {output.summary} > {log} 2>&1"
