# The miniature world made anew (--config miniature=trained). The stored one came from exactly these rules.
import re


rule write_miniature_prompts:
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
        code=PLAN.miniature_code("world"),
        folder=subpath(output[0], parent=True),
    shell:
        "progrpo miniature prompts --out {params.folder:q} > {log:q} 2>&1"


rule train_miniature_autoencoder:
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
        code=PLAN.miniature_code("world"),
        folder=subpath(output.config, parent=True),
    shell:
        "progrpo miniature autoencoder --out {params.folder:q} > {log:q} 2>&1"


rule train_miniature_model:
    input:
        autoencoder=rules.train_miniature_autoencoder.output.config,
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
        code=PLAN.miniature_code("world"),
        autoencoder=subpath(input.autoencoder, parent=True),
        folder=subpath(output.denoiser, ancestor=2),
    shell:
        "progrpo miniature {wildcards.model:q} --autoencoder {params.autoencoder:q} --out {params.folder:q} > {log:q} 2>&1"


rule train_miniature_scorer:
    output:
        weights=f"{MINIATURE}/scorers/{{scorer}}/{{file}}",
    log:
        "results/logs/miniature/{scorer}_{file}.log",
    benchmark:
        "results/benchmarks/miniature/{scorer}_{file}.tsv"
    wildcard_constraints:
        scorer=regex(SCORER_FILES),
        file=regex(map(re.escape, sorted({*sum(SCORER_FILES.values(), ())}))),
    conda:
        "../../environment.yml"
    resources:
        runtime="2h",
    params:
        code=PLAN.miniature_code("scorer_training"),
        folder=subpath(output.weights, parent=True),
    shell:
        "progrpo miniature {wildcards.scorer:q} --out {params.folder:q} > {log:q} 2>&1"


rule train_miniature_detector:
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
        code=PLAN.miniature_code("detector_training"),
        folder=subpath(output.report, parent=True),
    shell:
        "progrpo miniature detector --out {params.folder:q} > {log:q} 2>&1"


rule train_miniature_blip_vqa:
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
        code=PLAN.miniature_code("vqa_training"),
        folder=subpath(output.report, parent=True),
    shell:
        "progrpo miniature blip_vqa --out {params.folder:q} > {log:q} 2>&1"
