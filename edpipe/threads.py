"""How many threads a step may use: from the environment, never from a knob, never in a result."""

import os

THREAD_VARIABLES = ("EDPIPE_THREADS", "OMP_NUM_THREADS")


def num_threads() -> int:
    """Threads this process may use: EDPIPE_THREADS, else OMP_NUM_THREADS (Snakemake sets it), else all cores.

    Raises:
        ValueError: the variable is not a whole number of at least 1.
    """
    for variable in THREAD_VARIABLES:
        text = os.environ.get(variable)
        if text:
            if not text.isdigit() or int(text) < 1:
                raise ValueError(f"{variable}={text!r}: must be a whole number of at least 1")
            return int(text)
    return len(os.sched_getaffinity(0))
