"""How many threads a step may use: from the environment, never from a knob, never in a result."""

import os

from edpipe.errors import EdpipeError

THREAD_VARIABLES = ("EDPIPE_THREADS", "OMP_NUM_THREADS")
MOST_THREADS = 1024
"""More are a slip of the finger, and cannot be started."""


def num_threads() -> int:
    """Threads this process may use: EDPIPE_THREADS, else OMP_NUM_THREADS (Snakemake sets it), else all cores.

    Raises:
        EdpipeError: the variable is not a whole number from 1 to 1024.
    """
    for variable in THREAD_VARIABLES:
        text = os.environ.get(variable)
        if text:
            if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= MOST_THREADS):
                raise EdpipeError(
                    f"{variable}={text!r}: must be a whole number from 1 to {MOST_THREADS}; mend or unset it"
                )
            return int(text)
    return len(os.sched_getaffinity(0))
