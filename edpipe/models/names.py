"""Names of models, and whether they are known; needs no torch for the CIFAR family."""

import difflib
import re

from edpipe.errors import NetworkError

CIFAR_DEPTHS = (8, 14, 20, 32, 44, 56, 110)
"""6·n + 2 layers with n blocks in each of three stages (He et al. 2015, section 4.2)."""
MAX_WIDTH_FACTOR = 16
WIDE_CIFAR_BLOCKS = {"cifar_resnet18": (2, 2, 2, 2), "cifar_resnet34": (3, 4, 6, 3)}
"""ImageNet's residual networks for small images: blocks in each of the four stages (He et al. 2015, table 1)."""
LIBRARIES = ("timm", "torchvision")
AUXILIARY_OUTPUTS = ("googlenet", "inception_v3")
"""torchvision networks that return more than logits while they are trained."""

_CIFAR_NAME = re.compile(r"resnet(\d{1,3})(?:x(\d{1,2}))?")
_CIFAR_FORMS = (
    *(f"resnet{depth}{width}" for depth in CIFAR_DEPTHS for width in ("", "x2", "x4")),
    *WIDE_CIFAR_BLOCKS,
)


def cifar_form(model: str) -> tuple[int, int] | None:
    """Depth and width factor of a network of the CIFAR family; None for any other name.

    >>> cifar_form("resnet20x2"), cifar_form("resnet20"), cifar_form("resnet21")
    ((20, 2), (20, 1), None)
    """
    match = _CIFAR_NAME.fullmatch(model)
    if match is None:
        return None
    depth, factor = int(match[1]), int(match[2] or 1)
    is_canonical = model == (f"resnet{depth}x{factor}" if match[2] else f"resnet{depth}")
    if is_canonical and depth in CIFAR_DEPTHS and 1 <= factor <= MAX_WIDTH_FACTOR:
        return depth, factor
    return None


def split_name(model: str) -> tuple[str | None, str]:
    """The library a model comes from and its name there; library None is the CIFAR family.

    >>> split_name("timm:resnet18"), split_name("resnet20")
    (('timm', 'resnet18'), (None, 'resnet20'))
    """
    library, colon, name = model.partition(":")
    return (library, name) if colon and library in LIBRARIES else (None, model)


def is_known(model: str) -> bool:
    """True for a name that `build_network` can build; imports timm or torchvision only for their own names."""
    library, name = split_name(model)
    if library is None:
        return cifar_form(model) is not None or model in WIDE_CIFAR_BLOCKS
    return _is_known_timm(name) if library == "timm" else name in _torchvision_names()


def check_model_name(model: str) -> None:
    """Passes for a known model; imports timm or torchvision only for their own names.

    Raises:
        NetworkError: the name is unknown; the text names the nearest known ones.
    """
    if is_known(model):
        return
    library, name = split_name(model)
    if library == "torchvision" and name in AUXILIARY_OUTPUTS:
        raise NetworkError(f"model {model!r}: returns more than logits in training; use 'timm:inception_v3' instead")
    nearest = difflib.get_close_matches(model, _known_names(library), n=3)
    hint = f"did you mean {' or '.join(map(repr, nearest))}? " if nearest else ""
    depths = ", ".join(map(str, CIFAR_DEPTHS))
    raise NetworkError(
        f"unknown model {model!r}: {hint}known are resnet<depth> of depth {depths}, with a width such as resnet20x2, "
        f"{', '.join(WIDE_CIFAR_BLOCKS)}, and 'timm:<name>' or 'torchvision:<name>', for example 'timm:resnet18'"
    )


def _known_names(library: str | None) -> tuple[str, ...]:
    if library is None:
        return _CIFAR_FORMS
    if library == "torchvision":
        return tuple(f"torchvision:{name}" for name in _torchvision_names())
    import timm

    return tuple(f"timm:{name}" for name in timm.list_models())


def _is_known_timm(name: str) -> bool:
    import timm

    if "." in name:  # architecture.tag: the tag names one of several pretrained weights
        return name in timm.list_models(pretrained=True)
    return timm.is_model(name)


def _torchvision_names() -> tuple[str, ...]:
    from torchvision import models

    return tuple(name for name in models.list_models(module=models) if name not in AUXILIARY_OUTPUTS)
