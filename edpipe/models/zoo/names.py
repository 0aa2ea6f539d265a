"""Names of models, and whether they are known; needs no torch for the networks for small images."""

import difflib

from edpipe.errors import NetworkError
from edpipe.models.zoo.forms import CIFAR_DEPTHS, CIFAR_RESNET_DEPTHS, VGG_DEPTHS, WIDE_DEPTHS, own_form
from edpipe.params.plans.registered import REGISTRY

LIBRARIES = ("timm", "torchvision")
AUXILIARY_OUTPUTS = ("googlenet", "inception_v3")
"""torchvision networks that return more than logits while they are trained."""
OWN_MODELS = (
    *(f"resnet{depth}{width}" for depth in CIFAR_DEPTHS for width in ("", "x2", "x4")),
    *(f"cifar_resnet{depth}" for depth in CIFAR_RESNET_DEPTHS),
    *(f"wrn_{depth}_{width}" for depth in (16, 28, 40) for width in (1, 2, 4)),
    *(f"vgg{depth}" for depth in VGG_DEPTHS),
    "mobilenetv2",
    "shufflenetv1",
    "shufflenetv2",
)
"""What patterns of `edpipe zoo` and hints choose among; other depths and widths of these families are known as well."""
PAPERS_MODELS = (
    *(f"resnet{depth}" for depth in CIFAR_DEPTHS),
    *("resnet8x4", "resnet32x4", "wrn_16_1", "wrn_16_2", "wrn_40_1", "wrn_40_2"),
    *(name for name in OWN_MODELS if not name.startswith(("resnet", "wrn"))),
)
"""Those of the tables on CIFAR-100 in papers on distillation; `edpipe zoo` lists them."""


def split_name(model: str) -> tuple[str | None, str]:
    """The library a model comes from and its name there; library None is the networks for small images.

    >>> split_name("timm:resnet18"), split_name("resnet20")
    (('timm', 'resnet18'), (None, 'resnet20'))
    """
    library, colon, name = model.partition(":")
    return (library, name) if colon and library in LIBRARIES else (None, model)


def is_known(model: str) -> bool:
    """True for a name that `build_network` can build; imports timm or torchvision only for their own names."""
    library, name = split_name(model)
    if library is None:
        return own_form(model) is not None or model in REGISTRY.networks
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
    names = _nearest(model, library)
    hint = f"did you mean {' or '.join(map(repr, names))}? " if names else ""
    singles = ", ".join(name for name in OWN_MODELS if not name.startswith(("resnet", "wrn")))
    raise NetworkError(
        f"unknown model {model!r}: {hint}known are resnet<depth> of depth {_listed(CIFAR_DEPTHS)}, with a width such "
        f"as resnet20x2; wrn_<depth>_<width> of depth {_listed(WIDE_DEPTHS)}; {singles}; and 'timm:<name>' or "
        f"'torchvision:<name>', for example 'timm:resnet18'; `edpipe zoo` lists them"
    )


def _nearest(model: str, library: str | None) -> list[str]:
    """Known names like this one, whether letters are large or small: papers write MobileNetV2."""
    known = {name.lower(): name for name in known_names(library)}
    return [known[name] for name in difflib.get_close_matches(model.lower(), known, n=3)]


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def known_names(library: str | None) -> tuple[str, ...]:
    """Names of a library's networks, as in params.yaml; None: those for small images; imports the library."""
    if library is None:
        return (*OWN_MODELS, *sorted(REGISTRY.networks))
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
