"""A plain PyTorch loop on edpipe.SoftLabelDataset beside the pipeline's training loop, as ratios in one run.

    python benchmarks/bench_own_loop.py            some minutes and 40 MB of disk
    python benchmarks/bench_own_loop.py --quick    few repeats, to see that it runs

kd of a resnet20 in float32, SGD, batches of 128 squares of 32 × 32, 100 classes, all 162 views, stored as uint8 by
edpipe.SoftLabelWriter:

loop     images/s of the plain loop with a DataLoader of 0 or 1 workers, against the pipeline's loop.
batch    time of making a batch: through the DataLoader with `collate`, with torch's own collate, and item by item,
         each against the pipeline's batch.
writer   rows/s of SoftLabelWriter around a teacher that costs nothing: views, encoding, digests and the second look.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from bench_store import alternate, ratio, show
from school import SHIFTS, task, write_squares
from torch import Tensor, nn
from torch.utils.data import DataLoader

import edpipe
from edpipe.datasets.dataset_file import open_dataset
from edpipe.models.zoo.build import build_network
from edpipe.params.recipe import RecipeKnobs
from edpipe.soft_labels.file.store import open_store
from edpipe.training.loop import Budget, Training
from edpipe.training.stage.task import StageTask

Clock = Callable[[], float]
STUDENT, BATCH, CLASSES, SAMPLES = "resnet20", 128, 100, 1000
ENDLESS = 10**9
"""Images: no benchmark comes to the end of its schedule."""
STEPS = 5
"""Timed together."""
RATE = 0.01
KNOBS = {"space": SHIFTS.space.model_dump(), "views": {"per_file": 162}, "storage": {"precision": "uint8"}}
RECIPE = RecipeKnobs(batch_size=BATCH, schedule="constant", weight_decay=5e-4)
CPU = torch.device("cpu")


class Colours(nn.Module):
    """A teacher that costs next to nothing: mean colours, spread over the classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return self.head(images.mean((2, 3)))


def store_rows(folder: Path, num_samples: int, num_classes: int) -> tuple[Path, Path, float]:
    """Index and dataset of all views of random squares, and how many rows were stored in a second."""
    torch.manual_seed(0)
    dataset, index, teacher = folder / "squares.h5", folder / "labels" / "all.json", Colours(num_classes)
    write_squares(dataset, num_samples, num_classes)
    start = time.perf_counter()
    with (
        torch.inference_mode(),
        edpipe.SoftLabelWriter(index, dataset, KNOBS, teacher="colours", weights=teacher.state_dict()) as writer,
    ):
        for images in writer:
            writer.write(teacher(images))
    return index, dataset, 162 * num_samples / (time.perf_counter() - start)


def own_loop(data: edpipe.SoftLabelDataset, num_workers: int) -> Iterator[None]:
    """The loop of examples/recipes/plain_pytorch.py, a step at a time."""
    student = new_student(data)
    batches = data.sampler(BATCH, images=ENDLESS)
    loader = DataLoader(data, batch_sampler=batches, collate_fn=data.collate, num_workers=num_workers)
    optimizer = torch.optim.SGD(student.parameters(), RATE, 0.9, weight_decay=5e-4, nesterov=True, fused=True)
    for images, labels, teacher_logits in loader:
        logits = student(images)
        task_loss = F.cross_entropy(logits, labels, reduction="none")
        own, wanted = (F.log_softmax(each / 4.0, dim=1) for each in (logits, teacher_logits))
        distill = F.kl_div(own, wanted, reduction="none", log_target=True).sum(dim=1) * 16.0
        optimizer.zero_grad()
        (0.3 * task_loss + 0.7 * distill).mean().backward()
        optimizer.step()
        yield


def new_student(data: edpipe.SoftLabelDataset) -> nn.Module:
    """The same for both loops."""
    return build_network(STUDENT, len(data.classes), 3, 0).to(memory_format=torch.channels_last)


def pipeline_task(index: Path, dataset: Path) -> StageTask:
    """kd from the same files, as the pipeline's stage has it."""
    opened = open_dataset(dataset)
    files = json.loads(index.read_text(encoding="utf-8"))["files"]
    store = open_store([index.with_suffix("") / name for name in files], sample_keys=opened.sample_keys)
    return task(opened, [store], SHIFTS, CPU, RECIPE)


def bench_loop(index: Path, dataset: Path, repeats: int, clock: Clock = time.perf_counter) -> dict[str, Any]:
    """Training."""
    data = edpipe.SoftLabelDataset(index, dataset)
    pipeline = Training(new_student(data), RECIPE, Budget(ENDLESS, RATE)).run(pipeline_task(index, dataset))
    loops = [pipeline, own_loop(data, 0), own_loop(data, 1)]
    pipeline_s, alone_s, worker_s = alternate(repeats, *(steps_of(loop) for loop in loops), clock=clock)
    return {
        "own loop / pipeline (speed)": ratio(pipeline_s, alone_s),
        "own loop with 1 worker / pipeline (speed)": ratio(pipeline_s, worker_s),
        "pipeline, images/s": STEPS * BATCH / statistics.median(pipeline_s),
        "own loop, images/s": STEPS * BATCH / statistics.median(alone_s),
    }


def steps_of(loop: Iterator[Any]) -> Callable[[], None]:
    """Goes on with a loop for as many steps as are timed together."""

    def go_on() -> None:
        for _ in range(STEPS):
            next(loop)

    return go_on


def bench_batch(index: Path, dataset: Path, repeats: int, clock: Clock = time.perf_counter) -> dict[str, Any]:
    """Batches alone."""
    data, room = edpipe.SoftLabelDataset(index, dataset), pipeline_task(index, dataset)
    pipeline = (room.batch(start, start + BATCH) for start in range(0, ENDLESS, BATCH))
    loaders = [
        DataLoader(data, batch_sampler=data.sampler(BATCH, images=ENDLESS), collate_fn=collate_fn)
        for collate_fn in (data.collate, None)
    ]
    one_by_one = ([data[index] for index in batch] for batch in data.sampler(BATCH, images=ENDLESS))
    loops = [pipeline, *map(iter, loaders), one_by_one]
    pipeline_s, *others = alternate(repeats, *(steps_of(loop) for loop in loops), clock=clock)
    names = ("collate", "torch's collate", "items one by one")
    figures: dict[str, Any] = {
        f"{name} / pipeline's batch (time)": ratio(each, pipeline_s) for name, each in zip(names, others, strict=True)
    }
    return figures | {"pipeline's batch, ms": 1e3 * statistics.median(pipeline_s) / STEPS}


def main() -> None:
    """Prints all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cpu-time", action="store_true", help="of this process, where others compute; no workers'")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    repeats, clock = 2 if options.quick else 7, time.process_time if options.cpu_time else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        index, dataset, rows_per_s = store_rows(Path(folder), 200 if options.quick else SAMPLES, CLASSES)
        show("writer", {"rows/s": rows_per_s})
        show("loop", bench_loop(index, dataset, repeats, clock))
        show("batch", bench_batch(index, dataset, repeats, clock))


if __name__ == "__main__":
    main()
