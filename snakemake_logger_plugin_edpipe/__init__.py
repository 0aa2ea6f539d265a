"""Where Snakemake finds the logger plugin `edpipe`: it looks for top-level packages by this name."""

from edpipe.pipeline.snakemake.terminal.handler import LogHandler, LogHandlerSettings

__all__ = ["LogHandler", "LogHandlerSettings"]
