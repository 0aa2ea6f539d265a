"""Training images of a dataset by class and subset: counted where they are packed, else expected from their number."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edpipe.datasets.dataset_file import Dataset, open_dataset
from edpipe.datasets.partition import Partition, bounds_of
from edpipe.datasets.partition_file import read_partition
from edpipe.params.partition import ALL_CLASSES, PartitionKnobs
from edpipe.params.schema import Params
from edpipe.pipeline.estimates.image_counts import ImageCounts, image_counts
from edpipe.pipeline.jobs import paths
from edpipe.soft_labels.difficulty import num_easiest


@dataclass(frozen=True)
class PackedPool:
    """Of a dataset file and its partition files."""

    dataset: Dataset

    @property
    def num_classes(self) -> int:
        """Of the dataset."""
        return self.dataset.num_classes

    def counts(self, partition: str | None, subset: str) -> tuple[int, int]:
        """Training images and classes of a subset; without a partition, of all."""
        class_ids = tuple(range(self.num_classes))
        if partition is not None:
            class_ids = self._partition(partition).classes_of((subset,))
        return len(self.dataset.sample_ids("train", class_ids)), len(class_ids)

    def num_taught(self, partition: str, subsets: Sequence[str], share: float) -> int:
        """Training images of these subsets; of each class a share, as `num_easiest` rounds it."""
        class_ids = self._partition(partition).classes_of(subsets)
        of_class = self.dataset.labels[self.dataset.sample_ids("train", class_ids)]
        sizes = np.bincount(of_class, minlength=1)
        return sum(num_easiest(int(size), share) for size in sizes[sizes > 0])

    def _partition(self, name: str) -> Partition:
        return read_partition(paths.partition_path(self.dataset.name, name), self.dataset)


@dataclass(frozen=True)
class ExpectedPool:
    """Of a number of images, spread evenly over the classes, and of the sizes that params.yaml gives the subsets."""

    images: ImageCounts
    partitions: dict[str, PartitionKnobs]

    @property
    def num_classes(self) -> int:
        """Of the dataset."""
        return self.images.num_classes

    def counts(self, partition: str | None, subset: str) -> tuple[int, int]:
        """Training images and classes of a subset; without a partition, of all.

        Raises:
            ParamsError: the ratio leaves a subset without a class.
        """
        if partition is None or subset == ALL_CLASSES:
            return self.images.train, self.num_classes
        classes = subset_sizes(self.partitions[partition], self.num_classes)[subset]
        return round(self.images.train * classes / self.num_classes), classes

    def num_taught(self, partition: str, subsets: Sequence[str], share: float) -> int:
        """Training images of these subsets, and a share of them, which is not rounded in each class.

        Raises:
            ParamsError: the ratio leaves a subset without a class.
        """
        names = (ALL_CLASSES,) if ALL_CLASSES in subsets else dict.fromkeys(subsets)
        return sum(num_easiest(self.counts(partition, name)[0], share) for name in names)


TrainingPool = PackedPool | ExpectedPool
"""What costs of soft labels hang on."""


def training_pool(params: Params, dataset: str, partitions: Sequence[str]) -> TrainingPool:
    """Counts of the packed file where that and the partition files are there, else what is expected of them.

    Raises:
        CorruptFileError: the dataset file is absent and nothing says how many images there are, or it is damaged.
        MismatchError: a partition was made from another dataset.
    """
    path = paths.dataset_path(dataset)
    files = [path, *(paths.partition_path(dataset, name) for name in partitions)]
    images = None if all(file.exists() for file in files) else image_counts(params, dataset)
    if images is None:
        return PackedPool(open_dataset(path))
    return ExpectedPool(images, dict(params.partitions))


def subset_sizes(knobs: PartitionKnobs, num_classes: int) -> dict[str, int]:
    """Classes of each subset, in order.

    >>> subset_sizes(PartitionKnobs(subsets=["a", "b"], ratio=[1, 2]), 1000)
    {'a': 333, 'b': 667}

    Raises:
        ParamsError: the ratio leaves a subset without a class.
    """
    if knobs.classes is not None:
        return {name: len(knobs.classes[name]) for name in knobs.subsets}
    bounds = bounds_of(knobs, num_classes)
    return {name: bounds[k + 1] - bounds[k] for k, name in enumerate(knobs.subsets)}
