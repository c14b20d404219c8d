# Images of every model on its prompt sets, and their scores.


rule generate:
    input:
        generate_inputs,
        weights=model_weights,
        code=code("backbone.py", "samplers.py", "generate.py"),
    output:
        images="<results>/images/{model}-seed{seed}/{prompts}/prompts.jsonl",
    log:
        "<results>/logs/generate/{model}-seed{seed}/{prompts}.log",
    benchmark:
        "<results>/benchmarks/generate/{model}-seed{seed}/{prompts}.tsv"
    conda:
        "../../environment.yml"
    resources:
        gpu=hardware(of_evaluation, gpus),
        mem_mb=hardware(of_evaluation, megabytes),
        runtime=hardware(of_evaluation, minutes),
    params:
        folder=subpath(output.images, parent=True),
        config=CONFIG_FILE,
        weights=weights_option,
        settings=generate_digest,
    shell:
        "progrpo generate --config {params.config} --run {wildcards.model} --seed {wildcards.seed}"
        " --prompts {wildcards.prompts} --out {params.folder} {params.weights} > {log} 2>&1"


rule evaluate:
    input:
        evaluate_inputs,
        images=rules.generate.output.images,
        code=code("rewards", "benchmarks"),
    output:
        scores="<results>/evaluations/{model}-seed{seed}/{prompts}.json",
    log:
        "<results>/logs/evaluate/{model}-seed{seed}/{prompts}.log",
    benchmark:
        "<results>/benchmarks/evaluate/{model}-seed{seed}/{prompts}.tsv"
    conda:
        "../../environment.yml"
    resources:
        gpu=hardware(of_evaluation, gpus),
        mem_mb=hardware(of_evaluation, megabytes),
        runtime=hardware(of_evaluation, minutes),
    params:
        folder=subpath(input.images, parent=True),
        config=CONFIG_FILE,
        settings=evaluate_digest,
    shell:
        "progrpo evaluate --config {params.config} --images {params.folder} --prompts {wildcards.prompts}"
        " --out {output.scores} > {log} 2>&1"
