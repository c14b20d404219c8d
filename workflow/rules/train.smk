# One training per run and seed. The resume state lies undeclared in <run>/state/: Snakemake never touches it, so a killed,
# timed-out or preempted job goes on from it. final/provenance.json is written last.


rule train:
    input:
        PLAN.train_inputs,
    output:
        provenance=ensure(
            "<results>/runs/{run}-seed{seed}/final/provenance.json", non_empty=True
        ),
    log:
        "<results>/logs/train/{run}-seed{seed}.log",
    benchmark:
        "<results>/benchmarks/train/{run}-seed{seed}.tsv"
    wildcard_constraints:
        run=regex(run for run in TIER.runs if run not in PLAN.several_nodes()),
    conda:
        "../../environment.yml"
    resources:
        **PLAN.train_resources(),
    params:
        code=PLAN.train_code,
        folder=subpath(output.provenance, ancestor=2),
        config=CONFIG_FILE,
        settings=PLAN.train_settings,
        launch=PLAN.launch,
    shell:
        "bash workflow/scripts/launch.sh {params.launch:q}"
        " progrpo train --config {params.config:q} --run {wildcards.run:q}"
        " --seed {wildcards.seed:q} --out {params.folder:q}"
        " --if-changed begin-anew --wait-for-lock --fingerprint {params.code:q}"
        " > {log:q} 2>&1"


use rule train as train_on_several_nodes with:
    wildcard_constraints:
        run=regex(PLAN.several_nodes()),
    resources:
        **PLAN.train_resources(),
        mpi="srun",  # the job script itself starts a process group on every node: scripts/launch.sh
        tasks=PLAN.train_nodes,
        tasks_per_gpu=0,  # or the plugin takes `tasks` for the tasks of one GPU
