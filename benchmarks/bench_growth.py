"""How CPU time and memory grow with the number of classes, samples and jobs; a fitted exponent for each.

    python benchmarks/bench_growth.py                      all cases, some minutes
    python benchmarks/bench_growth.py confusion --sizes 1000 2000

confusion  classes are dealt out by what a teacher confuses; the input itself grows with the square of the classes
names      classes are dealt out by lists of their names
easiest    the easiest half of the samples of each class, 20 samples a class
check      `edpipe check` of so many jobs, experiments of ED with five seeds, networks checked before
plan       `edpipe plan --no-estimate` of them
makespan   the schedule of so many jobs of such experiments

Each size runs in a process of its own. Seconds are CPU time of the case alone; MB are the most that the process held
while it ran, beyond what it held before (VmHWM of Linux). The exponent is the slope of log seconds over log size.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

SPACE = {"augment": {"kind": "pad_crop", "padding": 1}}
JOBS_OF_ONE = 17
"""Jobs that one more experiment of ED with two levels and five seeds adds."""


def confusion(num_classes: int) -> Callable[[], object]:
    """Clusters of ten classes, in three subsets."""
    from edpipe.datasets.partition import class_bounds
    from edpipe.soft_labels.confusion import class_order, similarity_of

    rng = np.random.default_rng(0)
    cluster = rng.integers(0, max(num_classes // 10, 1), num_classes)
    strength = np.where(cluster[:, None] == cluster[None, :], 5.0, 0.02)
    similarity = similarity_of(rng.random((num_classes, num_classes)) * strength)
    return lambda: class_order(similarity, class_bounds(num_classes, (1, 1, 1)), together=True)


def names(num_classes: int) -> Callable[[], object]:
    """Two subsets of listed names."""
    from edpipe.datasets.partition import make_partition
    from edpipe.params.partition import PartitionKnobs

    of_classes = tuple(f"class {number}" for number in range(num_classes))
    half = num_classes // 2
    classes = {"a": of_classes[:half], "b": of_classes[half:]}
    knobs = PartitionKnobs.model_validate({"subsets": ("a", "b"), "classes": classes})
    return lambda: make_partition(knobs, of_classes, "0" * 16)


def easiest(num_classes: int) -> Callable[[], object]:
    """20 samples of each class, in any order."""
    from edpipe.soft_labels import difficulty

    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(num_classes), 20))
    losses = rng.random(len(labels))
    return lambda: difficulty.easiest(np.arange(len(labels)), labels, losses, 0.5)


def check(num_jobs: int) -> Callable[[], object]:
    """In an empty folder; networks are checked before, as they are on a second call."""
    from edpipe.cli.main import main

    write_params(num_jobs)
    with contextlib.redirect_stdout(None):
        subprocess.run([sys.executable, "-m", "edpipe", "check"], check=True, stdout=subprocess.DEVNULL)
    return lambda: main(["check"])


def plan(num_jobs: int) -> Callable[[], object]:
    """In an empty folder."""
    from edpipe.cli.main import main

    write_params(num_jobs)
    return lambda: main(["plan", "--no-estimate"])


def makespan(num_jobs: int) -> Callable[[], object]:
    """On eight cores, a second for each job."""
    from edpipe.params.load import load_params
    from edpipe.pipeline.estimates import makespan as module
    from edpipe.pipeline.jobs.graph import jobs_named

    write_params(num_jobs)
    params = load_params()
    jobs = jobs_named(params, list(params.experiments))
    seconds = {job.outputs[0]: 1.0 for job in jobs}
    return lambda: module.makespan(jobs, seconds, dict.fromkeys(seconds, 1), 8)


CASES = {case.__name__: case for case in (confusion, names, easiest, check, plan, makespan)}
SIZES = {
    "confusion": (500, 1000, 2000, 4000),
    "names": (5_000, 10_000, 21_841, 40_000),
    "easiest": (1_000, 5_000, 21_841),
    "check": (1_000, 3_000, 10_000),
    "plan": (1_000, 3_000, 10_000),
    "makespan": (1_000, 3_000, 10_000),
}


def write_params(num_jobs: int) -> None:
    """Experiments of ED with two levels on digits, five seeds each; at least one."""
    common = {
        "dataset": "digits",
        "partition": "halves",
        "student": "resnet8",
        "recipe": "tiny",
        "seeds": [0, 1, 2, 3, 4],
    }
    stages = {"primary": {"images": 96}, "middle": {"images": 96}}
    one = {**common, "method": {"name": "ed", "teacher": "specialists"}, "stages": stages}
    fitting = {"recipe": "tiny", "epochs": 2, "learning_rate": 0.1}
    teacher = {"partition": "halves", "network": {"model": "resnet8"}, "fitting": fitting, "min_top1": 0.0}
    params = {
        "datasets": {"digits": {"reader": "digits", "image_size": 8, "channels": 1}},
        "partitions": {"halves": {"subsets": ["primary", "middle"]}},
        "recipes": {"tiny": {"batch_size": 32}},
        "teachers": {"specialists": teacher},
        "students": {"resnet8": {"model": "resnet8"}},
        "soft_labels": {"digits": {"space": SPACE, "views": {"number": 2}, "storage": {"precision": "uint8"}}},
        "experiments": {f"ed_{number}": one for number in range(max(num_jobs // JOBS_OF_ONE, 1))},
        "tracked": [],
    }
    Path("params.yaml").write_text(json.dumps(params), encoding="utf-8")


def measured(case: str, size: int) -> dict[str, float]:
    """CPU seconds and MB of one case, in this process and its folder."""
    function = CASES[case](size)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again at what is held now
    before_kb, started_s = peak_kb(), time.process_time()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        function()
    taken_s = time.process_time() - started_s
    return {"size": size, "seconds": round(taken_s, 4), "mb": round((peak_kb() - before_kb) / 1024, 1)}


def peak_kb() -> int:
    """The most that this process held, kB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def in_own_process(case: str, size: int) -> dict[str, float]:
    """The same in a fresh process and an empty folder."""
    command = [sys.executable, str(Path(__file__).resolve()), case, "--sizes", str(size), "--here"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of log seconds over log size.

    >>> round(exponent([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def main() -> None:
    """Prints a line for each size, and the exponent of each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; none: all")
    parser.add_argument("--sizes", type=int, nargs="+", help="instead of those of each case")
    parser.add_argument("--here", action="store_true", help="one case and one size in this process, as JSON")
    options = parser.parse_args()
    if unknown := sorted(set(options.cases) - set(CASES)):
        parser.error(f"no case named {unknown[0]!r}; allowed: {', '.join(CASES)}")
    if options.here:
        print(json.dumps(measured(options.cases[0], options.sizes[0])))
        return
    for case in options.cases or CASES:
        found = [in_own_process(case, size) for size in options.sizes or SIZES[case]]
        for one in found:
            print(f"{case:<10} {one['size']:>7,}  {one['seconds']:9.3f} s  {one['mb']:8.1f} MB more", flush=True)
        if len(found) > 1:
            print(f"{case:<10} exponent {exponent([o['size'] for o in found], [o['seconds'] for o in found]):.2f}")


if __name__ == "__main__":
    main()
