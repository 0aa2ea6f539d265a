"""What the engine's benchmarks train on: images, soft labels of any size in seconds, and the stages that read them."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_store import PROVENANCE, RECIPE
from PIL import Image
from torch import Tensor, nn

from edpipe.datasets.dataset_file import Dataset, DatasetHeader, channels_first, open_dataset
from edpipe.datasets.dataset_writer import StoredImage, write_dataset
from edpipe.datasets.partition import Partition
from edpipe.losses.stage_terms import StageBatch, TeacherTargets
from edpipe.models.forward import forward
from edpipe.params.plans.plan import StageJobKnobs, TeacherUse, all_subsets
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import PadCrop, ResizedCrop, StorageKnobs, StudentViews, ViewSpace
from edpipe.params.stage import StageKnobs
from edpipe.params.student import StudentKnobs
from edpipe.soft_labels.file.format import BLOCK_ROWS, STATISTICS, Header, Seal, block_digest, count_agreement, lay_out
from edpipe.soft_labels.file.store import SoftLabelStore
from edpipe.training.stage.task import StageTask
from edpipe.views.spec import ViewRange

SHORT_SIDE = 256
"""Of the photos, pixels."""
SHIFTS = StudentViews(space=ViewSpace(augment=PadCrop(kind="pad_crop"), exhaustive=True), number=None, choice="random")
ONE_SHIFT = StudentViews(space=ViewSpace(augment=PadCrop(kind="pad_crop")), number=1, choice="random")
CROPS = StudentViews(space=ViewSpace(augment=ResizedCrop(kind="resized_crop")), number=8, choice="random")


def write_squares(path: Path, num_samples: int, num_classes: int) -> Dataset:
    """Random pixels of 32 × 32, stored raw."""
    pixels = np.random.default_rng(0).integers(0, 256, (num_samples, 3, 32, 32), dtype=np.uint8)
    return _write(path, "raw", 32, num_classes, (StoredImage(image) for image in pixels), num_samples)


def write_photos(path: Path, num_samples: int, num_classes: int) -> Dataset:
    """Smooth pictures with some noise, as JPEG files of about 20 KB; they are shown as 224 × 224 pixels."""
    return _write(path, "jpeg", 224, num_classes, _photos(num_samples), num_samples)


def _photos(count: int) -> Iterator[StoredImage]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        fine = np.asarray(coarse.resize((SHORT_SIDE * 4 // 3, SHORT_SIDE), Image.Resampling.BICUBIC), np.int16)
        noisy = (fine + rng.integers(-8, 9, fine.shape)).clip(0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(noisy).save(stream, "JPEG", quality=80)
        with Image.open(stream) as stored:
            yield StoredImage(channels_first(stored), stream.getvalue())


def _write(
    path: Path, encoding: str, image_size: int, num_classes: int, images: Iterator[StoredImage], count: int
) -> Dataset:
    names = tuple(f"class {number:04}" for number in range(num_classes))
    stored_side = image_size if encoding == "raw" else SHORT_SIDE
    header = DatasetHeader("bench", names, encoding, image_size, 3, stored_side)
    labels = [number % num_classes for number in range(count)]
    write_dataset(path, header, labels, ["train"] * count, [f"{number}" for number in range(count)], images)
    return open_dataset(path)


def write_rows(path: Path, dataset: Dataset, num_views: int) -> None:
    """A uint8 file of random logits, the same on each view: at the speed of the disk, and with digests that are right.

    The writer of the pipeline, which would take minutes, is measured by bench_store.py.
    """
    header = Header(
        provenance=PROVENANCE,
        storage=StorageKnobs(),
        views=ViewRange(0, num_views),
        sample_ids=np.arange(dataset.num_samples),
        sample_keys=dataset.sample_keys,
        labels=dataset.labels,
        class_ids=np.arange(dataset.num_classes, dtype=np.int32),
    )
    logits = np.random.default_rng(0).normal(0, 3, (dataset.num_samples, dataset.num_classes)).astype(np.float32)
    parts = header.precision.encode(logits, header.sample_ids, 0)
    image = lay_out(header, _seal(header, parts))
    with path.open("wb") as file:
        for start, stop in image.extents(0):
            file.seek(start)
            file.write(image.read(start, stop))
        for name, (start, _) in image.large.items():
            file.seek(start)
            for _ in range(num_views):
                file.write(parts[name].tobytes())


def _seal(header: Header, parts: dict[str, np.ndarray]) -> Seal:
    blocks = [slice(start, start + BLOCK_ROWS) for start in range(0, len(header.sample_ids), BLOCK_ROWS)]
    cut = [{name: part[rows] for name, part in parts.items()} for rows in blocks]
    digests = np.array([block_digest(block) for block in cut], np.uint64)
    agreed = [
        count_agreement(header.precision, b, header.local_labels[rows]) for b, rows in zip(cut, blocks, strict=True)
    ]
    shape = (header.views.num_views, len(blocks))
    statistics: dict[str, float] = dict.fromkeys(STATISTICS, 0.0)
    return Seal(np.broadcast_to(digests, shape), np.broadcast_to(np.array(agreed, np.int32), shape), statistics)


def task(
    dataset: Dataset,
    stores: list[SoftLabelStore],
    views: StudentViews,
    device: torch.device,
    recipe: RecipeKnobs = RECIPE,
) -> StageTask:
    """The stage of kd with the stores' teacher, that of ce without one."""
    kd = {"teachers": (TeacherUse(teacher="bench", subset="all"),), "temperature": 4.0, "task_weight": 0.3}
    plan = all_subsets("bench", StageKnobs(epochs=1), **(kd if stores else {}))
    partition = Partition(dataset.digest, ("all",), {"all": tuple(range(dataset.num_classes))})
    knobs = StageJobKnobs(plan, StudentKnobs(model="resnet20"), recipe, views)
    return StageTask(0, knobs, dataset, partition, stores, device)


class Online:
    """The same stage with a live teacher: the batches of ce, what it says of them, the loss of kd."""

    def __init__(self, plain: StageTask, cached: StageTask, teacher: nn.Module) -> None:
        self._plain, self._cached = plain, cached
        self._teacher = teacher.to(plain.batches.device).to(memory_format=torch.channels_last).eval()
        self._columns = torch.arange(plain.dataset.num_classes, device=plain.batches.device)

    @property
    def num_workers(self) -> int:
        """As many as without a teacher."""
        return self._plain.num_workers

    def batch(self, start: int, stop: int) -> StageBatch:
        """The samples at positions start … stop-1, and what the teacher says of them."""
        batch = self._plain.batch(start, stop)
        with torch.inference_mode():
            logits = forward(self._teacher, batch.images, self._plain.knobs.recipe)
        rows = torch.arange(stop - start, device=logits.device)
        share = torch.ones(stop - start, device=logits.device)
        return replace(batch, targets=[TeacherTargets(rows, logits, self._columns, share)])

    def loss(self, network: nn.Module, batch: StageBatch) -> Tensor:
        """Of each sample, nats."""
        return self._cached.loss(network, batch)


class Ahead:
    """A task whose batches are made ahead in so many threads."""

    def __init__(self, task: Any, num_workers: int) -> None:
        self.batch, self.loss, self.num_workers = task.batch, task.loss, num_workers
