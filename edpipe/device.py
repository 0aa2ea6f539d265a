"""Which device a step computes on: from the environment, never from a knob, never in a result."""

import os

import torch
from torch import nn

from edpipe.errors import EdpipeError
from edpipe.threads import is_started_by_torchrun, num_threads


def prepare_device() -> torch.device:
    """Where to compute: EDPIPE_DEVICE, else the GPU with most memory free, else the CPU; sets torch's threads.

    Of several processes that train together, each gets a GPU of its own.

    Raises:
        EdpipeError: EDPIPE_DEVICE names no device, or a GPU where there is none; or more processes than GPUs.
    """
    torch.set_num_threads(num_threads())
    named = os.environ.get("EDPIPE_DEVICE")
    device = _device(named) if named else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type != "cuda" or device.index is not None:
        return device
    if is_started_by_torchrun():
        return _own_gpu(int(os.environ.get("LOCAL_RANK", "0")))
    # Snakemake counts GPUs but does not hand them out, so of several the emptiest is taken.
    free_bytes = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
    return torch.device("cuda", free_bytes.index(max(free_bytes)))


def _own_gpu(local_rank: int) -> torch.device:
    if local_rank >= torch.cuda.device_count():
        raise EdpipeError(
            f"EDPIPE_PROCESSES: process {local_rank} has no GPU of its own, there are {torch.cuda.device_count()}; "
            "start fewer, or set EDPIPE_DEVICE=cpu"
        )
    return torch.device("cuda", local_rank)


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
