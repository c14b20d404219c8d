# Images of every model on its prompt sets, and their scores. The configuration cuts this into jobs (evaluation_jobs), and each
# kind of job is a rule: one per prompt set where models are large, one per model where loading them is what takes time.

for job, sets in PLAN.evaluation_jobs().items():

    rule:
        name:
            f"generate_{job}"
        input:
            PLAN.generate_inputs(sets),
            weights=PLAN.weights_of,
        output:
            images=expand(
                "<results>/images/{{model}}-seed{{seed}}/{prompts}/prompts.jsonl",
                prompts=sets,
            ),
        log:
            f"<results>/logs/generate/{{model}}-seed{{seed}}_{job}.log",
        benchmark:
            f"<results>/benchmarks/generate/{{model}}-seed{{seed}}_{job}.tsv"
        wildcard_constraints:
            model=regex(PLAN.models_of(sets)),
        conda:
            "../../environment.yml"
        resources:
            **PLAN.evaluation_resources(sets),
        params:
            folder=subpath(output[0], ancestor=2),
            config=CONFIG_FILE,
            sets=sets,
            weights=lambda wildcards, input: (
                ["--weights", str(Path(input.weights[0]).parent)]
                if input.weights
                else []
            ),
            code=PLAN.generate_code(),
            settings=PLAN.generate_settings(sets),
        shell:
            "progrpo generate --config {params.config:q} --run {wildcards.model:q} --seed {wildcards.seed:q}"
            " --prompts {params.sets:q} --out {params.folder:q} {params.weights:q}"
            " --if-changed begin-anew --wait-for-lock --fingerprint {params.code:q}"
            " > {log:q} 2>&1"

    if PLAN.scored(sets):

        rule:
            name:
                f"evaluate_{job}"
            input:
                PLAN.evaluate_inputs(sets),
                images=expand(
                    "<results>/images/{{model}}-seed{{seed}}/{prompts}/prompts.jsonl",
                    prompts=PLAN.scored(sets),
                ),
            output:
                scores=expand(
                    "<results>/evaluations/{{model}}-seed{{seed}}/{prompts}.json",
                    prompts=PLAN.scored(sets),
                ),
            log:
                f"<results>/logs/evaluate/{{model}}-seed{{seed}}_{job}.log",
            benchmark:
                f"<results>/benchmarks/evaluate/{{model}}-seed{{seed}}_{job}.tsv"
            wildcard_constraints:
                model=regex(PLAN.models_of(sets)),
            conda:
                "../../environment.yml"
            resources:
                **PLAN.evaluation_resources(sets),
            params:
                images=lambda wildcards, input: Path(input.images[0]).parents[1],
                folder=subpath(output[0], parent=True),
                config=CONFIG_FILE,
                sets=PLAN.scored(sets),
                code=PLAN.evaluate_code(PLAN.scored(sets)),
                settings=PLAN.evaluate_settings(PLAN.scored(sets)),
            shell:
                "progrpo evaluate --config {params.config:q} --images {params.images:q} --prompts {params.sets:q}"
                " --out {params.folder:q}"
                " --if-changed begin-anew --wait-for-lock --fingerprint {params.code:q}"
                " > {log:q} 2>&1"


if TIER.learning_curve and STORED_CURVES is None:

    rule learning_curve:
        input:
            PLAN.curve_inputs,
            weights=PLAN.weights_of,
        output:
            "<results>/curves/{model}-seed{seed}.npz",
        log:
            "<results>/logs/curves/{model}-seed{seed}.log",
        benchmark:
            "<results>/benchmarks/curves/{model}-seed{seed}.tsv"
        conda:
            "../../environment.yml"
        resources:
            **PLAN.evaluation_resources([TIER.learning_curve]),
        params:
            folder=subpath(output[0], parent=True),
            config=CONFIG_FILE,
            weights=lambda wildcards, input: (
                ["--weights", str(Path(input.weights[0]).parent)]
                if input.weights
                else []
            ),
            code=PLAN.curve_code(),
            settings=PLAN.curve_settings,
        shell:
            "progrpo learning-curve --config {params.config:q} --run {wildcards.model:q} --seed {wildcards.seed:q}"
            " --out {params.folder:q} {params.weights:q}"
            " --if-changed begin-anew --wait-for-lock --fingerprint {params.code:q}"
            " > {log:q} 2>&1"

    rule record_costs:
        input:
            weights="<results>/runs/{run}-seed{seed}/final/provenance.json",
        output:
            "<results>/curves/{run}-seed{seed}.costs.json",
        log:
            "<results>/logs/curves/{run}-seed{seed}.costs.log",
        benchmark:
            "<results>/benchmarks/curves/{run}-seed{seed}.costs.tsv"
        wildcard_constraints:
            run=regex(TIER.runs),
        conda:
            "../../environment.yml"
        resources:
            mem_mb=4000,
            runtime=30,
        params:
            folder=subpath(input.weights, ancestor=2),
            config=CONFIG_FILE,
            code=PLAN.code_of("progrpo.commands.costs"),
            settings=PLAN.costs_settings,
        shell:
            "progrpo costs --config {params.config:q} --run {wildcards.run:q} --folder {params.folder:q} --out {output:q}"
            " > {log:q} 2>&1"


rule collect_grid:
    input:
        images=PLAN.grid_listings(),
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
        "python {input.script:q} --out {output.data:q} {input.images:q} > {log:q} 2>&1"


rule summarise:
    input:
        evaluations=PLAN.evaluation_files(),
        weights=PLAN.weights_files(TIER.runs),
        analyses=PLAN.analysis_files(),
        curves=PLAN.learning_curve_files(),
        hardware=sorted(map(str, Path("results/hardware").glob("*/wall_clock*.json"))),
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
        code=PLAN.code_of("progrpo.commands.summary"),
        config=CONFIG_FILE,
    shell:
        "progrpo summary --config {params.config:q} --out {output.summary:q} > {log:q} 2>&1"
