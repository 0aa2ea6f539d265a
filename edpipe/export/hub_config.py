"""The keys of config.json that others read: those of timm for a network of timm, else the classes alone."""

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edpipe.export.description import ModelDescription
from edpipe.models.zoo.names import split_name

INTERPOLATION = {"raw": "bicubic", "jpeg": "bilinear"}
"""Of the last resizing, by how images are stored."""


def hub_config(description: ModelDescription, network: nn.Module) -> dict[str, Any]:
    """Plain values for the root of config.json."""
    library, name = split_name(description.model)
    if library == "timm":
        return _timm_config(description, network)
    return {
        "architecture": name,
        "num_classes": len(description.classes),
        "label_names": list(description.classes),
    }


def _timm_config(description: ModelDescription, network: nn.Module) -> dict[str, Any]:
    from timm.models import save_for_hf

    with tempfile.TemporaryDirectory(prefix="edpipe-export-") as folder:
        save_for_hf(
            copy.deepcopy(network).to(memory_format=torch.contiguous_format),  # as safetensors wants it
            folder,
            model_config={
                "label_names": list(description.classes),
                "pretrained_cfg": _pretrained_cfg(description),
            },
            model_args={"in_chans": description.preprocessing.channels},
            safe_serialization=True,
        )
        return json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))


def _pretrained_cfg(description: ModelDescription) -> dict[str, Any]:
    """How timm is to make the network's input; it lacks the rounding to 8 bits, so that it is close, not equal."""
    preprocessing = description.preprocessing
    return {
        "input_size": [preprocessing.channels, preprocessing.image_size, preprocessing.image_size],
        "test_input_size": None,  # those of timm's own weights
        "test_crop_pct": None,
        "interpolation": INTERPOLATION[preprocessing.encoding],
        "crop_pct": 1.0,
        "crop_mode": "center",
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "num_classes": len(description.classes),
        "tag": f"{description.experiment}_seed{description.seed}",
        "origin_url": None,
        "license": None,  # the weights are new; the card says what taught them
        "paper_ids": None,
        "description": f"{description.method} by edpipe",
    }
