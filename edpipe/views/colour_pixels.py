"""Pixels of colour jitter and RandAugment: what `edpipe.views.colour` decided is done to one uint8 image on the CPU.

The operations are torchvision's for tensors. Another version may compute other pixels; the canary tells.
"""

import math
from collections.abc import Callable

import torchvision.transforms.v2.functional as operations_of
from jaxtyping import UInt8
from torch import Tensor

from edpipe.views.colour import LARGEST_MAGNITUDE, Change, Operation

_GREATEST = 255
_NUM_BITS = 8


def apply_jitter(
    image: UInt8[Tensor, "channel height width"], amounts: list[float], order: list[int]
) -> UInt8[Tensor, "channel height width"]:
    """The image after the four changes, each by amounts[change], in the given order.

    Saturation and hue leave grey images (1 channel) as they are; so does a change by nothing any image.
    """
    for change in order:
        # A shift of hue by 0 would still round every pixel to another colour space and back.
        if amounts[change] != (0 if change == Change.HUE else 1):
            image = _CHANGES[Change(change)](image, amounts[change])
    return image


# What each does to an image, by a factor or a shift; torchvision's last two return grey images as they are.
_CHANGES: dict[Change, Callable[[Tensor, float], Tensor]] = {
    Change.BRIGHTNESS: operations_of.adjust_brightness,
    Change.CONTRAST: operations_of.adjust_contrast,
    Change.SATURATION: operations_of.adjust_saturation,
    Change.HUE: operations_of.adjust_hue,
}


def apply_rand_augment(
    image: UInt8[Tensor, "channel height width"], operations: list[int], signs: list[int], magnitude: int
) -> UInt8[Tensor, "channel height width"]:
    """The image after the operations, in the given order, all at one magnitude.

    What the magnitude means is torchvision's table for 31 magnitudes, 0 to 30: at 30 rotation by 30 degrees, shear by
    0.3, translation by 150/331 of the side, colour, contrast, brightness and sharpness by a factor of 1 ± 0.9,
    posterize to 4 bits, solarize from 0. What is moved in from outside is black; nearest pixels are taken.
    Color leaves grey images (1 channel) as they are.

    Raises:
        ValueError: a magnitude outside [0, 30], or an operation that there is not.
    """
    if not 0 <= magnitude <= LARGEST_MAGNITUDE:
        raise ValueError(f"magnitude must be in [0, {LARGEST_MAGNITUDE}], got {magnitude}")
    for number, sign in zip(operations, signs, strict=True):
        image = _OPERATIONS[Operation(number)](image, sign * magnitude)
    return image


# What each does to an image at a signed magnitude.
_OPERATIONS: dict[Operation, Callable[[Tensor, int], Tensor]] = {
    Operation.IDENTITY: lambda image, signed: image,
    Operation.AUTO_CONTRAST: lambda image, signed: operations_of.autocontrast(image),
    Operation.EQUALIZE: lambda image, signed: operations_of.equalize(image),
    Operation.ROTATE: lambda image, signed: operations_of.rotate(image, float(signed)),
    Operation.SOLARIZE: lambda image, signed: operations_of.solarize(image, solarize_threshold(abs(signed))),
    Operation.COLOR: lambda image, signed: operations_of.adjust_saturation(image, enhancement(signed)),
    Operation.POSTERIZE: lambda image, signed: operations_of.posterize(image, posterize_bits(abs(signed))),
    Operation.CONTRAST: lambda image, signed: operations_of.adjust_contrast(image, enhancement(signed)),
    Operation.BRIGHTNESS: lambda image, signed: operations_of.adjust_brightness(image, enhancement(signed)),
    Operation.SHARPNESS: lambda image, signed: operations_of.adjust_sharpness(image, enhancement(signed)),
    Operation.SHEAR_X: lambda image, signed: _shear(image, signed / 100, 0.0),
    Operation.SHEAR_Y: lambda image, signed: _shear(image, 0.0, signed / 100),
    Operation.TRANSLATE_X: lambda image, signed: _translate(image, translation(signed, image.shape[2]), 0),
    Operation.TRANSLATE_Y: lambda image, signed: _translate(image, 0, translation(signed, image.shape[1])),
}


def enhancement(signed: int) -> float:
    """The factor of colour, contrast, brightness and sharpness: 1 is no change.

    >>> enhancement(-30), enhancement(0), enhancement(10)
    (0.1, 1.0, 1.3)
    """
    return (100 + 3 * signed) / 100


def solarize_threshold(magnitude: int) -> float:
    """Pixels from this value on are inverted.

    >>> solarize_threshold(0), solarize_threshold(30)
    (255.0, 0.0)
    """
    return _GREATEST * (LARGEST_MAGNITUDE - magnitude) / LARGEST_MAGNITUDE


def posterize_bits(magnitude: int) -> int:
    """How many bits of each value are kept: 8 at magnitude 0, 4 at 30, rounded.

    >>> [posterize_bits(magnitude) for magnitude in (0, 3, 4, 9, 30)]
    [8, 8, 7, 7, 4]
    """
    dropped = _NUM_BITS // 2 * magnitude
    return _NUM_BITS - (2 * dropped + LARGEST_MAGNITUDE) // (2 * LARGEST_MAGNITUDE)


def translation(signed: int, side: int) -> int:
    """By how many pixels an image of this side is moved: 150/331 of it at magnitude 30, rounded towards 0.

    AutoAugment (Cubuk et al. 2019) moved images of 331 pixels by up to 150.

    >>> translation(30, 331), translation(9, 32), translation(-9, 32)
    (150, 4, -4)
    """
    distance = 150 * abs(signed) * side // (331 * LARGEST_MAGNITUDE)
    return distance if signed > 0 else -distance


def _shear(
    image: UInt8[Tensor, "channel height width"], across: float, down: float
) -> UInt8[Tensor, "channel height width"]:
    """Pixels moved by `across` for each row and by `down` for each column, from the top left corner."""
    degrees = [math.degrees(math.atan(across)), math.degrees(math.atan(down))]
    return operations_of.affine(image, angle=0.0, translate=[0, 0], scale=1.0, shear=degrees, center=[0.0, 0.0])


def _translate(
    image: UInt8[Tensor, "channel height width"], across: int, down: int
) -> UInt8[Tensor, "channel height width"]:
    return operations_of.affine(image, angle=0.0, translate=[across, down], scale=1.0, shear=[0.0, 0.0])
