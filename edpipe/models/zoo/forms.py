"""What the name of a network for small images says: family, depth and width; plain text, no library needed."""

import re
from typing import NamedTuple

CIFAR_DEPTHS = (8, 14, 20, 32, 44, 56, 110)
"""6·n + 2 layers with n blocks in each of three stages (He et al. 2015, section 4.2)."""
WIDE_DEPTHS = (10, 16, 22, 28, 34, 40)
"""6·n + 4 layers with n blocks in each of three stages (Zagoruyko and Komodakis 2016, section 2)."""
MAX_WIDTH_FACTOR = 16
CIFAR_RESNET_DEPTHS = (18, 34, 50)
"""ImageNet's residual networks with a stem for small images."""
VGG_DEPTHS = (8, 11, 13, 16, 19)
_NAME = re.compile(r"(resnet|cifar_resnet|wrn_|vgg|mobilenetv|shufflenetv)([1-9]\d{0,2})(?:([x_])([1-9]\d?))?")
_VERSIONS = {"mobilenetv": (2,), "shufflenetv": (1, 2)}
_DEPTHS = {
    "resnet": CIFAR_DEPTHS,
    "cifar_resnet": CIFAR_RESNET_DEPTHS,
    "wrn_": WIDE_DEPTHS,
    "vgg": VGG_DEPTHS,
    **_VERSIONS,
}
_WIDTH_MARKS = {"resnet": (None, "x"), "wrn_": ("_",)}
"""What comes between depth and width factor, for families that have one; None: nothing, at a factor of 1."""


class OwnForm(NamedTuple):
    """What the name of a network for small images says."""

    family: str
    """resnet, cifar_resnet, wrn, vgg, mobilenetv or shufflenetv."""
    number: int
    """Depth in layers; the version for mobilenetv and shufflenetv."""
    width_factor: int


def own_form(model: str) -> OwnForm | None:
    """Family, depth and width factor of a network for small images; None for any other name.

    >>> tuple(own_form("resnet20x2")), tuple(own_form("wrn_40_2")), own_form("resnet21")
    (('resnet', 20, 2), ('wrn', 40, 2), None)
    """
    match = _NAME.fullmatch(model)
    if match is None:
        return None
    family, number, mark, factor = match[1], int(match[2]), match[3], int(match[4] or 1)
    is_known_width = mark in _WIDTH_MARKS.get(family, (None,)) and factor <= MAX_WIDTH_FACTOR
    if number in _DEPTHS[family] and is_known_width:
        return OwnForm(family.rstrip("_"), number, factor)
    return None


_MAPS = {
    "wrn": ("block1", "block2", "block3"),
    "vgg": ("block1", "block2", "block3", "block4"),
    "mobilenetv": ("blocks.1", "blocks.2", "blocks.4", "blocks.6"),
    "shufflenetv": ("layer1", "layer2", "layer3"),
}
"""By family: the modules whose outputs RepDistiller's attention loss compares; of other families, all feature stages.

Unlike the ends of feature stages they leave out VGG's first block, and what follows the last block: WRN's last BN and
ReLU, and the last convolution of MobileNetV2 and ShuffleNetV2.
"""


def attention_modules(model: str) -> tuple[str, ...] | None:
    """Names of the modules whose outputs the published attention loss compares; None: those that end feature stages.

    >>> attention_modules("wrn_16_1"), attention_modules("resnet20")
    (('block1', 'block2', 'block3'), None)
    """
    form = own_form(model)
    return None if form is None else _MAPS.get(form.family)
