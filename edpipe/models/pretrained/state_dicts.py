"""Which of the state_dicts in a checkpoint is meant: the only one, the usual one, or the one named."""

from collections.abc import Iterator

from torch import Tensor

from edpipe.errors import TeacherError
from edpipe.runtime.progress import announce

USUAL_KEYS = ("state_dict", "model", "model_state_dict", "module", "net", "network")
"""Under which training programs keep the weights that were trained; a running mean of them has other keys."""
DEEPEST = 4
"""Levels of keys that are searched."""
SEPARATOR = "."
KNOB = "network.weights_key"


def chosen_state_dict(contents: object, weights_key: str | None, location: str) -> dict[str, Tensor] | None:
    """The weights by name; None where the contents hold none. Where others are passed over, a line says so.

    Args:
        contents: of the checkpoint.
        weights_key: which state_dict is meant: its keys joined by dots; None: the only one, else the only one whose
            keys are all usual ones.
        location: for the texts.

    Raises:
        TeacherError: there is no such key, or the contents do not say which of several is meant.
    """
    found = _by_key(contents, location)
    if weights_key is not None:
        if weights_key not in found:
            raise TeacherError(f"{location}: {KNOB} is {weights_key!r}; {_allowed(list(found))}")
        return found[weights_key]
    if len(found) < 2:
        return next(iter(found.values()), None)
    usual = [key for key in found if set(key.split(SEPARATOR)) <= set(USUAL_KEYS)]
    if len(usual) != 1:
        raise TeacherError(
            f"{location}: holds {len(found)} state_dicts, and does not say which is meant; give {KNOB}, one of "
            f"{_listed(list(found))}"
        )
    others = [key for key in found if key != usual[0]]
    announce(f"{location}: takes the weights of '{usual[0]}', not of {_listed(others)}; to choose, give {KNOB}")
    return found[usual[0]]


def _by_key(contents: object, location: str) -> dict[str, dict[str, Tensor]]:
    """Every state_dict of the contents, under its keys joined by dots; "" where the contents are one."""
    found: dict[str, dict[str, Tensor]] = {}
    for keys, weights in _state_dicts(contents, ()):
        key = SEPARATOR.join(keys)
        if key in found:
            raise TeacherError(
                f"{location}: two of its state_dicts are under {key!r}; save the one that is meant alone"
            )
        found[key] = weights
    return found


def _state_dicts(
    contents: object, keys: tuple[str, ...], above: tuple[int, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """What maps names to tensors alone; the state of an optimizer has numbers for names.

    `above`: ids of the mappings that hold the contents, since a checkpoint may contain itself.
    """
    if not isinstance(contents, dict) or not contents or len(keys) > DEEPEST or id(contents) in above:
        return
    if all(isinstance(name, str) and isinstance(value, Tensor) for name, value in contents.items()):
        yield keys, contents
        return
    for name, value in contents.items():
        if isinstance(name, str):
            yield from _state_dicts(value, (*keys, name), (*above, id(contents)))


def _allowed(known: list[str]) -> str:
    if known == [""]:
        return "the file is one state_dict without such keys; remove the knob"
    return f"allowed: {_listed(known)}" if known else "the file holds no state_dict; save the network's"


def _listed(keys: list[str]) -> str:
    shown = [f"'{key}'" for key in keys[:5]]
    return ", ".join(shown) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
