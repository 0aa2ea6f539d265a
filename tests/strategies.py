"""Hypothesis strategies shared by the tests of the core."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edpipe.params.soft_labels import PadCrop, ResizedCrop
from edpipe.views import ViewSpec

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


def drawn_specs(augments):
    return st.builds(
        ViewSpec,
        augment=augments,
        num_views=st.integers(1, 100_000),
        exhaustive=st.just(False),
        seed=SEEDS,
        image_size=st.just(32),
    )


def logits(dtype=np.float32, bound=50.0, max_rows=5, max_classes=8):
    """(row, class) arrays of finite numbers."""
    width = np.dtype(dtype).itemsize * 8
    return hnp.arrays(
        dtype,
        st.tuples(st.integers(1, max_rows), st.integers(1, max_classes)),
        elements=st.floats(-bound, bound, width=width),
    )
