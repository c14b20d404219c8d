# The paper's analyses. Sampling is one rule, so that a figure can be redrawn and a statistic changed without a GPU.


rule sample_rewards:
    input:
        PLAN.analysis_inputs,
    output:
        rewards="<results>/analysis/samples/{analysis}.json",
    log:
        "<results>/logs/analyse/sample_{analysis}.log",
    benchmark:
        "<results>/benchmarks/analyse/sample_{analysis}.tsv"
    wildcard_constraints:
        analysis=regex(
            name
            for name in TIER.analyses
            if name not in (PILOT, *PLAN.gradient_studies())
        ),
    conda:
        "../../environment.yml"
    resources:
        **PLAN.analysis_resources(),
    params:
        code=PLAN.analysis_code,
        config=CONFIG_FILE,
        settings=PLAN.analysis_settings,
    shell:
        "progrpo sample-rewards --config {params.config:q} --analysis {wildcards.analysis:q} --out {output.rewards:q} > {log:q} 2>&1"


use rule sample_rewards as sample_previews with:
    output:
        rewards="<results>/analysis/samples/{analysis}.json",
        images="<results>/analysis/samples/{analysis}.npz",
    wildcard_constraints:
        analysis=PILOT,


use rule sample_rewards as sample_gradients with:
    output:
        rewards="<results>/analysis/samples/{analysis}.npz",
    wildcard_constraints:
        analysis=regex(PLAN.gradient_studies()),


rule analyse_gradient_signal:
    input:
        samples="<results>/analysis/samples/{analysis}.npz",
    output:
        "<results>/analysis/{analysis}.json",
    log:
        "<results>/logs/analyse/{analysis}.log",
    benchmark:
        "<results>/benchmarks/analyse/{analysis}.tsv"
    wildcard_constraints:
        analysis=regex(PLAN.gradient_studies()),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        code=PLAN.code_of("progrpo.commands.analyse:run_gradients"),
        config=CONFIG_FILE,
        settings=PLAN.arms_settings(),
    shell:
        "progrpo analyse gradient-signal --samples {input.samples:q} --config {params.config:q}"
        " --analysis {wildcards.analysis:q} --out {output:q} > {log:q} 2>&1"


rule analyse_reward_clustering:
    input:
        rewards="<results>/analysis/samples/reward_clustering.json",
    output:
        "<results>/analysis/reward_clustering.json",
    log:
        "<results>/logs/analyse/reward_clustering.log",
    benchmark:
        "<results>/benchmarks/analyse/reward_clustering.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        code=PLAN.code_of("progrpo.commands.analyse:run_clustering"),
    shell:
        "progrpo analyse reward-clustering --rewards {input.rewards:q} --out {output:q} > {log:q} 2>&1"


rule analyse_pruning_pilot:
    input:
        previews="<results>/analysis/samples/pruning_pilot.json",
    output:
        "<results>/analysis/pruning_pilot.json",
    log:
        "<results>/logs/analyse/pruning_pilot.log",
    benchmark:
        "<results>/benchmarks/analyse/pruning_pilot.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        code=PLAN.code_of("progrpo.commands.analyse:run_pilot"),
    shell:
        "progrpo analyse pruning-pilot --previews {input.previews:q} --out {output:q} > {log:q} 2>&1"


rule analyse_ovf_study:
    input:
        full=PLAN.study_weights("full"),
        uniform=PLAN.study_weights("uniform"),
        ovf=PLAN.study_weights("ovf"),
    output:
        "<results>/analysis/ovf_study.json",
    log:
        "<results>/logs/analyse/ovf_study.log",
    benchmark:
        "<results>/benchmarks/analyse/ovf_study.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        code=PLAN.code_of("progrpo.commands.analyse:run_ovf_study"),
        full=lambda wildcards, input: run_folders(input.full),
        uniform=lambda wildcards, input: run_folders(input.uniform),
        ovf=lambda wildcards, input: run_folders(input.ovf),
    shell:
        "progrpo analyse ovf-study --full {params.full:q} --uniform {params.uniform:q} --ovf {params.ovf:q}"
        " --out {output:q} > {log:q} 2>&1"


rule count_flops:
    output:
        "<results>/analysis/flops.json",
    log:
        "<results>/logs/analyse/flops.log",
    benchmark:
        "<results>/benchmarks/analyse/flops.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        code=PLAN.code_of("progrpo.commands.flops"),
    shell:
        "progrpo flops --out {output:q} > {log:q} 2>&1"
