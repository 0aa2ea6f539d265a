"""How many threads and processes a step may use: from the environment, never from a knob, never in a result."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from edpipe.errors import EdpipeError

THREAD_VARIABLES = ("EDPIPE_THREADS", "OMP_NUM_THREADS")
PROCESSES_VARIABLE = "EDPIPE_PROCESSES"
NODES_VARIABLE = "EDPIPE_NODES"
MOST_THREADS = 1024
"""More, of threads or processes, are a slip of the finger, and cannot be started."""


def num_threads() -> int:
    """Threads this process may use: EDPIPE_THREADS, else OMP_NUM_THREADS (Snakemake sets it), else all cores.

    Raises:
        EdpipeError: the variable is not a whole number from 1 to 1024.
    """
    for variable in THREAD_VARIABLES:
        if os.environ.get(variable):
            return _count(variable)
    return len(os.sched_getaffinity(0))


@contextmanager
def by_default(count: int | None) -> Iterator[None]:
    """Inside the block as many threads a process, where the environment says nothing else; None: all cores."""
    if count is None or any(os.environ.get(variable) for variable in THREAD_VARIABLES):
        yield
        return
    os.environ[THREAD_VARIABLES[0]] = str(min(count * num_processes(), num_threads()))
    try:
        yield
    finally:
        del os.environ[THREAD_VARIABLES[0]]


def num_processes() -> int:
    """Processes of each node that are to train one network together: EDPIPE_PROCESSES, else 1.

    Raises:
        EdpipeError: the variable is not a whole number from 1 to 1024.
    """
    return _count(PROCESSES_VARIABLE) if os.environ.get(PROCESSES_VARIABLE) else 1


def num_nodes() -> int:
    """Nodes that are to train one network together, each with `num_processes`: EDPIPE_NODES, else 1.

    Raises:
        EdpipeError: the variable is not a whole number from 1 to 1024.
    """
    return _count(NODES_VARIABLE) if os.environ.get(NODES_VARIABLE) else 1


def num_started() -> int:
    """Processes that torchrun has started to train together, this one included; 1 if it has not.

    Raises:
        EdpipeError: WORLD_SIZE is not a whole number from 1 to 1024.
    """
    return _count("WORLD_SIZE") if is_started_by_torchrun() else 1


def is_started_by_torchrun() -> bool:
    """Whether this process is one of several that train together."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_alone_on_node() -> bool:
    """Whether a launcher on this node has started all processes that train together, and sees how each of them ends."""
    return os.environ.get("LOCAL_WORLD_SIZE", "") == os.environ.get("WORLD_SIZE", "1")


def is_main_process() -> bool:
    """Whether this process is alone or the first of those started together: the one that speaks and writes."""
    return os.environ.get("RANK", "0") == "0"


def _count(variable: str) -> int:
    text = os.environ[variable]
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= MOST_THREADS):
        raise EdpipeError(f"{variable}={text!r}: must be a whole number from 1 to {MOST_THREADS}; mend or unset it")
    return int(text)
