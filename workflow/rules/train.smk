# One training per run and seed. The resume state lies undeclared in <run>/state/: Snakemake never touches it, so a killed,
# timed-out or preempted job goes on from it. final/provenance.json is written last.

SEVERAL_NODES = [name for name, run in TIER.runs.items() if run.hardware.nodes > 1]


rule train:
    input:
        run_inputs,
    output:
        provenance=ensure(
            "<results>/runs/{run}-seed{seed}/final/provenance.json", non_empty=True
        ),
    log:
        "<results>/logs/train/{run}-seed{seed}.log",
    benchmark:
        "<results>/benchmarks/train/{run}-seed{seed}.tsv"
    wildcard_constraints:
        run=regex(run for run in TIER.runs if run not in SEVERAL_NODES),
    conda:
        "../../environment.yml"
    resources:
        nodes=1,
        gpu=hardware(of_run, gpus),
        mem_mb=hardware(of_run, megabytes),
        runtime=hardware(of_run, minutes),
    params:
        code=run_code,
        folder=subpath(output.provenance, ancestor=2),
        config=CONFIG_FILE,
        settings=run_digest,
        nodes=launched(lambda asked: asked.nodes),
        gpus=launched(lambda asked: asked.gpus),
    shell:
        "bash workflow/scripts/launch.sh {params.nodes:q} {params.gpus:q}"
        " progrpo train --config {params.config:q} --run {wildcards.run:q}"
        " --seed {wildcards.seed:q} --out {params.folder:q}"
        " --if-changed begin-anew --wait-for-lock --fingerprint {params.code:q}"
        " > {log:q} 2>&1"


use rule train as train_on_several_nodes with:
    wildcard_constraints:
        run=regex(SEVERAL_NODES),
    resources:
        mpi="srun",  # the job script itself starts a process group on every node: scripts/launch.sh
        nodes=hardware(of_run, lambda asked: asked.nodes),
        tasks=hardware(of_run, lambda asked: asked.nodes),
        gpu=hardware(of_run, gpus),
        mem_mb=hardware(of_run, megabytes),
        runtime=hardware(of_run, minutes),
