"""Speed of the soft-label store, each figure a ratio of two things measured in turn in one run.

    python benchmarks/bench_store.py            some minutes and 1 GB of disk
    python benchmarks/bench_store.py --quick    a small file, to see that it runs

gather  256 random rows of an exhaustive file of 162 views, 50,000 samples, 100 classes, uint8: through the reader,
        through a plain numpy.memmap of the same bytes, and through h5py's fancy indexing (of one view, sorted: its
        best case).
dump    a resnet20's logits on 32 × 32 images, bfloat16: the dump's whole work, views and storing included, against the
        bare forward pass on the same batches, already made.
input   drawing the views of 128 images, gathering, cropping, flipping and normalising them, and gathering their soft
        labels, against one training step of resnet20 on them.

With --device cuda the last two run there, and gather measures rows that reach the GPU's memory.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as F

from edpipe.datasets.dataset_file import Dataset
from edpipe.models.forward import forward
from edpipe.models.zoo.build import build_network
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import PadCrop, StorageKnobs, StudentViews, ViewSpace
from edpipe.soft_labels.batches import SoftLabelBatches, fit_in_memory
from edpipe.soft_labels.dumping import fill
from edpipe.soft_labels.file.format import Header, Provenance
from edpipe.soft_labels.file.reader import SoftLabels, open_soft_labels
from edpipe.soft_labels.file.store import SoftLabelStore
from edpipe.soft_labels.file.writer import create_soft_labels
from edpipe.soft_labels.teacher_outputs import DUMP_BATCH, Teacher, TeacherFiles, teacher_forward
from edpipe.views.batches import ViewBatches
from edpipe.views.pixels import normalise
from edpipe.views.sampling import view_of
from edpipe.views.spec import ViewRange, ViewSpec

ROWS = 256
STEP_IMAGES = 128
RECIPE = RecipeKnobs(precision="bfloat16")
VIEWS = StudentViews(space=ViewSpace(augment=PadCrop(kind="pad_crop"), exhaustive=True), number=None, choice="random")
SPEC = ViewSpec.from_knobs(VIEWS, 32)
PROVENANCE = Provenance("bench", "all", "0" * 16, "1" * 16, "", "{}", "2" * 16)
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def random_images(num_samples: int) -> Dataset:
    """As much of a dataset as batches need: random pixels in memory."""
    pixels = np.random.default_rng(0).integers(0, 256, (num_samples, 3, 32, 32), dtype=np.uint8)
    return Dataset(
        name="bench",
        class_names=("any",),
        encoding="raw",
        image_size=32,
        channels=3,
        stored_side=32,
        path=Path("bench"),
        digest="",
        mean=MEAN,
        std=STD,
        labels=np.zeros(num_samples, np.int32),
        splits=np.zeros(num_samples, np.uint8),
        sample_keys=np.arange(num_samples).astype(np.uint64),
        sources=np.zeros(num_samples, "S1"),
        _pixels=pixels,
        _offsets=None,
        _stored_keys=np.arange(num_samples).astype(np.uint64),
        _pixels_start=0,
        _is_checked=np.ones(num_samples, np.bool_),  # there is no file
    )


def alternate(
    repeats: int, *runs: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Seconds of each run, taken in turn, so that all see the same state of the machine."""
    seconds: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for _ in range(repeats):
        for run, taken in zip(runs, seconds, strict=True):
            start = clock()
            run()
            synchronise()
            taken.append(clock() - start)
    return seconds


def synchronise() -> None:
    """Waits for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """How many times faster the second is: median, smallest and largest of the paired runs."""
    pairs = [a / b for a, b in zip(slow, fast, strict=True)]
    return {"median": statistics.median(pairs), "min": min(pairs), "max": max(pairs), "n": len(pairs)}


@contextmanager
def exhaustive_file(num_samples: int, num_classes: int, num_views: int) -> Iterator[SoftLabels]:
    """A uint8 file of random logits, written and opened as the pipeline does."""
    rng = np.random.default_rng(0)
    header = Header(
        provenance=PROVENANCE,
        storage=StorageKnobs(),
        views=ViewRange(0, num_views),
        sample_ids=np.arange(num_samples),
        sample_keys=np.arange(num_samples).astype(np.uint64),
        labels=(np.arange(num_samples) % num_classes).astype(np.int32),
        class_ids=np.arange(num_classes, dtype=np.int32),
    )
    logits = rng.normal(0, 3, (num_samples, num_classes)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "all" / "views.h5"
        start = time.perf_counter()
        with create_soft_labels(path, header, "bench") as writer:
            for block in writer.missing:
                writer.write(block, logits[block.start : block.stop])
        written = time.perf_counter()
        labels = open_soft_labels(path)
        opened = time.perf_counter()
        rows = num_samples * num_views
        print(
            f"file    {path.stat().st_size / 1e9:.2f} GB, stored at {rows / (written - start):,.0f} rows/s, "
            f"opened with every byte checked in {opened - written:.1f} s"
        )
        yield labels


def bench_gather(labels: SoftLabels, repeats: int, device: torch.device) -> dict[str, object]:
    """The reader against a bare memmap and against h5py, in batches of 256 rows."""
    rng = np.random.default_rng(1)
    num_views, num_samples, _ = labels.parts["logits"].shape
    batches = [(rng.integers(0, num_samples, ROWS), rng.integers(0, num_views, ROWS)) for _ in range(200)]
    with h5py.File(labels.path) as file:
        offsets = {name: file[name].id.get_offset() for name in labels.parts}
        bare = {
            name: np.memmap(labels.path, mode="r", dtype=part.dtype, shape=part.shape, offset=offsets[name])
            for name, part in labels.parts.items()
        }

        def by_h5py() -> None:
            for ids, views in batches[:20]:
                rows = np.unique(ids)
                for name in bare:
                    file[name][int(views[0]), rows]

        def by_memmap() -> None:
            for ids, views in batches:
                for array in bare.values():
                    array[views, ids]

        def by_reader() -> None:
            for ids, views in batches:
                labels.gather(ids, views)

        def by_targets() -> None:
            for ids, views in batches:
                targets.logits(ids, views)

        targets = SoftLabelBatches(store := SoftLabelStore((labels,)), device, fit_in_memory([store], device))
        h5py_s, memmap_s, reader_s, targets_s = alternate(repeats, by_h5py, by_memmap, by_reader, by_targets)
    rows = ROWS * len(batches)
    return {
        "reader / memmap (speed)": ratio(memmap_s, reader_s),
        "reader / h5py (speed)": ratio([10 * s for s in h5py_s], reader_s),
        "reader, rows/s": rows / statistics.median(reader_s),
        "memmap, rows/s": rows / statistics.median(memmap_s),
        f"float32 logits on {device}, rows/s": rows / statistics.median(targets_s),
    }


def bench_dump(repeats: int, num_samples: int, device: torch.device) -> dict[str, object]:
    """The dump of one view against the bare forward pass on its batches."""
    ids = np.arange(num_samples)
    batches = ViewBatches(random_images(num_samples), SPEC, device)
    network = build_network("resnet20", 100, 3, 0)
    teacher = Teacher(
        files=TeacherFiles("bench", "all", Path(), None, Path()),
        network=network,
        class_ids=tuple(range(100)),
        mean=MEAN,
        std=STD,
        recipe=RECIPE,
        digest="",
        dataset_digest="",
        partition_digest="",
        top1=1.0,
        top1_split="val",
    )
    header = Header(
        PROVENANCE,
        StorageKnobs(max_kl=None),
        ViewRange(0, 1),
        ids,
        ids.astype(np.uint64),
        np.zeros(num_samples, np.int32),
        np.arange(100, dtype=np.int32),
    )
    made = [
        normalise(batches.views(part, np.zeros(len(part), np.int64)), MEAN, STD)
        for part in np.split(ids, range(DUMP_BATCH, num_samples, DUMP_BATCH))
    ]
    with tempfile.TemporaryDirectory() as folder, teacher_forward(teacher, batches) as asked:

        def dump() -> None:
            with create_soft_labels(Path(folder) / "all" / "views.h5", header, "bench") as writer:
                fill(asked, header, writer)

        def bare() -> None:
            for images in made:
                forward(network, images, RECIPE)

        dump_s, bare_s = alternate(repeats, dump, bare)
    return {
        "dump / bare forward (speed)": ratio(bare_s, dump_s),
        "dump, rows/s": num_samples / statistics.median(dump_s),
        "bare forward, rows/s": num_samples / statistics.median(bare_s),
    }


def bench_input(labels: SoftLabels, repeats: int, device: torch.device) -> dict[str, object]:
    """All that a training step needs from outside, against the step itself."""
    num_samples = len(labels.sample_ids)
    batches = ViewBatches(random_images(num_samples), SPEC, device)
    ids = np.random.default_rng(1).permutation(num_samples)[:STEP_IMAGES]
    targets = SoftLabelBatches(store := SoftLabelStore((labels,)), device, fit_in_memory([store], device))
    network = build_network("resnet20", 100, 3, 0).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    num_views = labels.views.num_views
    views = view_of(0, 0, ids, num_views)
    made = normalise(batches.views(ids, views), MEAN, STD)
    goals = targets.logits(ids, views)

    def make_views() -> None:
        normalise(batches.views(ids, view_of(0, 0, ids, num_views)), MEAN, STD)

    def gather() -> None:
        targets.logits(ids, views)

    def step() -> None:
        logits = forward(network, made, RECIPE)
        F.kl_div(logits.log_softmax(1), goals.softmax(1), reduction="batchmean").backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    views_s, gather_s, step_s = alternate(repeats, make_views, gather, step)
    return {
        "views / step (time)": ratio(views_s, step_s),
        "soft labels / step (time)": ratio(gather_s, step_s),
        "views of 128 images, ms": 1e3 * statistics.median(views_s),
        "step of 128 images, ms": 1e3 * statistics.median(step_s),
    }


def main() -> None:
    """Runs all three and prints them, with the machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch; what the rules give small images")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    samples, repeats = (5_000, 5) if options.quick else (50_000, 21)
    print(
        f"machine {platform.processor() or platform.machine()}, torch {torch.__version__}, numpy {np.__version__}, "
        f"h5py {h5py.__version__}, {options.threads} thread, device {device}"
    )
    with exhaustive_file(samples, 100, SPEC.num_views) as labels:
        show("gather", bench_gather(labels, repeats, device))
        show("input", bench_input(labels, repeats, device))
    show("dump", bench_dump(max(3, repeats // 2), 4096 if options.quick else 16_384, device))


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def show(name: str, figures: dict[str, object]) -> None:
    """A line for each figure."""
    for what, value in figures.items():
        text = (
            f"{value:,.1f}" if not isinstance(value, dict) else json.dumps({k: _rounded(v) for k, v in value.items()})
        )
        print(f"{name:7} {what}: {text}", flush=True)


if __name__ == "__main__":
    main()
