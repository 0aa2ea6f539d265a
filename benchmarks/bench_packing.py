"""What packing costs and what it gains, each figure a ratio of two things measured in turn in one run.

    python benchmarks/bench_packing.py            about five minutes, and 0.5 GB of disk
    python benchmarks/bench_packing.py --quick    few images and repeats, to see that it runs
    python benchmarks/bench_packing.py --part loading    one part alone

Raw images: JPEG files of 500 × 375 pixels, smooth pictures with noise, 66 kB each, in two class folders; all in the
page cache.

packing  images/s of the step from the folder to the dataset file (short side 256, JPEG, every sum and digest), with as
         many threads as there are cores, against
         copying  shutil.copyfile of the same files
         pillow   one process that opens, resizes and saves each image, without keys, counts or checks
         and with one thread.
loading  images/s of views of 224 × 224 pixels (random resized crop, flip, normalised, as training makes them, batches
         of 64) from the packed set, made ahead in two threads, against torchvision's ImageFolder and DataLoader with
         two workers and RandomResizedCrop, RandomHorizontalFlip, ToTensor and Normalize from the raw folder; an epoch
         of each, start of its threads or workers included. And against the same from files that were resized to 256
         pixels beforehand.
"""

import argparse
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from bench_store import RECIPE, alternate, ratio, show
from PIL import Image
from school import CROPS, SHORT_SIDE, task

from edpipe.datasets.dataset_file import Dataset, open_dataset
from edpipe.params.dataset import DatasetKnobs
from edpipe.runtime.prefetch import in_order
from edpipe.steps.pack_dataset import pack_dataset

SIDE, BATCH, WORKERS = 224, 64, 2
RAW_SIZE, RAW_QUALITY = (500, 375), 90
KNOBS = DatasetKnobs(
    reader="folder", image_size=SIDE, encoding="jpeg", stored_side=SHORT_SIDE, jpeg_quality=90, val_fraction=0
)
VIEWS_RECIPE = RECIPE.model_copy(update={"batch_size": BATCH})


def write_folder(root: Path, count: int) -> Path:
    """So many photographs-like JPEG files, all but two of them in train."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        fine = np.asarray(coarse.resize(RAW_SIZE, Image.Resampling.BICUBIC), np.int16)
        noisy = (fine + rng.integers(-12, 13, fine.shape)).clip(0, 255).astype(np.uint8)
        split = "test" if number < 2 else "train"
        path = root / split / f"class{number % 2}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(path, quality=RAW_QUALITY)
    return root


def files_of(root: Path) -> list[Path]:
    """Every image of the folder."""
    return sorted(root.rglob("*.jpg"))


def resize_with_pillow(root: Path, goal: Path) -> None:
    """What a script of ten lines does before training."""
    for path in files_of(root):
        out_path = goal / path.relative_to(root)
        out_path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            scale = SHORT_SIDE / min(image.size)
            size = (round(image.width * scale), round(image.height * scale))
            stream = io.BytesIO()
            image.resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=KNOBS.jpeg_quality, subsampling=0)
        out_path.write_bytes(stream.getvalue())


def copy_files(root: Path, goal: Path) -> None:
    """The same files at another place."""
    for path in files_of(root):
        out_path = goal / path.relative_to(root)
        out_path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out_path)


def pack_with(threads: int, root: Path, out_path: Path) -> None:
    """The step, with so many threads."""
    os.environ["EDPIPE_THREADS"] = str(threads)
    pack_dataset("bench", KNOBS, root, out_path)


def cpu_s() -> float:
    """CPU time of this process and of workers that have ended: a ratio that other programs disturb little."""
    return sum(os.times()[:4])


def bench_packing(
    root: Path, folder: Path, repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, object]:
    """The step against copying and against Pillow alone."""
    count, cores = len(files_of(root)), len(os.sched_getaffinity(0))
    runs: list[Callable[[], object]] = [
        lambda: pack_with(cores, root, folder / "data/bench.h5"),
        lambda: pack_with(1, root, folder / "data/bench.h5"),
        lambda: copy_files(root, folder / "copied"),
        lambda: resize_with_pillow(root, folder / "resized"),
    ]
    packed_s, single_s, copied_s, pillow_s = alternate(repeats, *runs, clock=clock)
    return {
        "packing / one-process Pillow (speed)": ratio(pillow_s, packed_s),
        f"{cores} threads / 1 (speed)": ratio(single_s, packed_s),
        "packing / copying (speed)": ratio(copied_s, packed_s),
        "packing, images/s": count / median(packed_s),
        "one-process Pillow, images/s": count / median(pillow_s),
        "copying, images/s": count / median(copied_s),
    }


def packed_epoch(dataset: Dataset, workers: int) -> int:
    """Makes each training image's view once, as training does; gives their number."""
    room = task(dataset, [], CROPS, torch.device("cpu"), VIEWS_RECIPE)
    count = len(dataset.sample_ids("train"))
    starts = range(0, count, BATCH)
    batches = in_order(lambda n: room.batch(n * BATCH, min((n + 1) * BATCH, count)), range(len(starts)), workers)
    return sum(len(batch.images) for batch in batches)


def usual_epoch(root: Path) -> int:
    """The same by torchvision and torch, as most training scripts have it."""
    from torchvision import datasets, transforms

    steps = [transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    images = datasets.ImageFolder(str(root / "train"), transforms.Compose([*steps, normalise]))
    loader = torch.utils.data.DataLoader(images, BATCH, shuffle=True, num_workers=WORKERS)
    return sum(len(batch) for batch, _ in loader)


def bench_loading(
    root: Path, folder: Path, repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, object]:
    """An epoch of views from the packed set against one from files."""
    pack_with(len(os.sched_getaffinity(0)), root, folder / "data/bench.h5")
    resize_with_pillow(root, folder / "resized")
    dataset = open_dataset(folder / "data/bench.h5")
    count = packed_epoch(dataset, WORKERS)
    assert count == usual_epoch(root), "both must make every image once"
    packed_s, single_s, usual_s, resized_s = alternate(
        repeats,
        lambda: packed_epoch(dataset, WORKERS),
        lambda: packed_epoch(dataset, 0),
        lambda: usual_epoch(root),
        lambda: usual_epoch(folder / "resized"),
        clock=clock,
    )
    return {
        "packed / ImageFolder (speed)": ratio(usual_s, packed_s),
        "packed / ImageFolder of resized files (speed)": ratio(resized_s, packed_s),
        f"packed, {WORKERS} threads / none (speed)": ratio(single_s, packed_s),
        "packed, images/s": count / median(packed_s),
        "packed without a thread, images/s": count / median(single_s),
        "ImageFolder, images/s": count / median(usual_s),
        "ImageFolder of resized files, images/s": count / median(resized_s),
    }


PARTS = {"packing": bench_packing, "loading": bench_loading}


def main() -> None:
    """Runs the parts that are asked for and prints their figures, with the load of the machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="all of them if none is named")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cpu-time", action="store_true", help="of all threads and workers: where others compute")
    options = parser.parse_args()
    torch.set_num_threads(1)
    count, repeats = (130, 2) if options.quick else (602, 7)
    clock = cpu_s if options.cpu_time else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        root = write_folder(Path(folder) / "raw", count)
        size = sum(path.stat().st_size for path in files_of(root)) / count
        print(f"{count} images of {size / 1e3:.0f} kB, {len(os.sched_getaffinity(0))} cores", flush=True)
        for name in options.part or PARTS:
            print(f"load {os.getloadavg()[0]:.1f}", flush=True)
            show(name, PARTS[name](root, Path(folder), repeats, clock))


if __name__ == "__main__":
    main()
