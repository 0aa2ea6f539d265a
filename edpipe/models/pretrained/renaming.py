"""Weights that another program has saved under other names."""

import json
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from edpipe.errors import TeacherError
from edpipe.params.teacher import BY_ORDER, Renaming

COUNTER = "num_batches_tracked"
"""Of batch normalisation; programs from before 2018 do not save it, and nothing that is computed here depends on it."""

WRAPPERS = ("_orig_mod.", "module.", "model.", "net.", "network.")
"""What torch.compile, parallel training and the usual names of a network inside another put before every name."""


def unwrapped(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the wrappers that all names begin with and none of the network's own names does.

    >>> own = {"fc.weight": torch.zeros(1)}
    >>> list(unwrapped({"module._orig_mod.fc.weight": torch.zeros(1)}, own))
    ['fc.weight']
    """
    found = dict(weights)
    while (prefix := _common_wrapper(found)) and not any(name.startswith(prefix) for name in own):
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _common_wrapper(names: Iterable[str]) -> str | None:
    return next((prefix for prefix in WRAPPERS if names and all(name.startswith(prefix) for name in names)), None)


def renaming_hint(names: Iterable[str], own: Iterable[str]) -> str:
    """The `rename` that makes the names fit where the network's are among them under one beginning; else "".

    >>> renaming_hint(["enc.fc.weight", "enc.fc.bias", "loss.weight"], ["fc.weight", "fc.bias"])
    'network.rename: {"enc.": "", "loss.": null}'
    """
    given, wanted = list(names), {name for name in own if not name.endswith(COUNTER)}
    for name in given:
        for at in [place + 1 for place, letter in enumerate(name) if letter == "."]:
            prefix = name[:at]
            inner = {each.removeprefix(prefix) for each in given if each.startswith(prefix)}
            if wanted <= inner:
                others = dict.fromkeys(_beginning(each) for each in given if not each.startswith(prefix))
                return f"network.rename: {json.dumps({prefix: ''} | dict.fromkeys(others))}"
    return ""


def _beginning(name: str) -> str:
    """
    >>> _beginning("loss.weight"), _beginning("n_averaged")
    ('loss.', 'n_averaged')
    """
    first, dot, _ = name.partition(".")
    return first + dot


def renamed(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], rename: Renaming, is_ordered: bool, origin: str
) -> dict[str, Tensor]:
    """The weights under the names of the network that they are for.

    Args:
        weights: as saved.
        own: the network's weights, in its order.
        rename: "by_order": both lists side by side; else what each beginning of a name becomes, None leaving it aside.
            The longest beginning that fits a name counts; other names stay.
        is_ordered: whether the file keeps the order in which weights were saved.
        origin: for the error's text.

    Raises:
        TeacherError: the order is not kept or not the same number of weights; a beginning fits no name; or two weights
            get the same name.
    """
    if rename == BY_ORDER:
        renames = _by_order(weights, own, is_ordered, origin)
    else:
        renames = _by_prefix(list(weights), rename, origin)
    found = {renames[name]: value for name, value in weights.items() if renames[name] is not None}
    return with_counters({str(name): value for name, value in found.items()}, own)


def with_counters(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights, and zeros for batch counters that were not saved."""
    absent = {name: value for name, value in own.items() if name.endswith(COUNTER) and name not in weights}
    return {**weights, **{name: torch.zeros_like(value) for name, value in absent.items()}}


def _by_order(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], is_ordered: bool, origin: str
) -> dict[str, str | None]:
    if not is_ordered:
        raise TeacherError(
            f"{origin}: safetensors keep no order, so rename: {BY_ORDER} is not allowed; give the beginnings of the "
            f"names, or use the torch checkpoint"
        )
    without_counters = [name for name in own if not name.endswith(COUNTER)]
    wanted = without_counters if len(weights) == len(without_counters) else list(own)
    if len(weights) != len(wanted):
        raise TeacherError(
            f"{origin}: holds {len(weights)} weights, the model has {len(wanted)}, so rename: {BY_ORDER} does not fit; "
            f"correct model or location"
        )
    for (name, value), own_name in zip(weights.items(), wanted, strict=True):
        if value.shape[1:] != own[own_name].shape[1:]:
            raise TeacherError(
                f"{origin}: by order {name} {tuple(value.shape)} would become {own_name} {tuple(own[own_name].shape)}; "
                f"correct the model, or give the beginnings of the names"
            )
    return dict(zip(weights, wanted, strict=True))


def _by_prefix(names: Sequence[str], rename: Mapping[str, str | None], origin: str) -> dict[str, str | None]:
    for prefix in rename:
        if not any(name.startswith(prefix) for name in names):
            raise TeacherError(
                f"{origin}: rename: no weight's name begins with {prefix!r}; the first is {names[0]!r}; correct it"
            )
    new_names = {name: _new_name(name, rename) for name in names}
    seen: dict[str, str] = {}
    for name, new_name in new_names.items():
        if new_name is not None and new_name in seen:
            raise TeacherError(
                f"{origin}: rename: {seen[new_name]!r} and {name!r} both become {new_name!r}; correct it"
            )
        seen[str(new_name)] = name
    return new_names


def _new_name(name: str, rename: Mapping[str, str | None]) -> str | None:
    prefix = max((prefix for prefix in rename if name.startswith(prefix)), key=len, default=None)
    if prefix is None:
        return name
    new_prefix = rename[prefix]
    return None if new_prefix is None else new_prefix + name.removeprefix(prefix)
