# A target per table: `snakemake table_flow_main` runs what that table reads and sets it; the cells of other runs stay as they are.
# What some job of a larger run could not make stays `--`, and everything else is set when the run ends: --keep-going.
from progrpo.report.tables.layout import load_layout, reads, table_names

PAGE = f"{TIER.results}/tables.html"

for table in table_names():

    rule:
        name:
            f"table_{table}"
        input:
            PLAN.table_files(reads(load_layout(table))),
        log:
            f"<results>/logs/table_{table}.log",
        localrule: True
        conda:
            "../../environment.yml"
        resources:
            mem_mb=4000,
            runtime=30,
        params:
            table=table,
            config=CONFIG_FILE,
        shell:
            "progrpo summary --config {params.config:q} > {log:q} 2>&1 &&"
            " progrpo tables --config {params.config:q} --own --table {params.table:q} >> {log:q} 2>&1"


onerror:
    # Where nothing was made yet, the job's own message is the last.
    if Path(TIER.results).is_dir():
        shell(
            "progrpo summary --config {CONFIG_FILE:q} && progrpo tables --config {CONFIG_FILE:q} --own"
            " && progrpo tables --config {CONFIG_FILE:q} --own --table page --out {PAGE:q}"
        )
