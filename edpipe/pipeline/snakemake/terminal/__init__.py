"""What a terminal, or a file, shows of a run: Snakemake's log records, told in the words of this pipeline.

Start with `handler`, which Snakemake finds as its logger plugin `edpipe` (folder snakemake_logger_plugin_edpipe).
"""
