"""`logger: progrpo` in a Snakemake profile: the lines of progrpo.workflow.console in the place of Snakemake's own on the terminal.

Snakemake finds a logger by the name of its module. Its complete log stays in .snakemake/log/; with -p, --verbose or --debug-dag the
terminal has Snakemake's own text too.
"""

import logging
import sys

from snakemake_interface_logger_plugins.base import LogHandlerBase

from progrpo.workflow.console import Console


class LogHandler(LogHandlerBase):
    """Writes to the stream that Snakemake would write to."""

    def __post_init__(self) -> None:
        self.console = Console()
        shown = self.common_settings
        self.complete = shown.printshellcmds or shown.verbose or shown.debug_dag

    def emit(self, record: logging.LogRecord) -> None:
        """Print what a person reads of one event."""
        try:
            event = getattr(record, "event", None)
            if self.complete:
                lines = [self.format(record)]
            else:
                lines = self.console.lines(event and str(event), record.__dict__, record.getMessage())
            stream = sys.stdout if self.common_settings.stdout else sys.stderr
            for line in lines:
                print(line, file=stream, flush=True)
        except Exception:
            self.handleError(record)

    @property
    def writes_to_stream(self) -> bool:
        """In the place of Snakemake's own handler."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """Snakemake keeps its own file."""
        return False

    @property
    def has_filter(self) -> bool:
        """Snakemake's filter serves, with its --quiet."""
        return False

    @property
    def has_formatter(self) -> bool:
        """Snakemake's formatter serves, for its complete text."""
        return False

    @property
    def needs_rulegraph(self) -> bool:
        """It draws none."""
        return False
