"""Weights in a file or at an address, read without running any code that is in them."""

import io
import urllib.error
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from edpipe.errors import TeacherError
from edpipe.models.pretrained.state_dicts import USUAL_KEYS, chosen_state_dict
from edpipe.models.pretrained.torch_archives import check_archive, objects_named
from edpipe.models.probe import one_line
from edpipe.params.teacher import SCHEMES
from edpipe.storage.download import Digest, fetch
from edpipe.storage.given_files import given_path

PARALLEL_PREFIX = "module."
"""What torch.nn.DataParallel puts before every name."""
SAFETENSORS_START = b"{"
"""Of its JSON header, after 8 bytes of length."""


@dataclass(frozen=True)
class SavedWeights:
    """Weights by name, and whether the file keeps the order in which they were saved."""

    weights: dict[str, Tensor]
    is_ordered: bool


def read_saved_weights(data: bytes, location: str, weights_key: str | None = None) -> SavedWeights:
    """What the bytes of a safetensors file or a torch checkpoint hold; `weights_key` says which of several state_dicts.

    Raises:
        TeacherError: they are neither, hold anything but tensors under names, or do not say which weights are meant.
    """
    contents = _decode(data, location)
    found = chosen_state_dict(contents, weights_key, location)
    weights = _without_prefix(found) if found is not None else _refuse(contents, location)
    return SavedWeights(weights, data[8:9] != SAFETENSORS_START)


def read_file(location: str) -> bytes:
    """The bytes of a file.

    Raises:
        TeacherError: it cannot be read.
    """
    try:
        return given_path(Path(location)).read_bytes()
    except OSError as error:
        raise TeacherError(
            f"{location}: the teacher's weights cannot be read: {error.strerror or error}; "
            f"put the file there or correct location"
        ) from error


def fetch_url(address: str, sha256: str, folder: Path) -> Path:
    """The file of an https, http or file address, fetched once into the folder; a broken download goes on.

    Raises:
        TeacherError: the scheme is another one, or the file cannot be fetched or has another sha256.
    """
    scheme = address.partition(":")[0].lower()
    if scheme not in SCHEMES:
        raise TeacherError(f"{address}: scheme {scheme!r} is not allowed; use one of {', '.join(SCHEMES)}")
    path = folder / sha256
    try:
        # Specialists of one origin are made side by side: the first fetches for all.
        fetch(address, path, Digest("SHA256", sha256), waits=True)
    except RuntimeError as error:
        raise TeacherError(f"{error}; correct location, or sha256 if you trust this file") from error
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is also the server's answer and holds the connection
        raise TeacherError(
            f"{address}: the teacher's weights cannot be fetched ({one_line(error)}); "
            f"check the address and the network, or put the file here and use source: file"
        ) from error
    return path


def _decode(data: bytes, location: str) -> object:
    """What a safetensors file or a torch checkpoint holds; no code inside it is ever run."""
    import safetensors.torch

    check_archive(data, location)
    try:
        if data[8:9] == SAFETENSORS_START:
            return safetensors.torch.load(data)
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and safetensors each raise their own for bytes they cannot read
        if kind := objects_named(error):
            raise TeacherError(
                f"{location}: holds objects of {kind} beside its tensors, which are not read, as they may run code; "
                f"save the weights alone: torch.save(network.state_dict(), 'weights.pth')"
            ) from error
        raise TeacherError(
            f"{location}: is neither safetensors nor a torch checkpoint of tensors alone ({type(error).__name__}); "
            f"save the network's state_dict as safetensors"
        ) from error


def _without_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    if all(name.startswith(PARALLEL_PREFIX) for name in weights):
        return {name.removeprefix(PARALLEL_PREFIX): value for name, value in weights.items()}
    return weights


def _refuse(contents: object, location: str) -> NoReturn:
    """Says what the contents hold instead of weights under names."""
    for wrapper in USUAL_KEYS:
        if isinstance(contents, dict) and isinstance(contents.get(wrapper), dict):
            contents = contents[wrapper]
    if not isinstance(contents, dict) or not contents:
        kind = type(contents).__name__
        raise TeacherError(
            f"{location}: holds no weights but {'a' if contents else 'an empty'} {kind}; save the network's state_dict"
        )
    for name, value in contents.items():
        if not isinstance(name, str):
            raise TeacherError(f"{location}: {name!r} is not the name of a weight; save the network's state_dict")
        if not isinstance(value, Tensor):
            raise TeacherError(f"{location}: {name!r} is {type(value).__name__}, not a tensor; save its state_dict")
    raise TeacherError(f"{location}: its weights lie under too many keys; save the network's state_dict")
