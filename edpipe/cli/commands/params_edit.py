"""Changing the text of params.yaml: one command at a time, checked before it is written, whole or not at all."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from filelock import lock_descriptor

from edpipe.params.load import parse_params
from edpipe.params.schema import Params
from edpipe.params.yaml_file import PARAMS_PATH, parse_text
from edpipe.pipeline.jobs.model_checks import check_params
from edpipe.storage.atomic import write_text_atomically


@contextmanager
def alone() -> Iterator[None]:
    """Waits until no other command is changing the params.yaml of this folder."""
    descriptor = os.open(".", os.O_RDONLY)
    try:
        lock_descriptor(descriptor)
        yield
    finally:
        os.close(descriptor)


def read_text() -> str:
    """The text of params.yaml with its own line ends."""
    with PARAMS_PATH.open(encoding="utf-8", newline="") as stream:
        return stream.read()


def checked(text: str, experiments: Iterable[str]) -> Params:
    """The knobs that a text of params.yaml gives, model names of these experiments included.

    Raises:
        ParamsError: one line for each thing that is wrong.
    """
    params = parse_params(parse_text(text))
    check_params(params, tuple(experiments), with_networks=False)
    return params


def write_text(text: str) -> None:
    """Puts the text in the place of params.yaml; a link to another file stays one."""
    write_text_atomically(PARAMS_PATH.resolve(), text)
