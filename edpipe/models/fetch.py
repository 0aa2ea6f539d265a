"""Weights that others trained: from timm, torchvision, a file or an address; checked before they are used."""

import hashlib
import io
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edpipe.errors import TeacherError
from edpipe.models.names import check_model_name, split_name
from edpipe.models.zoo import MODEL_ATTRIBUTE, build_network, drawing, first_convolution, one_line
from edpipe.params.teacher import NetworkKnobs

TIMEOUT_S = 60
SCHEMES = ("https", "http", "file")
WRAPPERS = ("state_dict", "model")
"""Keys under which training programs keep the weights inside a checkpoint."""
PARALLEL_PREFIX = "module."
"""What torch.nn.DataParallel puts before every name."""


@dataclass(frozen=True)
class Normalisation:
    """How the images of a pretrained network are shifted and scaled: (pixel/255 - mean) / std, for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def fetch_weights(knobs: NetworkKnobs, num_classes: int, channels: int, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """A network with fetched weights and `num_classes` outputs, on the CPU, and what is known about them.

    Where the fetched classifier has another number of classes, a fresh one is drawn from `seed`. What is known:
    `source`, `model`, `location`, `fresh_classifier` (bool) and `normalisation` (a Normalisation, or None: that of the
    dataset).

    Raises:
        TeacherError: the weights cannot be fetched, are not the declared ones, or do not fit the model.
        NetworkError: the model is unknown.
        ValueError: the source is "train" or "student".
    """
    if knobs.source in ("train", "student"):
        use = {"train": "build_network", "student": "take_over"}[knobs.source]
        raise ValueError(f"source {knobs.source}: nothing to fetch; use {use}")
    check_model_name(knobs.model)
    fetch = {"timm": _fetch_timm, "torchvision": _fetch_torchvision}.get(knobs.source, _fetch_bytes)
    network, is_fresh, normalisation = fetch(knobs, num_classes, channels, seed)
    info = {
        "source": knobs.source,
        "model": knobs.model,
        "location": knobs.location,
        "fresh_classifier": is_fresh,
        "normalisation": normalisation,
    }
    return network, info


def take_over(
    model: str, weights: Mapping[str, Tensor], origin: str, num_classes: int, channels: int, seed: int
) -> tuple[nn.Module, bool]:
    """The named network with these weights, all of them, on the CPU; whether its classifier is fresh all the same.

    Raises:
        TeacherError: the weights do not fit the model; the line begins with `origin`.
        NetworkError: the model is unknown.
    """
    network = build_network(model, num_classes, channels, seed)
    return network, _load(network, weights, origin)


Fetched = tuple[nn.Module, bool, Normalisation | None]
"""Network, whether its classifier is fresh, how its images are normalised."""


def _fetch_timm(knobs: NetworkKnobs, num_classes: int, channels: int, seed: int) -> Fetched:
    import timm

    name = split_name(knobs.model)[1]
    if not timm.is_model_pretrained(name):
        raise TeacherError(
            f"model {knobs.model!r}: timm has no pretrained weights for it; use another model or train it"
        )
    try:
        with drawing(seed):
            network = timm.create_model(name, pretrained=True, num_classes=num_classes, in_chans=channels)
    except Exception as error:  # timm and its hub client raise many kinds when there is no network
        raise _not_fetched(knobs, error) from error
    setattr(network, MODEL_ATTRIBUTE, knobs.model)
    config: Any = network.pretrained_cfg
    normalisation = _normalisation(config["mean"], config["std"], channels)
    return network, config["num_classes"] != num_classes, normalisation


def _fetch_torchvision(knobs: NetworkKnobs, num_classes: int, channels: int, seed: int) -> Fetched:
    from torchvision import models

    name = split_name(knobs.model)[1]
    known = models.get_model_weights(name)
    chosen = known.__members__.get(knobs.location or "DEFAULT")
    if chosen is None:
        allowed = ", ".join(weights.name for weights in known)
        raise TeacherError(
            f"model {knobs.model!r}: has no weights {knobs.location!r}; location must be one of {allowed}"
        )
    try:
        with drawing(seed):
            pretrained = models.get_model(name, weights=chosen, progress=False)
    except Exception as error:  # urllib, http and torch each raise their own when there is no network
        raise _not_fetched(knobs, error) from error
    network = build_network(knobs.model, num_classes, channels, seed)
    weights = _with_stem_channels(pretrained, channels)
    is_fresh = _load(network, weights, f"model {knobs.model!r}, weights {chosen.name}")
    transforms = chosen.transforms()
    return network, is_fresh, _normalisation(transforms.mean, transforms.std, channels)


def _fetch_bytes(knobs: NetworkKnobs, num_classes: int, channels: int, seed: int) -> Fetched:
    location = str(knobs.location)
    data = _read_file(location) if knobs.source == "file" else _read_url(location)
    found = hashlib.sha256(data).hexdigest()
    if found != knobs.sha256:
        raise TeacherError(
            f"{location}: has sha256 {found}, but {knobs.sha256} is declared; fetch it again, "
            f"or correct sha256 if you trust this file"
        )
    weights = _unwrap(_decode(data, location), location)
    return *take_over(knobs.model, weights, location, num_classes, channels, seed), None


def _not_fetched(knobs: NetworkKnobs, error: Exception) -> TeacherError:
    return TeacherError(
        f"model {knobs.model!r}: its pretrained weights cannot be fetched from {knobs.source} ({one_line(error)}); "
        f"run once with a network connection, or put the file here and use source: file with location and sha256"
    )


def _normalisation(mean: Sequence[float], std: Sequence[float], channels: int) -> Normalisation | None:
    """For grey images the mean over the colours: their first convolution is the sum over the colours."""
    if channels == len(mean):
        return Normalisation(tuple(mean), tuple(std))
    if channels == 1:
        return Normalisation((sum(mean) / len(mean),), (sum(std) / len(std),))
    return None


def _with_stem_channels(pretrained: nn.Module, channels: int) -> dict[str, Tensor]:
    """The weights, the first convolution's summed over the colours for grey images."""
    weights = pretrained.state_dict()
    path, stem = first_convolution(pretrained)
    if channels == 1 and stem.in_channels == 3:
        weights[f"{path}.weight"] = stem.weight.detach().sum(dim=1, keepdim=True)
    return weights


def _read_file(location: str) -> bytes:
    try:
        return Path(location).read_bytes()
    except OSError as error:
        raise TeacherError(
            f"{location}: the teacher's weights cannot be read: {error.strerror or error}; "
            f"put the file there or correct location"
        ) from error


def _read_url(location: str) -> bytes:
    scheme = urllib.parse.urlsplit(location).scheme
    if scheme not in SCHEMES:
        raise TeacherError(f"{location}: scheme {scheme!r} is not allowed; use one of {', '.join(SCHEMES)}")
    try:
        with urllib.request.urlopen(location, timeout=TIMEOUT_S) as response:
            return response.read()
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is also the server's answer and holds the connection
        raise TeacherError(
            f"{location}: the teacher's weights cannot be fetched ({one_line(error)}); "
            f"check the address and the network, or put the file here and use source: file"
        ) from error


def _decode(data: bytes, location: str) -> object:
    """What a safetensors file or a torch checkpoint holds; no code inside it is ever run."""
    import safetensors.torch

    try:
        if data[8:9] == b"{":  # after 8 bytes of length, safetensors has a JSON header
            return safetensors.torch.load(data)
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and safetensors each raise their own for bytes they cannot read
        raise TeacherError(
            f"{location}: is neither safetensors nor a torch checkpoint of tensors alone ({one_line(error)}); "
            f"save the network's state_dict as safetensors"
        ) from error


def _unwrap(contents: object, location: str) -> dict[str, Tensor]:
    """The mapping from names to tensors inside a checkpoint, without the prefix of parallel training."""
    for wrapper in WRAPPERS:
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
    if all(name.startswith(PARALLEL_PREFIX) for name in contents):
        return {name.removeprefix(PARALLEL_PREFIX): value for name, value in contents.items()}
    return contents


def _load(network: nn.Module, weights: Mapping[str, Tensor], origin: str) -> bool:
    """Fills the network; True if its classifier stays fresh because the weights are for other classes."""
    own = network.state_dict()
    _check_names(own, weights, origin)
    fresh = _classifier_names(network, weights, own)
    for name in own.keys() - fresh:
        _check_tensor(name, weights[name], own[name], origin)
    network.load_state_dict({**weights, **{name: own[name] for name in fresh}})
    return bool(fresh)


def _check_names(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], origin: str) -> None:
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    if missing or unexpected:
        parts = [
            f"{len(names)} {what}, first {names[0]!r}"
            for what, names in (("missing", missing), ("unexpected", unexpected))
            if names
        ]
        raise TeacherError(
            f"{origin}: the weights' names do not fit the model: {'; '.join(parts)}; correct model or location"
        )


def _classifier_names(network: nn.Module, weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> set[str]:
    """Names of the last layer's weights if they are for another number of classes, else none."""
    layers = [path for path, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    name = f"{layers[-1]}.weight"
    if weights[name].shape[:1] == own[name].shape[:1] or weights[name].shape[1:] != own[name].shape[1:]:
        return set()
    return {f"{layers[-1]}.{kind}" for kind in ("weight", "bias")} & own.keys()


def _check_tensor(name: str, given: Tensor, expected: Tensor, origin: str) -> None:
    if given.shape != expected.shape:
        raise TeacherError(
            f"{origin}: weight {name} has shape {tuple(given.shape)}, but the model needs {tuple(expected.shape)}; "
            f"correct model or location"
        )
    if given.is_floating_point() and not bool(given.isfinite().all()):
        raise TeacherError(f"{origin}: weight {name} holds numbers that are not finite; fetch or train it again")
