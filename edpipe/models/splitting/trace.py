"""Which of its modules a network calls, in what order and with what: what stands in its own forward."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edpipe.errors import NetworkError
from edpipe.models.splitting.functional_ops import are_equal, functions_between

Heads = tuple[str, ...]
Route = list[str | nn.Module | Heads]
"""Modules one after the other: by their path in the network, functions themselves, or averaged heads by their paths."""


@dataclass(frozen=True)
class RecordedCall:
    """One call of a module by the network itself, not by one of its modules."""

    path: str
    given: Tensor
    """A copy: the module may work in place."""
    made: Tensor


def route_of(network: nn.Module, images: Tensor) -> Route:
    """The modules that the network calls, and what it does by functions between them.

    That each module gets what the one before it made, but for the functions, is found by comparing tensors. It is
    still to be proved that the route is the network.

    Raises:
        NetworkError: its modules are not one after another; the text is the reason alone.
    """
    with torch.no_grad(), _recorded(network) as calls:
        logits = network.forward(images)  # a resizing of images comes before
    if not calls:
        raise NetworkError("it calls none of its modules")
    num_heads = _num_averaged_heads(calls, logits)
    route: Route = []
    made, before = images, "the images"
    for call in calls[: len(calls) - num_heads]:
        route += [*_joint(made, call.given, before, call.path), call.path]
        made, before = call.made, call.path
    if num_heads:
        heads = calls[-num_heads:]
        return [*route, *_joint(made, heads[0].given, before, heads[0].path), tuple(head.path for head in heads)]
    return [*route, *_joint(made, logits, before, "its output")]


def _num_averaged_heads(calls: list[RecordedCall], logits: Tensor) -> int:
    """Two if the network's output is the mean of its last two modules', as with heads that learn from two sources."""
    pair = calls[-2:]
    is_pair = len(pair) == 2 and pair[0].given.shape == pair[1].given.shape and pair[0].made.shape == pair[1].made.shape
    if not is_pair or any("." in call.path for call in pair):
        return 0
    is_mean = are_equal(pair[0].given, pair[1].given) and are_equal((pair[0].made + pair[1].made) / 2, logits)
    return 2 if is_mean else 0


def _joint(made: Tensor, given: Tensor, before: str, after: str) -> Route:
    functions = functions_between(made, given)
    if functions is None:
        raise NetworkError(
            f"{after} is not made of {before} by a function that is known here: {tuple(made.shape)} becomes "
            f"{tuple(given.shape)}"
        )
    return list(functions)


@contextmanager
def _recorded(network: nn.Module) -> Iterator[list[RecordedCall]]:
    """A list that a forward pass of the network fills with its own calls, in order."""
    calls: list[RecordedCall] = []
    open_calls: list[Tensor | None] = []

    def enter(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        # Only what the network itself calls is copied.
        open_calls.append(None if open_calls else _only_tensor(paths[module], (*arguments, *named.values())).clone())

    def leave(module: nn.Module, _: object, made: object) -> None:
        given = open_calls.pop()
        if given is not None:
            if not isinstance(made, Tensor):
                raise NetworkError(f"{paths[module]} gives {type(made).__name__}, not one tensor")
            calls.append(RecordedCall(paths[module], given, made.clone()))

    paths = {module: path for path, module in network.named_modules() if path}
    handles = [module.register_forward_pre_hook(enter, with_kwargs=True) for module in paths]
    handles += [module.register_forward_hook(leave) for module in paths]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _only_tensor(path: str, arguments: tuple[Any, ...]) -> Tensor:
    tensors = [value for value in arguments if isinstance(value, Tensor)]
    if len(tensors) != 1 or not isinstance(arguments[0], Tensor):
        raise NetworkError(f"{path} is given {len(tensors)} tensors, not one")
    return tensors[0]
