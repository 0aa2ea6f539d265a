"""`edpipe knobs`: every knob of params.yaml, in Markdown; docs/params.md holds it."""

from argparse import ArgumentParser

from edpipe.params.load import load_project_plugins
from edpipe.params.text.reference_page import reference_page


def add_knobs(command: ArgumentParser) -> None:
    """It has no arguments."""
    command.set_defaults(run=knobs)


def knobs() -> None:
    """Prints the page."""
    load_project_plugins()
    print(reference_page(), end="")
