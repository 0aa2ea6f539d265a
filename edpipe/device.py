"""Which device and how many threads a step uses: from the environment, never from a knob, never in a result."""

import os

import torch

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


def prepare_device() -> torch.device:
    """The device to compute on, with torch's threads set: EDPIPE_DEVICE, else the GPU with most free memory, else the CPU."""
    torch.set_num_threads(num_threads())
    named = os.environ.get("EDPIPE_DEVICE")
    if named:
        return torch.device(named)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # Snakemake counts GPUs but does not hand them out, so of several the emptiest is taken.
    free_bytes = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
    return torch.device("cuda", free_bytes.index(max(free_bytes)))
