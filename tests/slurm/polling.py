"""`snakemake` that asks Slurm every two seconds: the plugin's own intervals grow by ten seconds while jobs run."""

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

if __name__ == "__main__":
    RemoteExecutor.next_seconds_between_status_checks = property(lambda self: 2, lambda self, seconds: None)
    main()
