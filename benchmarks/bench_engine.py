"""What training on cached soft labels costs, each figure a ratio of two things measured in turn in one run.

    python benchmarks/bench_engine.py            a quarter of an hour, and 5 GB of disk
    python benchmarks/bench_engine.py --quick    small files and few repeats, to see that it runs
    python benchmarks/bench_engine.py --part squares    student and views alone; likewise memory, photos

student  images/s of a resnet20 in the training loop, batches of 128 squares of 32 × 32, 100 classes, bfloat16:
         cached   kd from an exhaustive uint8 store, rows gathered at random
         ce       the same loop without a teacher
         online   the same loop, a resnet110 asked about each batch: same precision, eval and inference mode
         usual    as most frameworks do it: torchvision's transforms of one PIL image at a time in a DataLoader of two
                  workers, the same teacher asked about each batch, all in float32
         and the time of making a batch (draw, crop, flip, normalise, gather soft labels) as a share of a cached step.
views    images/s with a store of all 162 views against one with a single view.
memory   what a fresh process holds at most beyond its imports while it opens a soft-label file of 4 GB, checks every
         byte of it, trains on it and gathers random rows.
photos   images/s of 224 × 224 views of JPEG files, made ahead in 0, 1 and 2 threads: batches alone, and training a
         resnet8 on them.
"""

import argparse
import multiprocessing
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from bench_store import MEAN, RECIPE, STD, alternate, ratio, show
from PIL import Image
from school import CROPS, ONE_SHIFT, SHIFTS, Ahead, Online, task, write_photos, write_rows, write_squares
from torch import Tensor

from edpipe.datasets.dataset_file import Dataset, open_dataset
from edpipe.models.zoo.build import build_network
from edpipe.runtime.prefetch import in_order
from edpipe.soft_labels.file.store import SoftLabelStore, open_store
from edpipe.training.loop import GPU_REPORT_EVERY, Budget, Task, Training
from edpipe.training.stage.task import StageTask

Clock = Callable[[], float]
STUDENT, TEACHER, SMALL = "resnet20", "resnet110", "resnet8"
STEP_IMAGES, PHOTOS = 128, 32
"""Images in a batch of squares and of photos."""
USUAL_WORKERS = 2
ENDLESS = 10**12
"""Images: no benchmark comes to the end of its schedule."""
SQUARES_RECIPE = RECIPE.model_copy(update={"batch_size": STEP_IMAGES})
PHOTOS_RECIPE = RECIPE.model_copy(update={"batch_size": PHOTOS})
RATE = 0.01
GATHERED = 2000
"""Batches of random rows beyond those trained on: many times what it takes to touch all of a file."""


def steps_at_once(device: torch.device) -> int:
    """Iterations between looks at the loss, and so of what is timed."""
    return 1 if device.type == "cpu" else GPU_REPORT_EVERY


def trainer(model: str, task: Task, dataset: Dataset, device: torch.device) -> Callable[[], object]:
    """Goes on with a training in the package's loop, for as many steps as are timed together."""
    student = build_network(model, dataset.num_classes, 3, 0).to(device).to(memory_format=torch.channels_last)
    progress = Training(student, SQUARES_RECIPE, Budget(ENDLESS, RATE)).run(task)
    return lambda: next(progress)


class _Pictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Images as most frameworks keep them: a PIL image is made of each, then transformed."""

    def __init__(self, dataset: Dataset) -> None:
        from torchvision import transforms

        self._pixels = dataset.images(np.arange(dataset.num_samples)).transpose(0, 2, 3, 1)
        self._labels = dataset.labels.tolist()
        crops = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
        self._transform = transforms.Compose([*crops, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._pixels[index])), self._labels[index]


def usual(dataset: Dataset, device: torch.device) -> Iterator[None]:
    """Distillation as most frameworks do it, a step at a time, for ever."""
    student, teacher = (build_network(name, dataset.num_classes, 3, 0).to(device) for name in (STUDENT, TEACHER))
    teacher.eval()
    optimizer = torch.optim.SGD(student.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    is_pinned = device.type == "cuda"
    while True:
        for images, labels in torch.utils.data.DataLoader(
            _Pictures(dataset),
            STEP_IMAGES,
            shuffle=True,
            num_workers=USUAL_WORKERS,
            pin_memory=is_pinned,
            drop_last=True,
        ):
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            with torch.no_grad():
                goals = (teacher(images) / 4).softmax(1)
            logits = student(images)
            kd = F.kl_div((logits / 4).log_softmax(1), goals, reduction="batchmean") * 16
            optimizer.zero_grad()
            (0.3 * F.cross_entropy(logits, labels) + 0.7 * kd).backward()
            optimizer.step()
            yield


def bench_student(
    dataset: Dataset, store: SoftLabelStore, repeats: int, device: torch.device, clock: Clock = time.perf_counter
) -> dict[str, object]:
    """Cached distillation against no distillation, an online teacher, and the usual way; and its input work."""
    count = steps_at_once(device)
    cached, plain = (task(dataset, stores, SHIFTS, device) for stores in ([store], []))
    online = Online(plain, cached, build_network(TEACHER, dataset.num_classes, 3, 0))
    conventional = usual(dataset, device)
    runs = [trainer(STUDENT, task, dataset, device) for task in (cached, plain, online)]

    def make_batches() -> None:
        for number in range(count):
            cached.batch(number * STEP_IMAGES, (number + 1) * STEP_IMAGES)

    def go_on_as_usual() -> None:
        for _ in range(count):
            next(conventional)

    cached_s, plain_s, online_s, usual_s, batch_s = alternate(repeats, *runs, go_on_as_usual, make_batches, clock=clock)
    return {
        "cached / ce (speed)": ratio(plain_s, cached_s),
        "cached / online (speed)": ratio(online_s, cached_s),
        "cached / usual (speed)": ratio(usual_s, cached_s),
        "batch / step (time)": ratio(batch_s, cached_s),
        "cached, images/s": STEP_IMAGES * count / median(cached_s),
        "ce, images/s": STEP_IMAGES * count / median(plain_s),
        "online, images/s": STEP_IMAGES * count / median(online_s),
        "usual, images/s": STEP_IMAGES * count / median(usual_s),
        "making a batch, ms": 1e3 * median(batch_s) / count,
    }


def bench_views(
    dataset: Dataset,
    stores: tuple[SoftLabelStore, SoftLabelStore],
    repeats: int,
    device: torch.device,
    clock: Clock = time.perf_counter,
) -> dict[str, object]:
    """Training, and its batches alone, over all views against a single one."""
    many, one = stores
    rooms = [task(dataset, [many], SHIFTS, device), task(dataset, [one], ONE_SHIFT, device)]
    runs = [trainer(STUDENT, room, dataset, device) for room in rooms]

    def make_batches(room: StageTask) -> Callable[[], None]:
        return lambda: [room.batch(n * STEP_IMAGES, (n + 1) * STEP_IMAGES) for n in range(20)] and None

    many_s, one_s, many_batches_s, one_batches_s = alternate(repeats, *runs, *map(make_batches, rooms), clock=clock)
    return {
        f"{many.num_views} views / {one.num_views} (speed)": ratio(one_s, many_s),
        f"batches of {many.num_views} views / of {one.num_views} (speed)": ratio(one_batches_s, many_batches_s),
    }


def resident_bytes(name: str) -> int:
    """Of this process: VmRSS, what it holds now; VmHWM, what it held at most. Pages of mapped files count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def held(dataset_path: Path, rows_path: Path, num_steps: int, num_threads: int) -> dict[str, float]:
    """MB that this process holds at most beyond what it held at first; see `memory` above."""
    torch.set_num_threads(num_threads)
    device, before = torch.device("cpu"), resident_bytes("VmRSS")
    dataset = open_dataset(dataset_path)
    store = open_store([rows_path], sample_keys=dataset.sample_keys)
    opened = resident_bytes("VmHWM")
    cached = task(dataset, [store], SHIFTS, device)
    go_on = trainer(STUDENT, cached, dataset, device)
    for _ in range(num_steps):
        go_on()
    trained = resident_bytes("VmHWM")
    for number in range(GATHERED):
        cached.batch(number * STEP_IMAGES, (number + 1) * STEP_IMAGES)
    peak = resident_bytes("VmHWM")  # once: the next reading may be of a page more
    data_set = dataset.num_samples * dataset.channels * dataset.image_size**2
    sizes = {
        "soft labels": rows_path.stat().st_size,
        "data set": data_set,
        "imports": before,
        "opening": opened - before,
        "opening and training": trained - before,
        "peak": peak - before,
        "peak less data set": peak - before - data_set,
    }
    return {f"{name}, MB": size / 1e6 for name, size in sizes.items()}


def bench_memory(dataset_path: Path, rows_path: Path, num_steps: int, num_threads: int) -> dict[str, float]:
    """The same, in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(held, dataset_path, rows_path, num_steps, num_threads).result()


def bench_photos(dataset: Dataset, repeats: int, num_batches: int, device: torch.device) -> dict[str, object]:
    """Decoded, cropped and resized ahead in 0, 1 and 2 threads."""
    room = task(dataset, [], CROPS, device, PHOTOS_RECIPE)
    student = build_network(SMALL, dataset.num_classes, 3, 0).to(device).to(memory_format=torch.channels_last)
    numbers = range(num_batches)

    def batches(workers: int) -> Callable[[], None]:
        def run() -> None:
            for _ in in_order(lambda n: room.batch(n * PHOTOS, (n + 1) * PHOTOS), numbers, workers):
                pass

        return run

    def training(workers: int) -> Callable[[], object]:
        budget = Budget(num_batches * PHOTOS, RATE)
        return lambda: list(Training(student, PHOTOS_RECIPE, budget).run(Ahead(room, workers)))

    runs = [make(workers) for make in (batches, training) for workers in (0, 1, 2)]
    alone_0, alone_1, alone_2, taught_0, taught_1, taught_2 = alternate(repeats, *runs)
    images = num_batches * PHOTOS
    return {
        "batches, 1 thread / 0 (speed)": ratio(alone_0, alone_1),
        "batches, 2 threads / 0 (speed)": ratio(alone_0, alone_2),
        "training, 1 thread / 0 (speed)": ratio(taught_0, taught_1),
        "training, 2 threads / 0 (speed)": ratio(taught_0, taught_2),
        "batches, 0 threads, images/s": images / median(alone_0),
        "training, 0 threads, images/s": images / median(taught_0),
    }


def squares(folder: Path, options: argparse.Namespace) -> None:
    """student and views."""
    device, repeats = torch.device(options.device), 3 if options.quick else 21
    dataset = write_squares(folder / "squares.h5", 2_000 if options.quick else 50_000, 100)
    many, one = (open_rows(folder / f"{views}.h5", dataset, views) for views in (162, 1))
    clock = time.process_time if options.cpu_time else time.perf_counter
    show("student", bench_student(dataset, many, repeats, device, clock))
    show("views", bench_views(dataset, (many, one), repeats, device, clock))


def memory(folder: Path, options: argparse.Namespace) -> None:
    """Every view of 50,000 images, 500 classes: 4.1 GB."""
    dataset = write_squares(folder / "many.h5", 2_000 if options.quick else 50_000, 500)
    write_rows(folder / "large.h5", dataset, 162)
    steps = 3 if options.quick else 40
    show("memory", bench_memory(folder / "many.h5", folder / "large.h5", steps, options.threads))


def photos(folder: Path, options: argparse.Namespace) -> None:
    """photos."""
    dataset = write_photos(folder / "photos.h5", 64 if options.quick else 512, 100)
    repeats, batches = (2, 2) if options.quick else (7, 6)
    show("photos", bench_photos(dataset, repeats, batches, torch.device(options.device)))


PARTS = {"squares": squares, "memory": memory, "photos": photos}


def open_rows(path: Path, dataset: Dataset, num_views: int) -> SoftLabelStore:
    """A store of one file, written and then opened as the pipeline does."""
    write_rows(path, dataset, num_views)
    return open_store([path], sample_keys=dataset.sample_keys)


def main() -> None:
    """Runs the parts that are asked for and prints their figures, with the machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="all of them if none is named")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch; what the rules give small images")
    parser.add_argument("--cpu-time", action="store_true", help="squares by CPU time: where others compute, and no GPU")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print_machine(options)
    for name in options.part or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[name](Path(folder), options)


def print_machine(options: argparse.Namespace) -> None:
    """What the figures depend on."""
    is_cpu = torch.device(options.device).type == "cpu"
    name = platform.processor() or platform.machine() if is_cpu else torch.cuda.get_device_name(options.device)
    versions = f"torch {torch.__version__}, numpy {np.__version__}, Python {platform.python_version()}"
    clock = "CPU time of this process" if options.cpu_time else "wall time"
    print(f"machine {name}, {versions}, torch threads: {options.threads}, device {options.device}, {clock}", flush=True)


if __name__ == "__main__":
    main()
