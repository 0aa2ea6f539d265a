"""Which views are mixed with another image's, which image that is, and how much of each: mixup and cutmix.

Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018; Yun et al., "CutMix", ICCV 2019. Nothing here
touches pixels or needs torch; `edpipe.views.pixels` applies what is decided here. A teacher sees the mixed image
itself, so its logits are stored like those of any other view.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt32, UInt64

from edpipe.params.soft_labels import Mixing
from edpipe.views.axes import Boxes, SampleIds, Views
from edpipe.views.philox import WORD_BITS, Purpose, choose_below, random_words
from edpipe.views.spec import ViewSpec, check_views

# Shares are whole numbers of 256ths: pixels are averaged in integers, alike on every machine.
MIX_PART_BITS = 8
MIX_PARTS = 1 << MIX_PART_BITS


@dataclass(frozen=True)
class Mix:
    """What each view is made of.

    Attributes:
        partner_ids: the other image; the sample itself where a view is not mixed, and only there.
        own_share: of the sample's own picture, in [0, 1]; the partner has the rest. 1 where a view is not mixed, and
            only there. In cutmix exactly the share of own pixels.
    """

    partner_ids: SampleIds
    own_share: Float32[np.ndarray, " sample"]


@dataclass(frozen=True)
class MixParameters:
    """How each view is made; at most one of the two ways changes a view.

    Attributes:
        partner_ids: the other image; the sample itself where a view is not mixed.
        own_parts: of 256, the weight of the sample's own pixels in mixup; 256 where there is no mixup.
        boxes: (top, left, height, width) of the partner's pixels in cutmix; empty where there is no cutmix.
        image_size: side of the pictures, in pixels.
    """

    partner_ids: SampleIds
    own_parts: Int64[np.ndarray, " sample"]
    boxes: Boxes
    image_size: int

    @property
    def mix(self) -> Mix:
        """Partners and shares, for whoever mixes labels."""
        num_pixels = self.image_size**2
        own_pixels = num_pixels - self.boxes[:, 2] * self.boxes[:, 3]
        own_share = self.own_parts * own_pixels / (MIX_PARTS * num_pixels)
        return Mix(self.partner_ids, own_share.astype(np.float32))


class PartnerPools:
    """Sets of samples that may be mixed with one another.

    Args:
        pools: disjoint arrays of sample ids, each in any order.

    Raises:
        ValueError: a sample is in two pools, or twice in one.
    """

    def __init__(self, pools: tuple[Int64[np.ndarray, "..."], ...]) -> None:
        members = [np.sort(pool) for pool in pools]
        self._members = np.concatenate([*members, np.empty(0, dtype=np.int64)])
        sizes = np.array([len(pool) for pool in members], dtype=np.int64)
        order = np.argsort(self._members, kind="stable")
        self._ids = self._members[order]
        repeated = self._ids[1:][self._ids[1:] == self._ids[:-1]]
        if len(repeated):
            raise ValueError(f"sample {repeated[0]} is in more than one pool of partners, or twice in one")
        # Of each id: how many members its pool has, and where they start among all members.
        self._sizes = np.repeat(sizes, sizes)[order]
        self._starts = np.repeat(np.cumsum(sizes) - sizes, sizes)[order]

    def partners(self, sample_ids: SampleIds, words: UInt32[np.ndarray, " sample"]) -> SampleIds:
        """For each sample the member of its pool that the word chooses, all alike; it may be the sample itself.

        Raises:
            ValueError: naming the first sample that is in no pool.
        """
        places = np.searchsorted(self._ids, sample_ids)
        is_found = places < len(self._ids)
        is_found[is_found] = self._ids[places[is_found]] == sample_ids[is_found]
        if not is_found.all():
            raise ValueError(
                f"sample {sample_ids[~is_found][0]} is in no pool of partners, and its views are mixed; "
                f"give ViewBatches pools that hold every sample it is asked for"
            )
        return self._members[self._starts[places] + choose_below(words, self._sizes[places])]


def mix_parameters(spec: ViewSpec, pools: PartnerPools, sample_ids: SampleIds, views: Views) -> MixParameters:
    """How each view is mixed; a function of (spec, the sample's pool, sample id, view), whatever else is asked for.

    Raises:
        ValueError: the spec has no mixing, a view is not one of its views, or a sample is in no pool.
    """
    mixing = spec.mixing
    if mixing is None:
        raise ValueError("these views are not mixed: the spec has no mixing")
    check_views(spec, views)
    words = random_words(spec.seed, Purpose.MIX, sample_ids, views)
    is_mixed = words[:, 0].astype(np.uint64) < np.uint64(int(mixing.probability * 2**WORD_BITS))
    is_cutmix = is_mixed & _is_cutmix(mixing, words[:, 1])
    is_mixup = is_mixed & ~is_cutmix
    own_parts = np.full(len(sample_ids), MIX_PARTS, dtype=np.int64)
    own_parts[is_mixup] = draw_parts(mixing.mixup, words[is_mixup, 2])
    boxes = np.zeros((len(sample_ids), 4), dtype=np.int64)
    place_words = random_words(spec.seed, Purpose.MIX_PLACE, sample_ids[is_cutmix], views[is_cutmix])
    boxes[is_cutmix] = cutmix_boxes(draw_parts(mixing.cutmix, words[is_cutmix, 2]), place_words, spec.image_size)
    partner_ids = pools.partners(sample_ids, words[:, 3])
    # A picture mixed with itself, or by nothing, is not mixed: partner and share tell the same tale.
    is_own = (partner_ids == sample_ids) | ((own_parts == MIX_PARTS) & (boxes[:, 2:].min(axis=1) == 0))
    partner_ids[is_own], own_parts[is_own], boxes[is_own] = sample_ids[is_own], MIX_PARTS, 0
    return MixParameters(partner_ids, own_parts, boxes, spec.image_size)


def _is_cutmix(mixing: Mixing, words: UInt32[np.ndarray, " sample"]) -> Bool[np.ndarray, " sample"]:
    """Where both ways are asked for, each has half of the views."""
    if mixing.mixup and mixing.cutmix:
        return choose_below(words, 2) > 0
    return np.full(len(words), mixing.cutmix > 0)


def draw_parts(alpha: float, words: UInt32[np.ndarray, " sample"]) -> Int64[np.ndarray, " sample"]:
    """Own share of each sample, from Beta(alpha, alpha), rounded to 256ths: 0 … 256; alpha > 0 if there is a sample."""
    if len(words) == 0:
        return np.empty(0, dtype=np.int64)
    return np.searchsorted(_thresholds(alpha), words.astype(np.uint64), side="right").astype(np.int64)


@lru_cache(maxsize=8)
def _thresholds(alpha: float) -> UInt64[np.ndarray, " threshold"]:
    """The words at which the share goes on from k to k+1 256ths: 2**32 times Beta's cumulative share at k + ½.

    SciPy's incomplete Beta function may differ in its last digits from version to version; a threshold may move by one
    then, and one word in 2**32 with it.
    """
    from scipy.special import betainc  # only where views are mixed: it is slow to import

    ends = (np.arange(MIX_PARTS) + 0.5) / MIX_PARTS
    return np.floor(betainc(alpha, alpha, ends) * 2.0**WORD_BITS).astype(np.uint64)


def cutmix_boxes(
    own_parts: Int64[np.ndarray, " sample"], place_words: UInt32[np.ndarray, "sample 4"], image_size: int
) -> Boxes:
    """(top, left, height, width) of the partner's pixels: a square of (256 - own_parts) / 256 of the image's area.

    Its side is rounded down to an even number, its centre is any pixel, and what would stick out is cut off, so that
    there may be more own pixels than asked for (Yun et al. 2019, section 3.1, and the authors' code).
    """
    # sqrt is rounded exactly by IEEE 754, so for whole numbers below 2**52 its floor is that of the true root.
    roots = np.sqrt((image_size**2 * (MIX_PARTS - own_parts)).astype(np.float64)).astype(np.int64)
    half_sides = (roots // 16 // 2)[:, None]  # 16 is the root of 256
    centres = np.stack([choose_below(place_words[:, axis], image_size) for axis in (0, 1)], axis=1)
    starts, stops = (np.clip(ends, 0, image_size) for ends in (centres - half_sides, centres + half_sides))
    return np.concatenate([starts, stops - starts], axis=1)
