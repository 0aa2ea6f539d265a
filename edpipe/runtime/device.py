"""Which device a step computes on: from the environment, never from a knob, never in a result."""

import os
import tempfile
from functools import cache
from pathlib import Path

import torch
from filelock import lock_descriptor
from torch import nn

from edpipe.errors import EdpipeError
from edpipe.runtime.threads import is_started_by_torchrun, num_threads


def prepare_device() -> torch.device:
    """Where to compute: EDPIPE_DEVICE, else a GPU that no other step uses, else the CPU; sets torch's threads.

    If every GPU is in use, the one with most memory free is shared; but of several processes that train together, each
    gets a GPU of its own.

    Raises:
        EdpipeError: EDPIPE_DEVICE names no device, or a GPU where there is none; or more processes than GPUs.
    """
    torch.set_num_threads(num_threads())
    named = os.environ.get("EDPIPE_DEVICE")
    device = _device(named) if named else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type != "cuda" or device.index is not None:
        return device
    index = _take_free_gpu()
    if index is not None:
        return torch.device("cuda", index)
    if is_started_by_torchrun():
        raise EdpipeError(
            f"EDPIPE_PROCESSES: no GPU is left for this process; there are {torch.cuda.device_count()}, each is one "
            "process's own; start fewer, or set EDPIPE_DEVICE=cpu"
        )
    free_bytes = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
    return torch.device("cuda", free_bytes.index(max(free_bytes)))


@cache
def _take_free_gpu() -> int | None:
    """The first GPU that no other step of this user has taken; taken until this process ends. None: all are taken.

    Snakemake counts GPUs but does not hand them out, and those that start together see the same free memory.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    for index in range(torch.cuda.device_count()):
        name = visible[index].strip() if index < len(visible) and visible[index] else str(index)
        path = Path(tempfile.gettempdir()) / f"edpipe-gpu-{os.getuid()}-{name}.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if lock_descriptor(lock, blocking=False):
            return index  # the descriptor stays open: its end is the process's
        os.close(lock)
    return None


def _device(named: str) -> torch.device:
    try:
        device = torch.device(named)
    except RuntimeError as error:
        raise EdpipeError(
            f"EDPIPE_DEVICE={named!r}: no device of torch; use cpu, cuda or cuda:1, or leave it unset"
        ) from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise EdpipeError(
            f"EDPIPE_DEVICE={named!r}: cannot compute there; use cpu, cuda, cuda:1 or mps, or leave it unset"
        )
    if device.type == "cuda" and not torch.cuda.is_available():
        raise EdpipeError(f"EDPIPE_DEVICE={named!r}: torch sees no GPU here; use cpu, or leave it unset")
    return device


def callable_network(network: nn.Module) -> nn.Module:
    """The network to call while training: compiled if EDPIPE_COMPILE is 1, on a GPU with CUDA graphs, else itself.

    Raises:
        EdpipeError: EDPIPE_COMPILE is neither 0 nor 1.
    """
    wish = os.environ.get("EDPIPE_COMPILE", "0")
    if wish not in ("0", "1"):
        raise EdpipeError(f"EDPIPE_COMPILE={wish!r}: must be 0 or 1; mend or unset it")
    if wish == "0":
        return network
    is_on_gpu = next(network.parameters()).device.type == "cuda"
    return torch.compile(network, mode="reduce-overhead" if is_on_gpu else "default")  # type: ignore[return-value]
