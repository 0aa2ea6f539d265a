"""Packs one data set: raw images become one file with labels, splits and content keys."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from edpipe.datasets.images import to_jpeg, to_square
from edpipe.datasets.raw import RawDataset, RawSample
from edpipe.datasets.readers import read_raw
from edpipe.datasets.splits import assign_splits
from edpipe.errors import DataError, OverwriteError
from edpipe.params.dataset import DatasetKnobs
from edpipe.progress import Tick, announce, show_progress
from edpipe.storage.dataset_file import SPLITS, Dataset, DatasetHeader, decode_jpeg, open_dataset
from edpipe.storage.dataset_writer import StoredImage, write_dataset
from edpipe.storage.records import make_record, record_path, write_record
from edpipe.threads import num_threads

BATCH = 64
"""Images that a thread takes at once."""
BATCHES_AHEAD = 2
"""Of each thread: so many wait at most for the writer, which bounds the memory."""


def pack_dataset(name: str, knobs: DatasetKnobs, root: Path, out_path: Path) -> None:
    """Writes the dataset file, then its record.

    Raises:
        DataError: raw files are missing or unreadable, or a class is left without images.
        OverwriteError: the file cannot be written.
    """
    raw = assign_splits(read_raw(root, knobs), knobs)
    _remove_record(out_path)
    header = DatasetHeader(
        name, raw.class_names, knobs.encoding, knobs.image_size, knobs.channels, knobs.stored_side or knobs.image_size
    )
    with show_progress(f"pack {name}", len(raw.samples)) as show:
        write_dataset(
            out_path,
            header,
            [sample.label for sample in raw.samples],
            [str(sample.split) for sample in raw.samples],
            [sample.source for sample in raw.samples],
            _ticking(_stored_images(raw, knobs), show),
        )
    # Read back through the reader: what was written is what every later step will be given.
    dataset = open_dataset(out_path)
    if knobs.encoding == "raw":  # decoding every JPEG again would take as long as packing did
        dataset.check_pixels(np.arange(dataset.num_samples))
    counts = _counts(dataset)
    write_record(record_path(out_path), _record(dataset, knobs, counts))
    totals = ", ".join(f"{sum(of_class.values())} {split}" for split, of_class in counts.items())
    announce(f"{out_path}: {dataset.num_classes} classes, {totals}")


def _remove_record(out_path: Path) -> None:
    """An old record must not vouch for a new file, should this run end between the two."""
    path = record_path(out_path)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OverwriteError(f"{path}: cannot be written: {error.strerror}; nothing was changed") from error


def _ticking(images: Iterable[StoredImage], show: Callable[[Tick], None]) -> Iterator[StoredImage]:
    number = 0
    for number, image in enumerate(images, start=1):
        yield image
        if number % BATCH == 0:
            show(Tick(number, ""))
    show(Tick(number, ""))


def _stored_images(raw: RawDataset, knobs: DatasetKnobs) -> Iterator[StoredImage]:
    """The samples as they are stored, in their order, made by several threads a few batches ahead."""
    starts = range(0, len(raw.samples), BATCH)
    waiting: deque[Future[list[StoredImage]]] = deque()
    threads = num_threads()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for start in starts:
                waiting.append(pool.submit(_stored_batch, raw.samples[start : start + BATCH], knobs))
                if len(waiting) > BATCHES_AHEAD * threads:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _stored_batch(samples: Sequence[RawSample], knobs: DatasetKnobs) -> list[StoredImage]:
    return [_stored_image(sample, knobs) for sample in samples]


def _stored_image(sample: RawSample, knobs: DatasetKnobs) -> StoredImage:
    image = sample.load()
    try:
        if knobs.encoding == "raw":
            return StoredImage(to_square(image, knobs.image_size, knobs.channels))
        data = to_jpeg(image, knobs.stored_side or knobs.image_size, knobs.channels, knobs.jpeg_quality)
    except ValueError as error:
        raise DataError(f"{sample.source}: cannot be packed: {error}") from error
    return StoredImage(decode_jpeg(data), data)


def _counts(dataset: Dataset) -> dict[str, dict[str, int]]:
    counts = Counter(zip(dataset.splits.tolist(), dataset.labels.tolist(), strict=True))
    return {
        split: {class_name: counts[position, label] for label, class_name in enumerate(dataset.class_names)}
        for position, split in enumerate(SPLITS)
    }


def _record(dataset: Dataset, knobs: DatasetKnobs, counts: dict[str, dict[str, int]]) -> dict[str, object]:
    return make_record(
        "pack_dataset",
        {"dataset": knobs},
        {},
        dataset=dataset.name,
        digest=dataset.digest,
        num_samples=dataset.num_samples,
        counts=counts,
        class_names=list(dataset.class_names),
        mean=list(dataset.mean),
        std=list(dataset.std),
    )
