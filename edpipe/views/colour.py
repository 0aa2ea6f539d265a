"""How the colours of a view are changed after its crop: what is drawn for colour jitter and for RandAugment.

Nothing here touches pixels or needs torch; `edpipe.views.colour_pixels` applies what is decided here.
"""

from enum import IntEnum
from itertools import permutations

import numpy as np
from jaxtyping import Float64, Int64

from edpipe.params.soft_labels import ColourJitter, RandAugment
from edpipe.views.axes import SampleIds, Views
from edpipe.views.philox import Purpose, choose_below, fractions, random_words
from edpipe.views.spec import ViewSpec, check_views

LARGEST_MAGNITUDE = 30
NUM_CHANGES = 4
_ORDERS = np.array(list(permutations(range(NUM_CHANGES))), dtype=np.int64)


# Words of one counter; each operation of RandAugment takes one.
_NUM_WORDS = 4


class Change(IntEnum):
    """What colour jitter changes; the columns of its parameters. A number, once used, keeps its meaning."""

    BRIGHTNESS = 0
    CONTRAST = 1
    SATURATION = 2
    HUE = 3


class Operation(IntEnum):
    """The fourteen of RandAugment (Cubuk et al. 2020, section 3). A number, once used, keeps its meaning."""

    IDENTITY = 0
    AUTO_CONTRAST = 1
    EQUALIZE = 2
    ROTATE = 3
    SOLARIZE = 4
    COLOR = 5
    POSTERIZE = 6
    CONTRAST = 7
    BRIGHTNESS = 8
    SHARPNESS = 9
    SHEAR_X = 10
    SHEAR_Y = 11
    TRANSLATE_X = 12
    TRANSLATE_Y = 13


def jitter_parameters(
    spec: ViewSpec, sample_ids: SampleIds, views: Views
) -> tuple[Float64[np.ndarray, "sample change"], Int64[np.ndarray, "sample change"]]:
    """How much each `Change` changes, and the order in which they are made, all 24 alike.

    Brightness, contrast and saturation are factors, uniform in [1 - knob, 1 + knob); hue is a shift in turns, uniform
    in [-knob, knob).

    Raises:
        ValueError: the spec has no jitter, or a view is not one of its views.
    """
    jitter = spec.augment.jitter
    if jitter is None:
        raise ValueError("these views have no colour jitter: augment.jitter is absent")
    check_views(spec, views)
    widths, middles = _ranges(jitter)
    drawn = fractions(random_words(spec.seed, Purpose.JITTER_FACTORS, sample_ids, views))
    order_words = random_words(spec.seed, Purpose.JITTER_ORDER, sample_ids, views)[:, 0]
    return middles + widths * (2 * drawn - 1), _ORDERS[choose_below(order_words, len(_ORDERS))]


def _ranges(jitter: ColourJitter) -> tuple[Float64[np.ndarray, " change"], Float64[np.ndarray, " change"]]:
    """Largest distance from no change, and what no change is, for each `Change` in turn."""
    widths = [jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue]
    return np.array(widths, dtype=np.float64), np.array([1.0, 1.0, 1.0, 0.0])


def rand_augment_parameters(
    spec: ViewSpec, sample_ids: SampleIds, views: Views
) -> tuple[Int64[np.ndarray, "sample num_ops"], Int64[np.ndarray, "sample num_ops"]]:
    """Which `Operation`s are done to each view, in this order, all alike, and the sign of each: -1 or 1.

    The same operation may come twice. Operations without direction do not use the sign.

    Raises:
        ValueError: the spec has no RandAugment, or a view is not one of its views.
    """
    rand_augment = spec.augment.rand_augment
    if rand_augment is None:
        raise ValueError("these views have no RandAugment: augment.rand_augment is absent")
    check_views(spec, views)
    words = np.concatenate(
        [random_words(spec.seed, purpose, sample_ids, views) for purpose in _purposes(rand_augment)], axis=1
    )
    # One word chooses both: twice the operation, plus whether the sign is negative.
    columns = [choose_below(words[:, column], 2 * len(Operation)) for column in range(rand_augment.num_ops)]
    operations, is_negative = np.divmod(np.stack(columns, axis=1), 2)
    return operations, 1 - 2 * is_negative


def _purposes(rand_augment: RandAugment) -> tuple[Purpose, ...]:
    """The counters whose words are needed: the schema allows eight operations at most."""
    if rand_augment.num_ops <= _NUM_WORDS:
        return (Purpose.RAND_AUGMENT,)
    return (Purpose.RAND_AUGMENT, Purpose.RAND_AUGMENT_MORE)
