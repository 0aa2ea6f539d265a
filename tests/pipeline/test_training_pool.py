"""Training images of subsets: expected numbers beside counted ones, and what readers know of published data sets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_world import make_world

from edpipe.datasets.dataset_file import open_dataset
from edpipe.datasets.readers import cifar, digits
from edpipe.datasets.readers.published_counts import BACKGROUND, PUBLISHED, SVHN_EXTRA
from edpipe.errors import ParamsError
from edpipe.params.dataset import DatasetKnobs
from edpipe.params.partition import PartitionKnobs
from edpipe.params.plans.reader_names import READERS
from edpipe.pipeline.estimates.image_counts import ImageCounts, _published
from edpipe.pipeline.estimates.training_pool import ExpectedPool, PackedPool, subset_sizes

SUBSETS = ("a", "b", "c")


@st.composite
def pools(draw):
    """As many images in each class, dealt out to three subsets."""
    num_classes, per_class = draw(st.integers(9, 50)), draw(st.integers(1, 20))
    ratio = draw(st.tuples(*[st.integers(1, 3)] * 3))
    knobs = PartitionKnobs(subsets=SUBSETS, ratio=ratio)
    return ExpectedPool(ImageCounts(num_classes, num_classes * per_class, 0, 0), {"thirds": knobs}), per_class


@given(pools())
def test_subsets_share_all_images_and_classes(drawn):
    pool, per_class = drawn
    counts = [pool.counts("thirds", subset) for subset in SUBSETS]
    assert sum(classes for _, classes in counts) == pool.num_classes
    assert all(samples == per_class * classes for samples, classes in counts)
    everything = (pool.images.train, pool.num_classes)
    assert pool.counts(None, "all") == pool.counts("thirds", "all") == everything


@given(pools(), st.permutations(SUBSETS), st.integers(1, 3))
def test_a_stage_is_taught_the_images_of_its_subsets(drawn, names, count):
    pool, _ = drawn
    expected = sum(pool.counts("thirds", name)[0] for name in names[:count])
    assert pool.num_taught("thirds", names[:count], 1.0) == expected
    assert pool.num_taught("thirds", ("all",), 1.0) == pool.images.train
    assert expected / 2 <= pool.num_taught("thirds", names[:count], 0.5) < expected / 2 + count


def test_listed_classes_give_the_sizes_of_subsets():
    knobs = PartitionKnobs(subsets=("a", "b"), classes={"a": ("cat", 3), "b": ("dog",)})
    assert subset_sizes(knobs, 3) == {"a": 2, "b": 1}


def test_a_ratio_that_leaves_a_subset_empty_is_refused():
    pool = ExpectedPool(ImageCounts(2, 20, 0, 0), {"thirds": PartitionKnobs(subsets=SUBSETS)})
    with pytest.raises(ParamsError, match="leaves a subset without a class"):
        pool.counts("thirds", "a")


@pytest.mark.slow
def test_a_packed_dataset_is_counted(tmp_path, monkeypatch):
    world = make_world(tmp_path)
    dataset = open_dataset(world.dataset)
    monkeypatch.setattr("edpipe.pipeline.estimates.training_pool.paths.partition_path", lambda *_: world.partition)
    pool, labels = PackedPool(dataset), dataset.labels[dataset.sample_ids("train")]
    for subset in ("primary", "middle"):
        samples, classes = pool.counts("halves", subset)
        of_class = pool._partition("halves").class_ids[subset]
        assert (samples, classes) == (np.isin(labels, of_class).sum(), len(of_class))
        sizes = [(labels == class_id).sum() for class_id in of_class]
        assert pool.num_taught("halves", (subset,), 0.5) == sum(-(-size // 2) for size in sizes)
    assert pool.counts(None, "all") == (len(labels), 10)


# published numbers


def test_published_numbers_are_those_that_the_readers_expect():
    for name, publication in (("cifar10", cifar.CIFAR10), ("cifar100", cifar.CIFAR100)):
        splits = list(publication.python.parts.values())
        images = {split: splits.count(split) * publication.images[split] for split in ("train", "test")}
        counts = PUBLISHED[name]
        assert (counts.num_classes, counts.train, counts.test) == (
            publication.num_classes,
            images["train"],
            images["test"],
        )


def test_the_numbers_of_digits_are_those_that_are_read(tmp_path):
    raw = digits.read(tmp_path, DatasetKnobs(reader="digits", image_size=8, channels=1))
    assert (PUBLISHED["digits"].num_classes, PUBLISHED["digits"].train) == (len(raw.class_names), len(raw.samples))


def test_every_reader_of_one_data_set_has_its_numbers():
    assert set(READERS) - {"folder", "huggingface"} == set(PUBLISHED)


def test_more_images_and_a_background_class_count_if_they_are_asked_for():
    svhn = DatasetKnobs(reader="svhn", image_size=32, extra=True, val_fraction=0)
    assert _published(svhn).train == 73_257 + SVHN_EXTRA == 604_388
    # 9,144 and 30,607 files in 102 and 257 folders, as the authors say.
    for reader, images, classes in (("caltech101", 9_144, 102), ("caltech256", 30_607, 257)):
        found = _published(DatasetKnobs(reader=reader, image_size=32, background=True))
        assert (found.total, found.num_classes) == (images, classes)
    assert BACKGROUND.keys() == {"caltech101", "caltech256"}
