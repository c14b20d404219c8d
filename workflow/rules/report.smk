# What a person reads: figures, image grids, and the tables of this run, on one page and in LaTeX.

# No guard, and no figure, where no claim of the tier compares trainings.
GUARDS = CLAIMS.guards_of(TIER.tier)
CLAIM_FIGURES = [
    *(("forest", "predicted", "pairs") if GUARDS else ()),
    *(f"curves_{name}" for name in GUARDS),
]
EXPECTED_TABLES = sorted(Path("paper_tables/expected").glob("*.yaml"))


rule draw_training_curves:
    input:
        weights=lambda wildcards: PLAN.weights_files(CURVES[wildcards.curves]),
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
        code=PLAN.code_of("progrpo.commands.figures"),
        runs=lambda wildcards, input: run_folders(input.weights),
        stem=subpath(output[1], strip_suffix=".pdf"),
    shell:
        "progrpo figures --figure fig5 --data {params.runs:q} --out {params.stem:q} > {log:q} 2>&1"


rule draw_analysis:
    input:
        data="<results>/analysis/{analysis}.json",
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
        code=PLAN.code_of("progrpo.commands.figures"),
        figure=lambda wildcards: ANALYSIS_FIGURES[wildcards.analysis],
        stem=subpath(output[1], strip_suffix=".pdf"),
    shell:
        "progrpo figures --figure {params.figure:q} --data {input.data:q} --out {params.stem:q} > {log:q} 2>&1"


rule draw_previews:
    input:
        data=f"<results>/analysis/samples/{PILOT}.npz",
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
        code=PLAN.code_of("progrpo.commands.figures"),
        stem=subpath(output[1], strip_suffix=".pdf"),
    shell:
        "progrpo figures --figure fig7 --data {input.data:q} --out {params.stem:q} > {log:q} 2>&1"


rule draw_grid:
    input:
        data="<results>/analysis/samples/qualitative.npz",
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
        code=PLAN.code_of("progrpo.commands.figures"),
        stem=subpath(output[1], strip_suffix=".pdf"),
    shell:
        "progrpo figures --figure qualitative --data {input.data:q} --out {params.stem:q} > {log:q} 2>&1"


if JUDGED:

    rule judge_claims:
        input:
            PLAN.learning_curve_files(),
            PLAN.analysis_files(),
            claims="config/claims.yaml",
        output:
            verdicts="<results>/claims.json",
            pictures=report(
                expand(
                    "<results>/figures/claims_{name}.png",
                    name=CLAIM_FIGURES,
                ),
                category="Claims",
                caption="../report/claims.rst",
            ),
            figures=expand("<results>/figures/claims_{name}.pdf", name=CLAIM_FIGURES),
        log:
            "<results>/logs/claims.log",
        benchmark:
            "<results>/benchmarks/claims.tsv"
        conda:
            "../../environment.yml"
        resources:
            mem_mb=4000,
            runtime=30,
        params:
            code=PLAN.code_of("progrpo.commands.claims"),
            config=CONFIG_FILE,
            settings=PLAN.tables_settings(),
            figures=lambda wildcards, output: f"{Path(output.verdicts).parent}/figures",
        shell:
            "progrpo claims --config {params.config:q} --claims {input.claims:q} --own --out {output.verdicts:q}"
            " --figures {params.figures:q} > {log:q} 2>&1"


rule show_tables:
    input:
        summary="<results>/summary.json",
        expected=EXPECTED_TABLES,
    output:
        page=report(
            "<results>/tables.html",
            category="Tables",
            caption="../report/tables.rst",
        ),
        fragments=expand(
            "<results>/tables/{name}.tex",
            name=[path.stem for path in EXPECTED_TABLES],
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
        code=PLAN.code_of("progrpo.commands.tables"),
        config=CONFIG_FILE,
        settings=PLAN.tables_settings(),
    shell:
        "progrpo tables --config {params.config:q} --own --table page --out {output.page:q} > {log:q} 2>&1 && "
        "progrpo tables --config {params.config:q} --own >> {log:q} 2>&1"
