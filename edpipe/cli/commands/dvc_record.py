"""`edpipe dvc-record`: artifacts that were made without DVC are recorded in dvc.lock and put into its cache."""

from argparse import ArgumentParser

from edpipe.pipeline.dvc.record import record_made


def add_dvc_record(command: ArgumentParser) -> None:
    """It has no arguments."""
    command.set_defaults(run=record_made)
