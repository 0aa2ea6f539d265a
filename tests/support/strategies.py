"""Hypothesis strategies shared by the tests of the core."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edpipe.params.soft_labels import ColourJitter, Mixing, PadCrop, RandAugment, ResizedCrop
from edpipe.views.spec import ViewSpec

SEEDS = st.integers(0, 2**63)
EPOCHS = st.integers(0, 2**32 - 1)


def sample_ids(max_size=20, largest=2**40):
    """Distinct ids in any order, as int64."""
    return st.lists(st.integers(0, largest), min_size=1, max_size=max_size, unique=True).map(
        lambda ids: np.array(ids, dtype=np.int64)
    )


@st.composite
def subsets(draw, max_samples=20):
    """One to four disjoint arrays of ids, none empty."""
    ids = draw(sample_ids(max_samples))
    cuts = sorted(draw(st.sets(st.integers(1, len(ids)), max_size=3)) - {len(ids)})
    return tuple(np.split(ids, cuts))


def pad_crops():
    return st.builds(PadCrop, kind=st.just("pad_crop"), padding=st.integers(0, 4), flip=st.booleans())


def resized_crops():
    return st.builds(
        ResizedCrop,
        kind=st.just("resized_crop"),
        min_area=st.floats(0.05, 1),
        max_stretch=st.floats(1, 4),
        flip=st.booleans(),
    )


def jitters():
    return st.builds(
        ColourJitter,
        brightness=st.floats(0, 0.99),
        contrast=st.floats(0, 0.99),
        saturation=st.floats(0, 0.99),
        hue=st.floats(0, 0.5),
    )


def rand_augments():
    return st.builds(RandAugment, num_ops=st.integers(1, 8), magnitude=st.integers(0, 30))


def coloured_crops():
    """Both kinds of crop, with neither, one or both changes of colour after them."""
    changes = {"jitter": st.none() | jitters(), "rand_augment": st.none() | rand_augments()}
    return st.builds(PadCrop, kind=st.just("pad_crop"), padding=st.integers(0, 2), **changes) | st.builds(
        ResizedCrop, kind=st.just("resized_crop"), **changes
    )


def mixings():
    alphas = st.sampled_from([0.0, 0.2, 1.0, 3.5])
    return st.builds(
        lambda alphas, probability: Mixing(mixup=alphas[0], cutmix=alphas[1], probability=probability),
        st.tuples(alphas, alphas).filter(any),
        st.floats(0.1, 1),
    )


def drawn_specs(augments, image_size=32, **fields):
    return st.builds(
        ViewSpec,
        augment=augments,
        num_views=st.integers(1, 100_000),
        exhaustive=st.just(False),
        seed=SEEDS,
        image_size=st.just(image_size),
        **fields,
    )


def views_of(spec, count):
    """So many views that the spec has, as int64."""
    return st.lists(st.integers(0, spec.num_views - 1), min_size=count, max_size=count).map(
        lambda views: np.array(views, dtype=np.int64)
    )


def logits(dtype=np.float32, bound=50.0, max_rows=5, max_classes=8):
    """(row, class) arrays of finite numbers."""
    width = np.dtype(dtype).itemsize * 8
    return hnp.arrays(
        dtype,
        st.tuples(st.integers(1, max_rows), st.integers(1, max_classes)),
        elements=st.floats(-bound, bound, width=width),
    )
