"""Who is mixed with whom, and how much: uniform, in the right shares, and never a matter of the batch."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import chdtrc
from scipy.stats import beta
from strategies import drawn_specs, mixings, pad_crops, sample_ids, subsets, views_of

from edpipe.params.soft_labels import Mixing, PadCrop
from edpipe.views.mixing import MIX_PARTS, PartnerPools, cutmix_boxes, draw_parts, mix_parameters
from edpipe.views.spec import ViewSpec

PLAIN = PadCrop(kind="pad_crop")
MANY = np.arange(40_000)
NO_VIEW = np.zeros(40_000, np.int64)
# What files made with VIEW_RULE 1 rely on: partner, own parts, box.
KNOWN_MIXUP = [[39834, 17654, 33625, 14463, 13528], [67, 120, 169, 158, 255]]
KNOWN_CUTMIX = [[0, 3, 25, 26], [18, 9, 14, 22], [6, 0, 18, 16], [17, 7, 15, 18], [0, 27, 1, 2]]


def spec_of(mixing, seed=0, num_views=1000, image_size=32):
    return ViewSpec(PLAIN, num_views, False, seed, image_size, mixing)


def p_value(counts, shares):
    """Chance of counts at least as far from these shares."""
    expected = np.asarray(shares) * sum(counts)
    return chdtrc(len(counts) - 1, ((np.asarray(counts) - expected) ** 2 / expected).sum())


def mixed_specs():
    return drawn_specs(pad_crops(), mixing=mixings())


# Independence


@pytest.mark.slow
@given(mixed_specs(), subsets(), st.data())
def test_a_mix_depends_on_its_own_sample_view_and_pool_only(spec, pools, data):
    ids = data.draw(st.permutations(np.concatenate(pools).tolist()).map(lambda ids: np.array(ids, dtype=np.int64)))
    views = data.draw(views_of(spec, len(ids)))
    together = mix_parameters(spec, PartnerPools(pools), ids, views)
    for i in range(len(ids)):
        # The others of its pool count, in whatever order; other pools do not.
        own_pool = next(pool for pool in pools if ids[i] in pool)
        alone = mix_parameters(spec, PartnerPools((own_pool[::-1].copy(),)), ids[i : i + 1], views[i : i + 1])
        assert together.partner_ids[i] == alone.partner_ids[0]
        assert together.own_parts[i] == alone.own_parts[0]
        assert (together.boxes[i] == alone.boxes[0]).all()
        assert together.mix.own_share[i] == alone.mix.own_share[0]


@given(mixed_specs(), subsets(), st.data())
def test_partners_are_of_the_same_pool_and_shares_tell_who_is_mixed(spec, pools, data):
    ids = np.concatenate(pools)
    parameters = mix_parameters(spec, PartnerPools(pools), ids, data.draw(views_of(spec, len(ids))))
    mix = parameters.mix
    for pool in pools:
        assert set(mix.partner_ids[np.isin(ids, pool)].tolist()) <= set(pool.tolist())
    assert ((mix.own_share < 1) == (mix.partner_ids != ids)).all()
    assert mix.own_share.min() >= 0
    is_mixup, has_box = parameters.own_parts < MIX_PARTS, parameters.boxes.any(axis=1)
    assert not (is_mixup & has_box).any()
    assert ((is_mixup | has_box) == (mix.partner_ids != ids)).all()


# Chances


def test_partners_are_drawn_evenly_from_each_pool():
    pools = np.arange(100, 140), np.arange(7)
    for pool in pools:
        ids = np.repeat(pool, 40_000 // len(pool))
        partners = PartnerPools(pools).partners
        spec, views = spec_of(Mixing(mixup=1.0), num_views=40_000), np.arange(len(ids))
        mix = mix_parameters(spec, PartnerPools(pools), ids, views)
        counts = np.bincount(np.searchsorted(pool, mix.partner_ids), minlength=len(pool))
        assert p_value(counts, np.full(len(pool), 1 / len(pool))) > 1e-3
        assert partners(ids[:1], np.zeros(1, np.uint32)).tolist() == [pool[0]]
        assert partners(ids[:1], np.full(1, 2**32 - 1, np.uint32)).tolist() == [pool[-1]]


@pytest.mark.parametrize("probability", [0.25, 0.5, 1.0])
@pytest.mark.parametrize(("mixup", "cutmix"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_views_are_mixed_as_often_as_asked_for_and_half_in_each_way(probability, mixup, cutmix):
    mixing = Mixing(mixup=mixup, cutmix=cutmix, probability=probability)
    parameters = mix_parameters(spec_of(mixing), PartnerPools((MANY,)), MANY, NO_VIEW)
    is_mixup, is_cutmix = parameters.own_parts < MIX_PARTS, parameters.boxes.any(axis=1)
    half = 0.5 if mixup and cutmix else 1.0
    # Shares that round to none or all are no mix: under 1 % of each way.
    assert is_mixup.mean() == pytest.approx(probability * half * (mixup > 0), abs=0.012)
    assert is_cutmix.mean() == pytest.approx(probability * half * (cutmix > 0), abs=0.012)


@pytest.mark.parametrize("mixing", [Mixing(mixup=1.0), Mixing(mixup=1.0, cutmix=1.0, probability=0.5)])
def test_partner_share_and_way_are_drawn_independently(mixing):
    ids = np.arange(8).repeat(20_000)
    views = np.arange(len(ids)) % 20_000
    parameters = mix_parameters(spec_of(mixing, num_views=20_000), PartnerPools((np.arange(8),)), ids, views)
    partner, parts = parameters.partner_ids, parameters.own_parts
    # Of others than oneself, and shares of mixup: eight runs of 32, nearly alike.
    is_mixup = (partner != ids) & (parts > 0) & (parts < MIX_PARTS)
    runs = (parts[is_mixup] - 1) * 8 // 255
    table = np.bincount(partner[is_mixup] * 8 + runs, minlength=64).reshape(8, 8)
    margins = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    assert chdtrc(49, ((table - margins) ** 2 / margins).sum()) > 1e-3


def test_boxes_lie_where_they_lie_whatever_their_partner_and_size():
    parameters = mix_parameters(spec_of(Mixing(cutmix=5.0)), PartnerPools((MANY,)), MANY, NO_VIEW)
    top, left, height, width = parameters.boxes.T
    is_whole = (top > 0) & (left > 0) & (top + height < 32) & (left + width < 32) & (height > 0)
    drawn = [top, left, height, parameters.partner_ids]
    # Even a generator's 40,000 draws correlate by 0.005; bound words would by 0.1 and more. Size bounds the place.
    centre = [(start + height // 2)[is_whole & (height == 22)] for start in (top, left)]
    assert abs(np.corrcoef(*centre)[0, 1]) < 0.05
    for each in drawn[:3]:
        assert abs(np.corrcoef(each, parameters.partner_ids)[0, 1]) < 0.03


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 2.5, 10.0])
def test_shares_follow_the_beta_distribution(alpha):
    words = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    parts = draw_parts(alpha, words)
    counts = np.bincount(parts, minlength=MIX_PARTS + 1)
    ends = np.concatenate([[0], (np.arange(MIX_PARTS) + 0.5) / MIX_PARTS, [1]])
    shares = np.diff(beta.cdf(ends, alpha, alpha))
    is_likely = shares * len(words) >= 5
    merged = np.append(counts[is_likely], counts[~is_likely].sum())
    expected = np.append(shares[is_likely], shares[~is_likely].sum())
    assert p_value(merged[expected > 0], expected[expected > 0]) > 1e-3
    assert parts.mean() / MIX_PARTS == pytest.approx(0.5, abs=0.005)
    # Beta(a, a) has variance 1 / (4 (2a + 1)); rounding to 256ths adds next to nothing.
    assert np.var(parts / MIX_PARTS) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.02)


def test_uniform_shares_of_known_words():
    # Beta(1, 1) is uniform: share k begins at the word (k - ½) / 256 × 2**32.
    steps = 2**24
    words = np.array([0, steps // 2 - 1, steps // 2, steps + steps // 2, 2**31, 2**32 - 1], np.uint32)
    assert draw_parts(1.0, words).tolist() == [0, 0, 1, 2, 128, 256]


# Boxes


@given(st.integers(0, MIX_PARTS), st.integers(1, 1024), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_boxes_are_the_papers_squares_cut_off_at_the_border(parts, image_size, down, across):
    words = np.array([[down, across, 0, 0]], np.uint32)
    top, left, height, width = cutmix_boxes(np.array([parts]), words, image_size)[0].tolist()
    # Exact whole-number oracle of floor(size × sqrt(1 - share)).
    side = math.isqrt(image_size**2 * (MIX_PARTS - parts) * 4096) // (16 * 64)
    centres = down * image_size >> 32, across * image_size >> 32
    for centre, start, length in ((centres[0], top, height), (centres[1], left, width)):
        first, last = max(centre - side // 2, 0), min(centre + side // 2, image_size)
        assert (start, start + length) == (first, last)
    assert height * width <= image_size**2 * (MIX_PARTS - parts) / MIX_PARTS


def test_boxes_of_known_shares():
    words = np.array([[2**31, 2**31, 0, 0]] * 4, np.uint32)
    boxes = cutmix_boxes(np.array([256, 192, 64, 0]), words, 32)
    assert boxes.tolist() == [[16, 16, 0, 0], [8, 8, 16, 16], [3, 3, 26, 26], [0, 0, 32, 32]]


def test_centres_of_boxes_are_drawn_evenly():
    spec = spec_of(Mixing(cutmix=10.0))
    parameters = mix_parameters(spec, PartnerPools((MANY,)), MANY, NO_VIEW)
    top, left, height, width = parameters.boxes.T
    for start, length in ((top, height), (left, width)):
        # Boxes that touch no border show where their centre is.
        whole = (start > 0) & (start + length < 32) & (length == 22)
        counts = np.bincount(start[whole], minlength=32)
        assert p_value(counts[1:10], np.full(9, 1 / 9)) > 1e-3


@pytest.mark.slow
@given(mixed_specs(), st.data())
def test_own_share_is_the_exact_share_of_own_pixels(spec, data):
    ids = np.arange(50)
    parameters = mix_parameters(spec, PartnerPools((ids,)), ids, data.draw(views_of(spec, 50)))
    for parts, box, share in zip(parameters.own_parts, parameters.boxes, parameters.mix.own_share, strict=True):
        is_own = np.ones((32, 32), bool)
        top, left, height, width = box
        is_own[top : top + height, left : left + width] = False
        assert share == np.float32(is_own.mean() if not is_own.all() else parts / 256)


def test_known_mixes_stay():
    ids, views = np.arange(5), np.array([0, 1, 2, 3, 4])
    mixup = mix_parameters(spec_of(Mixing(mixup=1.0)), PartnerPools((MANY,)), ids, views)
    assert [mixup.partner_ids.tolist(), mixup.own_parts.tolist()] == KNOWN_MIXUP
    cutmix = mix_parameters(spec_of(Mixing(cutmix=1.0)), PartnerPools((MANY,)), ids, views)
    assert cutmix.boxes.tolist() == KNOWN_CUTMIX


def test_no_samples_are_no_trouble():
    none = np.empty(0, np.int64)
    assert len(mix_parameters(spec_of(Mixing(cutmix=1.0)), PartnerPools((MANY,)), none, none).mix.own_share) == 0


# Refusals


@given(subsets(), sample_ids(1))
def test_a_sample_in_no_pool_is_refused_by_its_id(pools, stranger):
    pools = tuple(pool[pool != stranger[0]] for pool in pools)
    ids = np.concatenate([*pools, stranger])
    with pytest.raises(ValueError, match=f"sample {stranger[0]} is in no pool of partners, and its views are mixed"):
        mix_parameters(spec_of(Mixing(mixup=1.0)), PartnerPools(pools), ids, np.zeros(len(ids), np.int64))


def test_no_pool_at_all_is_refused():
    with pytest.raises(ValueError, match="sample 3 is in no pool"):
        mix_parameters(spec_of(Mixing(mixup=1.0)), PartnerPools(()), np.array([3]), np.array([0]))


@pytest.mark.parametrize("pools", [(np.array([1, 2]), np.array([3, 2])), (np.array([2, 1, 2]),)])
def test_pools_that_overlap_are_refused(pools):
    with pytest.raises(ValueError, match="sample 2 is in more than one pool of partners, or twice in one"):
        PartnerPools(pools)


def test_views_that_are_not_mixed_or_do_not_exist_are_refused():
    one = np.array([1])
    with pytest.raises(ValueError, match="these views are not mixed: the spec has no mixing"):
        mix_parameters(spec_of(None), PartnerPools((one,)), one, one)
    with pytest.raises(ValueError, match=r"views must be in \[0, 1\), got 1 to 1"):
        mix_parameters(spec_of(Mixing(mixup=1.0), num_views=1), PartnerPools((one,)), one, one)
