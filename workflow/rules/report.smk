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
    benchmark:
        "<results>/benchmarks/figures/{curves}.tsv"
    wildcard_constraints:
        curves=regex(CURVES),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=30,
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
    benchmark:
        "<results>/benchmarks/figures/{analysis}.tsv"
    wildcard_constraints:
        analysis=regex(ANALYSIS_FIGURES),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        figure=lambda wildcards: ANALYSIS_FIGURES[wildcards.analysis],
        stem=subpath(output[1], strip_suffix=".pdf"),
    shell:
        "progrpo figures --figure {params.figure} --data {input.data} --out {params.stem} > {log} 2>&1"


rule draw_previews:
    input:
        data=f"<results>/analysis/samples/{PILOT}.npz",
        code=code("figures.py"),
    output:
        report(
            "<results>/figures/previews.png",
            category="Analyses",
            caption="../report/previews.rst",
        ),
        "<results>/figures/previews.pdf",
    log:
        "<results>/logs/figures/previews.log",
    benchmark:
        "<results>/benchmarks/figures/previews.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        stem=subpath(output[1], strip_suffix=".pdf"),
    shell:
        "progrpo figures --figure fig7 --data {input.data} --out {params.stem} > {log} 2>&1"


rule collect_grid:
    input:
        images=[
            f"<results>/images/{model}-seed{seeds_of(model)[0]}/{QUALITATIVE}/prompts.jsonl"
            for model in GRID_MODELS
            if model in evaluated_models()
        ],
        script="workflow/scripts/collect_grid.py",
    output:
        data="<results>/analysis/samples/qualitative.npz",
    log:
        "<results>/logs/figures/collect_grid.log",
    benchmark:
        "<results>/benchmarks/figures/collect_grid.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=30,
    shell:
        "python {input.script} --out {output.data} {input.images} > {log} 2>&1"


rule draw_grid:
    input:
        data=rules.collect_grid.output.data,
        code=code("figures.py"),
    output:
        report(
            "<results>/figures/qualitative.png",
            category="Images",
            caption="../report/qualitative.rst",
        ),
        "<results>/figures/qualitative.pdf",
    log:
        "<results>/logs/figures/qualitative.log",
    benchmark:
        "<results>/benchmarks/figures/qualitative.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        stem=subpath(output[1], strip_suffix=".pdf"),
    shell:
        "progrpo figures --figure qualitative --data {input.data} --out {params.stem} > {log} 2>&1"


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
    benchmark:
        "<results>/benchmarks/summary.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        config=CONFIG_FILE,
    shell:
        "progrpo summary --config {params.config} --out {output.summary} > {log} 2>&1"


rule show_tables:
    input:
        summary=rules.summarise.output.summary,
        expected=sorted(Path("paper_tables/expected").glob("*.yaml")),
        code=code("tables"),
    output:
        report(
            "<results>/tables.html",
            category="Tables",
            caption="../report/tables.rst",
        ),
    log:
        "<results>/logs/tables.log",
    benchmark:
        "<results>/benchmarks/tables.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        config=CONFIG_FILE,
        settings=digest(*TIER.runs.values()),
    shell:
        "progrpo tables --config {params.config} --summary {input.summary}"
        " --table page --out {output} > {log} 2>&1"
