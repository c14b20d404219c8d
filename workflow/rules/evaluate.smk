# Images of every model on its prompt sets, and their scores. The configuration cuts this into jobs (evaluation_jobs), and each
# kind of job is a rule: one per prompt set where models are large, one per model where loading them is what takes time.

for job, sets in evaluation_jobs().items():

    rule:
        name:
            f"generate_{job}"
        input:
            generate_inputs(sets),
            weights=model_weights,
            code=code(
                "grpo/backbone.py",
                "jobs/images.py",
                "grpo/samplers.py",
                "grpo/tuning.py",
            ),
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
            model=regex(models_of(sets)),
        conda:
            "../../environment.yml"
        resources:
            **evaluation_resources(sets),
        params:
            folder=subpath(output[0], ancestor=2),
            folders=lambda wildcards, output: [
                str(Path(file).parent) for file in output.images
            ],
            config=CONFIG_FILE,
            sets=sets,
            weights=weights_option,
            settings=generate_digest(sets),
        shell:
            "begun_with=$(set -o pipefail; find -L {input:q} -type f -print0 | LC_ALL=C sort -z | xargs -0 cat | sha256sum"
            " | cut -c -16) && "
            "bash workflow/scripts/begin_anew_if_changed.sh {params.settings:q}-$begun_with {params.folders:q}"
            " > {log:q} 2>&1 && "
            "progrpo generate --config {params.config:q} --run {wildcards.model:q} --seed {wildcards.seed:q}"
            " --prompts {params.sets:q} --out {params.folder:q} {params.weights:q} >> {log:q} 2>&1"

    if scored(sets):

        rule:
            name:
                f"evaluate_{job}"
            input:
                evaluate_inputs(sets),
                images=expand(
                    "<results>/images/{{model}}-seed{{seed}}/{prompts}/prompts.jsonl",
                    prompts=scored(sets),
                ),
                code=code("jobs/evaluate.py", "rewards", *BENCHMARK_CODE),
            output:
                scores=expand(
                    "<results>/evaluations/{{model}}-seed{{seed}}/{prompts}.json",
                    prompts=scored(sets),
                ),
            log:
                f"<results>/logs/evaluate/{{model}}-seed{{seed}}_{job}.log",
            benchmark:
                f"<results>/benchmarks/evaluate/{{model}}-seed{{seed}}_{job}.tsv"
            wildcard_constraints:
                model=regex(models_of(sets)),
            conda:
                "../../environment.yml"
            resources:
                **evaluation_resources(sets),
            params:
                images=lambda wildcards, input: Path(input.images[0]).parents[1],
                folder=subpath(output[0], parent=True),
                config=CONFIG_FILE,
                sets=scored(sets),
                settings=evaluate_digest(scored(sets)),
            shell:
                "progrpo evaluate --config {params.config:q} --images {params.images:q} --prompts {params.sets:q}"
                " --out {params.folder:q} > {log:q} 2>&1"


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
        "python {input.script:q} --out {output.data:q} {input.images:q} > {log:q} 2>&1"


rule summarise:
    input:
        evaluations=evaluation_files(),
        weights=run_files(TIER.runs),
        analyses=analysis_files(),
        code=code("report/summary.py"),
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
        "progrpo summary --config {params.config:q} --out {output.summary:q} > {log:q} 2>&1"
