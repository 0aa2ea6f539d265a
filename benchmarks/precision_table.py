"""What each precision costs on a real teacher: a Markdown table of bytes and KL at two temperatures.

    python benchmarks/precision_table.py fashion_mnist fashion_teacher all

Run it in a project folder whose teacher is there. Rows are spread over samples and views; errors are those of the rows.
"""

import argparse

import numpy as np

from edpipe import jobs, layout
from edpipe.batches import ViewBatches
from edpipe.device import prepare_device
from edpipe.params.load import load_params
from edpipe.params.soft_labels import StorageKnobs
from edpipe.steps.asking import TeacherFiles, interview, load_teacher
from edpipe.storage.dataset_file import open_dataset
from edpipe.storage_costs import candidates, measure
from edpipe.views import ViewSpec

TEMPERATURES = (4.0, 1.0)


def logits_of(dataset_name: str, name: str, subset: str, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The teacher's logits on rows spread over its samples and views, and their sample ids."""
    params = load_params()
    job = jobs.verify_soft_labels(params, dataset_name, name, subset)
    dataset = open_dataset(layout.dataset_path(dataset_name))
    partition = job.inputs["partition"][0] if job.inputs["partition"] else None
    teacher = load_teacher(TeacherFiles(name, subset, dataset.path, partition, job.inputs["teacher"][0]), dataset)
    spec = ViewSpec.from_knobs(params.soft_labels[dataset_name].student_views, dataset.image_size)
    pool = dataset.sample_ids("train", teacher.class_ids)
    ids = pool[np.linspace(0, len(pool) - 1, num_rows).astype(np.int64)]
    with interview(teacher, ViewBatches(dataset, spec, prepare_device(), (pool,))) as asked:
        return asked.ask(ids, np.arange(num_rows) % spec.num_views)[0], ids


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for word in ("dataset", "teacher", "subset"):
        parser.add_argument(word)
    parser.add_argument("--rows", type=int, default=10_000)
    options = parser.parse_args()
    logits, ids = logits_of(options.dataset, options.teacher, options.subset, options.rows)
    print(
        "| precision | bytes a row | "
        + " | ".join(f"mean, largest, certified KL, τ = {t:g}" for t in TEMPERATURES)
        + " |"
    )
    print("|---|---|" + "---|" * len(TEMPERATURES))
    for cost in candidates(logits.shape[1], StorageKnobs()):
        found = [measure(cost, logits, ids, temperature) for temperature in TEMPERATURES]
        cells = (f"{one.mean_kl:.1e}, {one.max_kl:.1e}, {one.bound:.1e}" for one in found)
        print(f"| {cost.name} | {cost.row_bytes} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
