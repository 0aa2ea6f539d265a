"""`edpipe schema`: the JSON schema of params.yaml, for editors; workflow/params.schema.json holds it."""

from argparse import ArgumentParser

from edpipe.params.load import load_project_plugins
from edpipe.params.schema import json_schema


def add_schema(command: ArgumentParser) -> None:
    """It has no arguments."""
    command.set_defaults(run=schema)


def schema() -> None:
    """Prints the schema."""
    load_project_plugins()
    print(json_schema(), end="")
