"""Whether this machine computes in bfloat16 as fast as in float32."""

import os
from collections.abc import Mapping
from typing import Any

SLOW = "this CPU has no instructions for bfloat16 (AVX-512), so that float32 is several times as fast"
REMEDY = "write `precision: float32` into the recipe"
INSTRUCTIONS = ("avx512_bw", "avx_ne_convert", "avx10_1", "amx_bf16")
"""Of x86-64: with any of these oneDNN, with which torch computes convolutions, has fast kernels for bfloat16."""


def is_slow_here() -> bool:
    """Whether networks are computed on a CPU without such instructions. Imports torch."""
    import torch

    named = os.environ.get("EDPIPE_DEVICE", "")
    computes_on_cpu = named.startswith("cpu") if named else not torch.cuda.is_available()
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # newer than torch 2.11
    return computes_on_cpu and lacks_instructions(capabilities)


def lacks_instructions(capabilities: Mapping[str, Any]) -> bool:
    """Whether a CPU is an x86-64 one without them; of others nothing is known.

    Keys are those of `torch.cpu.get_capabilities`.
    """
    is_x86 = capabilities.get("architecture") in ("x86_64", "amd64")
    return is_x86 and not any(capabilities.get(name) for name in INSTRUCTIONS)
