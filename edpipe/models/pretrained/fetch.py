"""Weights that others trained: from timm, torchvision, a file or an address; checked before they are used."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edpipe.errors import NetworkError, TeacherError
from edpipe.models.pretrained.class_names import count_outputs_listed, output_rows
from edpipe.models.pretrained.classifier import classifier_weights, with_rows_of_classifier
from edpipe.models.pretrained.renaming import renamed, renaming_hint, unwrapped, with_counters
from edpipe.models.pretrained.saved_weights import SavedWeights, fetch_url, read_file, read_saved_weights
from edpipe.models.probe import MODEL_ATTRIBUTE, drawing, first_convolution, one_line
from edpipe.models.zoo.build import build_network
from edpipe.models.zoo.names import check_model_name, split_name
from edpipe.params.teacher import NetworkKnobs

WEIGHTS_FOLDER = Path("data/weights")
"""Files fetched from addresses, as they came: one called by its sha256 for all teachers that are made of it."""


@dataclass(frozen=True)
class Normalisation:
    """How the images of a pretrained network are shifted and scaled: (pixel/255 - mean) / std, for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Wanted:
    """What a fetched network is to be.

    Attributes:
        title: of the teacher, for the errors' text.
        class_names: its outputs, in order.
        known: all classes of the dataset.
        channels: of the images.
        seed: of weights that have to be drawn.
        folder: where weights from addresses are kept.
    """

    title: str
    class_names: Sequence[str]
    known: Sequence[str]
    channels: int
    seed: int
    folder: Path


@dataclass(frozen=True)
class Fetched:
    """A fetched network, on the CPU.

    Attributes:
        network: with one output for each class that is wanted.
        fresh_classifier: whether its last layer was drawn, since that which was fetched is for other classes.
        normalisation: of its images; None: that of the dataset.
        trained_at: how its images were sized while it was trained, for people; None: not known.
    """

    network: nn.Module
    fresh_classifier: bool
    normalisation: Normalisation | None
    trained_at: str | None = None


def fetch_weights(knobs: NetworkKnobs, wanted: Wanted) -> Fetched:
    """The network that the knobs name, with an output for each class that is wanted.

    With `class_names`, the rows of its classifier are picked; without, a classifier for another number of classes is
    drawn afresh.

    Raises:
        TeacherError: the weights cannot be fetched, are not the declared ones, do not fit the model, or lack a class.
        NetworkError: the model is unknown.
        ValueError: the source is "train" or "student".
    """
    if knobs.source in ("train", "student"):
        use = {"train": "build_network", "student": "take_over"}[knobs.source]
        raise ValueError(f"source {knobs.source}: nothing to fetch; use {use}")
    check_model_name(knobs.model)
    fetch = {"timm": _fetch_timm, "torchvision": _fetch_torchvision}.get(knobs.source, _fetch_bytes)
    if knobs.class_names is None:
        return fetch(knobs, len(wanted.class_names), wanted)
    rows = output_rows(wanted.class_names, knobs.class_names, knobs.class_map, wanted.known, wanted.title)
    num_outputs = count_outputs_listed(knobs.class_names)
    return _with_outputs(fetch(knobs, num_outputs, wanted), rows, knobs, num_outputs, wanted)


def _with_outputs(fetched: Fetched, rows: Sequence[int], knobs: NetworkKnobs, listed: int, wanted: Wanted) -> Fetched:
    if fetched.fresh_classifier:
        raise TeacherError(
            f"{wanted.title}: network.class_names lists {listed} classes, but the weights are for another number; "
            f"correct class_names"
        )
    network = build_network(knobs.model, len(rows), wanted.channels, wanted.seed)
    network.load_state_dict(with_rows_of_classifier(fetched.network, rows))
    return Fetched(network, False, fetched.normalisation, fetched.trained_at)


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


def _fetch_timm(knobs: NetworkKnobs, num_classes: int, wanted: Wanted) -> Fetched:
    import timm

    name = split_name(knobs.model)[1]
    if not timm.is_model_pretrained(name):
        raise TeacherError(
            f"model {knobs.model!r}: timm has no pretrained weights for it; use another model or train it"
        )
    try:
        with drawing(wanted.seed):
            network = timm.create_model(name, pretrained=True, num_classes=num_classes, in_chans=wanted.channels)
    except Exception as error:  # timm and its hub client raise many kinds when there is no network
        raise _not_fetched(knobs, error) from error
    setattr(network, MODEL_ATTRIBUTE, knobs.model)
    config: Any = network.pretrained_cfg
    normalisation = _normalisation(config["mean"], config["std"], wanted.channels)
    side, crop = config["input_size"][-1], config["crop_pct"]
    trained_at = f"{side} pixels (the centre {crop:.3g} of the short side, {config['interpolation']})"
    return Fetched(network, config["num_classes"] != num_classes, normalisation, trained_at)


def _fetch_torchvision(knobs: NetworkKnobs, num_classes: int, wanted: Wanted) -> Fetched:
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
        with drawing(wanted.seed):
            pretrained = models.get_model(name, weights=chosen, progress=False)
    except Exception as error:  # urllib, http and torch each raise their own when there is no network
        raise _not_fetched(knobs, error) from error
    network = build_network(knobs.model, num_classes, wanted.channels, wanted.seed)
    weights = pretrained.state_dict()
    _sum_colours(network, weights)
    is_fresh = _load(network, weights, f"model {knobs.model!r}, weights {chosen.name}")
    transforms = chosen.transforms()
    (side,), (short,) = transforms.crop_size, transforms.resize_size
    trained_at = f"{side} pixels (the centre {side / short:.3g} of the short side, {transforms.interpolation.value})"
    return Fetched(network, is_fresh, _normalisation(transforms.mean, transforms.std, wanted.channels), trained_at)


def _fetch_bytes(knobs: NetworkKnobs, num_classes: int, wanted: Wanted) -> Fetched:
    location = str(knobs.location)
    path = location if knobs.source == "file" else str(fetch_url(location, str(knobs.sha256), wanted.folder))
    data = read_file(path)
    found = hashlib.sha256(data).hexdigest()
    if found != knobs.sha256:
        raise TeacherError(
            f"{path}: has sha256 {found}, but {knobs.sha256} is declared; fetch it again, "
            f"or correct sha256 if you trust this file"
        )
    network = build_network(knobs.model, num_classes, wanted.channels, wanted.seed)
    weights = _with_own_names(network, read_saved_weights(data, location, knobs.weights_key), knobs)
    is_of_colours = _sum_colours(network, weights)
    is_fresh = _load(network, weights, location)
    return Fetched(network, is_fresh, _declared_normalisation(knobs, wanted.channels, is_of_colours))


def _sum_colours(network: nn.Module, weights: dict[str, Tensor]) -> bool:
    """Adds up the first convolution over the colours, in place, where the network sees grey; whether it did."""
    try:
        path, stem = first_convolution(network)
    except NetworkError:  # a network of linear layers alone has no colours to add up
        return False
    given = weights.get(f"{path}.weight")
    if stem.in_channels != 1 or given is None or given.ndim != 4 or given.shape[1] != 3:
        return False
    weights[f"{path}.weight"] = given.sum(dim=1, keepdim=True)
    return True


def _with_own_names(network: nn.Module, saved: SavedWeights, knobs: NetworkKnobs) -> dict[str, Tensor]:
    own = network.state_dict()
    if knobs.rename is None:
        return with_counters(unwrapped(saved.weights, own), own)
    return renamed(saved.weights, own, knobs.rename, saved.is_ordered, str(knobs.location))


def _declared_normalisation(knobs: NetworkKnobs, channels: int, is_of_colours: bool) -> Normalisation | None:
    if knobs.mean is None or knobs.std is None:
        return None
    if is_of_colours and len(knobs.mean) == 3:
        return _normalisation(knobs.mean, knobs.std, channels)
    if len(knobs.mean) != channels:
        raise TeacherError(
            f"{knobs.location}: network.mean has {len(knobs.mean)} numbers, the dataset's images have {channels} "
            f"channels; give as many"
        )
    return Normalisation(knobs.mean, knobs.std)


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
        hint = renaming_hint(unexpected, own)
        remedy = f"they fit with {hint}" if hint else "correct model or location, or give network.rename"
        raise TeacherError(f"{origin}: the weights' names do not fit the model: {'; '.join(parts)}; {remedy}")


def _classifier_names(network: nn.Module, weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> set[str]:
    """Names of the last layer's weights if they are for another number of classes, else none."""
    names = classifier_weights(network)
    given, expected = weights[names[0]].shape, own[names[0]].shape
    if given[:1] == expected[:1] or given[1:] != expected[1:]:
        return set()
    return set(names)


def _check_tensor(name: str, given: Tensor, expected: Tensor, origin: str) -> None:
    if given.shape != expected.shape:
        raise TeacherError(
            f"{origin}: weight {name} has shape {tuple(given.shape)}, but the model needs {tuple(expected.shape)}; "
            f"correct model or location"
        )
    if given.is_floating_point() and not bool(given.isfinite().all()):
        raise TeacherError(f"{origin}: weight {name} holds numbers that are not finite; fetch or train it again")
