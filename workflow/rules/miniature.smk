# The miniature world made anew (--config miniature=trained). The stored one came from exactly these rules.


rule write_miniature_prompts:
    input:
        code=code("miniature/prompts.py", "miniature/world.py"),
    output:
        MINIATURE_PROMPTS,
    log:
        "results/logs/miniature/prompts.log",
    benchmark:
        "results/benchmarks/miniature/prompts.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        folder=subpath(output[0], parent=True),
    shell:
        "progrpo miniature prompts --out {params.folder:q} > {log:q} 2>&1"


rule train_miniature_autoencoder:
    input:
        code=code("miniature/autoencoder.py", "miniature/scenes.py"),
    output:
        config=f"{MINIATURE}/autoencoder/config.json",
    log:
        "results/logs/miniature/autoencoder.log",
    benchmark:
        "results/benchmarks/miniature/autoencoder.tsv"
    conda:
        "../../environment.yml"
    resources:
        runtime="1h",
    params:
        folder=subpath(output.config, parent=True),
    shell:
        "progrpo miniature autoencoder --out {params.folder:q} > {log:q} 2>&1"


rule train_miniature_model:
    input:
        autoencoder=rules.train_miniature_autoencoder.output.config,
        code=code("miniature/pretrain.py", "miniature/text.py", "miniature/scenes.py"),
    output:
        denoiser=f"{MINIATURE}/{{model}}/{{part}}/diffusion_pytorch_model.safetensors",
    log:
        "results/logs/miniature/{model}_{part}.log",
    benchmark:
        "results/benchmarks/miniature/{model}_{part}.tsv"
    wildcard_constraints:
        model=regex(MINIATURE_MODELS),
        part="transformer|unet",
    conda:
        "../../environment.yml"
    resources:
        runtime="3h",
    params:
        autoencoder=subpath(input.autoencoder, parent=True),
        folder=subpath(output.denoiser, ancestor=2),
    shell:
        "progrpo miniature {wildcards.model:q} --autoencoder {params.autoencoder:q} --out {params.folder:q} > {log:q} 2>&1"


rule train_miniature_scorer:
    input:
        code=code("rewards", "miniature/scenes.py"),
    output:
        weights=f"{MINIATURE}/scorers/{{scorer}}/{{file}}",
    log:
        "results/logs/miniature/{scorer}_{file}.log",
    benchmark:
        "results/benchmarks/miniature/{scorer}_{file}.tsv"
    wildcard_constraints:
        scorer=regex(SCORER_FILES),
        file=regex(map(re.escape, SCORER_FILES.values())),
    conda:
        "../../environment.yml"
    resources:
        runtime="2h",
    params:
        folder=subpath(output.weights, parent=True),
    shell:
        "progrpo scorers train --name {wildcards.scorer:q} --out {params.folder:q} > {log:q} 2>&1"


rule train_miniature_detector:
    input:
        code=code("benchmarks/geneval", "miniature/scenes.py"),
    output:
        report=f"{MINIATURE}/detector/report.json",
    log:
        "results/logs/miniature/detector.log",
    benchmark:
        "results/benchmarks/miniature/detector.tsv"
    conda:
        "../../environment.yml"
    resources:
        runtime="2h",
    params:
        folder=subpath(output.report, parent=True),
    shell:
        "progrpo geneval train-miniature --out {params.folder:q} > {log:q} 2>&1"


rule train_miniature_blip_vqa:
    input:
        code=code("benchmarks/compbench", "miniature/scenes.py"),
    output:
        report=f"{MINIATURE}/blip_vqa/report.json",
    log:
        "results/logs/miniature/blip_vqa.log",
    benchmark:
        "results/benchmarks/miniature/blip_vqa.tsv"
    conda:
        "../../environment.yml"
    resources:
        runtime="2h",
    params:
        folder=subpath(output.report, parent=True),
    shell:
        "progrpo compbench train-miniature --out {params.folder:q} > {log:q} 2>&1"
