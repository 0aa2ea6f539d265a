"""Memory that runs out, of the machine or of its GPU: one line instead of a traceback."""

import re
import sys

from edpipe.errors import printable

ON_GPU = ("CUDA out of memory", "HIP out of memory", "MPS backend out of memory")
"""How torch begins to say so; on Apple's GPUs it raises no error of its own kind."""
IN_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""What torch says among else."""
FIRST_SENTENCES = re.compile(r".*?\.(?: Tried to allocate .*?\.(?= |$))?")
GPU_REMEDY = (
    "end other programs that use it, share the training with EDPIPE_PROCESSES, or give the recipe a smaller batch_size"
)
MEMORY_REMEDY = "end other programs, or run fewer jobs at once (`snakemake --cores 1`)"


def line_about_memory(error: BaseException) -> str | None:
    """What ran out, and what helps, on one line; None: the error is another one."""
    text = printable(" ".join(str(error).split()))
    if _is_of_gpu(error, text):
        return f"the GPU's memory is full ({_beginning(text)}); {GPU_REMEDY}, then run the same command again"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and IN_MEMORY in text):
        said = f" ({text})" if text else ""
        return f"the memory of this machine is full{said}; {MEMORY_REMEDY}, then run the same command again"
    return None


def _is_of_gpu(error: BaseException, text: str) -> bool:
    torch = sys.modules.get("torch")  # who has not imported it cannot have met its errors
    is_torchs = torch is not None and isinstance(error, torch.OutOfMemoryError)
    return is_torchs or (isinstance(error, RuntimeError) and text.startswith(ON_GPU))


def _beginning(text: str) -> str:
    """How much was wanted; what follows is about torch's own book-keeping.

    >>> _beginning("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB of which …")
    'CUDA out of memory. Tried to allocate 2.00 GiB.'
    """
    found = FIRST_SENTENCES.match(text)
    return found[0] if found else text
