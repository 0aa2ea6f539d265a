"""Trains in child processes that may be killed; run by tests/test_stage_kill.py, once, as a program.

`python killable_stage.py FOLDER` imports what training needs, then forks a child for each line it reads:

    school                  three stages, one after the other, undisturbed
    teacher                 a teacher
    school SIGKILL N MS     the same, but it sends itself this signal, so many milliseconds after it began its N-th
                            iteration; with N = 0, after it heeds signals
    short                   the first stage alone, in three iterations
    short N                 the same, but it kills itself with SIGKILL at its N-th act upon the disk
    short count             the same, but it notes in the log each act upon the disk

and prints the child's process id when it starts and, after another line, how it ended. A child adds a line to the log
for each stage and each iteration that it begins; what it says on standard error is in the file `said`. What is complete
is left as it is, as Snakemake does.
"""

import math
import os
import shutil
import signal
import sys
import threading
import traceback
from pathlib import Path

from method_stages import school
from small_world import EXACT, NINE, SHIFTS, TRAINING, World, make_world

from edpipe.params.partition import PartitionKnobs
from edpipe.params.plans.plan import StageJobKnobs
from edpipe.params.soft_labels import StudentViews, ViewUse
from edpipe.params.stage import StageKnobs
from edpipe.params.student import StudentKnobs
from edpipe.params.teacher import FittingKnobs, NetworkKnobs
from edpipe.steps.partition_dataset import partition_dataset
from edpipe.steps.run_stage import run_stage
from edpipe.steps.train_teacher import train_teacher
from edpipe.storage.records import record_path
from edpipe.training.stage.inputs import StageFiles
from edpipe.training.teacher import open_teacher_setup

LEVELS = ("primary", "middle", "university")
RECIPES = (
    TRAINING,
    TRAINING.model_copy(update={"optimizer": "adamw", "ema_decay": 0.9, "clip_norm": 1.0}),
    TRAINING.model_copy(update={"schedule": "one_cycle", "ema_decay": 0.99, "decay": "matrices"}),
)
"""Of one stage each."""
VIEWS = StudentViews(space=NINE, number=ViewUse().number, choice=ViewUse().choice)
ITERATIONS = 8
SHORT_ITERATIONS = 3
RATES = (0.05, 0.005, 0.05)
ACTS = ("fsync", "replace", "unlink", "rmdir", "mkdir")
"""What training does to the disk, besides writing bytes, which is an act of its own and half done when it kills."""


def make_school(root):
    """A dataset, three specialists that nobody trained, and their soft labels."""
    world = make_world(root, per_class=8)
    partition_dataset(world.dataset, PartitionKnobs(subsets=LEVELS), world.partition)
    for level in LEVELS:
        world.store(world.teacher(level), storage=EXACT)


def plans(iterations):
    """Knobs and files of the three stages, without the folder."""
    images = iterations * TRAINING.batch_size
    budgets = {level: StageKnobs(images=images, learning_rate=rate) for level, rate in zip(LEVELS, RATES, strict=True)}
    return school(budgets, {"specialists"}, teacher="specialists")


def stages(root, iterations):
    """Knobs and files of the three stages."""
    world = World(root, root / "dataset.h5", root / "partition.json")
    labels = root / "soft_labels" / "specialists"
    previous = None
    for plan, recipe in zip(plans(iterations), RECIPES, strict=True):
        subsets = [use.subset for use in plan.teachers]
        files = StageFiles(
            world.dataset,
            world.partition,
            previous,
            tuple(labels / f"{subset}.json" for subset in subsets),
            tuple(path for subset in subsets for path in sorted((labels / subset).glob("*.h5"))),
            tuple(root / "teachers" / "specialists" / f"{subset}.json" for subset in subsets),
            root / "made" / f"{plan.number}_{plan.name}.safetensors",
        )
        previous = files.out
        yield StageJobKnobs(plan, StudentKnobs(model="resnet8"), recipe, VIEWS), files


def is_complete(out):
    """Whether Snakemake would take it for finished: nothing is left of a job that was cut off."""
    return out.exists() and record_path(out).exists() and not (out.parent / ".resume" / out.stem).exists()


def attend(root, iterations=ITERATIONS, num_stages=3):
    """The first stages that are not complete."""
    for knobs, files in list(stages(root, iterations))[:num_stages]:
        if not is_complete(files.out):
            note(root, knobs.plan.name)
            run_stage(knobs.plan.name, 0, knobs, files)


def teach(root):
    """A teacher of the classes of one subset, if it is not complete."""
    out = root / "made" / "teacher.safetensors"
    if not is_complete(out):
        note(root, "teacher")
        fitting = FittingKnobs(recipe="any", epochs=12.0, learning_rate=0.05)
        files = root / "dataset.h5", root / "partition.json"
        setup = open_teacher_setup("teacher", *files, "primary", SHIFTS, fitting, RECIPES[1])
        train_teacher(setup, NetworkKnobs(model="resnet8"), out)


ORDERS = {
    "school": attend,
    "teacher": teach,
    "short": lambda root: attend(root, SHORT_ITERATIONS, 1),
}


def main(root):
    """Reads orders until there are no more."""
    prepare(root)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(root, *line.split())
        print(child, flush=True)
        sys.stdin.readline()  # until it is asked how the child ended, nobody else gets the child's process id
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def prepare(root):
    """A checkpoint after each iteration, and a log of the iterations."""
    import timm.utils.model_ema  # noqa: F401  (a second that each child would need)
    import torch._dynamo  # noqa: F401  (the same)

    from edpipe.training import resumable
    from edpipe.training.loop import Training

    resumable.MOST_COST = math.inf
    step = Training._step

    def logged_step(training, task, batch):
        note(root, str(training.iteration + 1))
        strike_if_due()
        step(training, task, batch)

    Training._step = logged_step


PLANNED = {}
"""Which signal this process sends itself: its name, the number of iterations until then, and the delay."""


def strike_if_due():
    """Sends this process the planned signal, if its moment has come; called as each iteration begins, and before."""
    if not PLANNED:
        return
    if PLANNED["left"] == 0 and PLANNED["delay_s"] == 0:
        strike()
    elif PLANNED["left"] == 0:
        timer = threading.Timer(PLANNED["delay_s"], strike)
        timer.daemon = True
        timer.start()
    PLANNED["left"] -= 1


def strike():
    """Notes that the signal comes, and sends it."""
    note(PLANNED["root"], "signal")
    os.kill(os.getpid(), PLANNED["number"])


def note(root, text):
    """Adds a line to the log, in one go."""
    descriptor = os.open(root / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.writev(descriptor, [f"{text}\n".encode()])
    os.close(descriptor)


def run(root, order, *how):
    """The work, as a command of the command line; does not come back."""
    from edpipe.cli import main, run_step

    code = 1
    try:
        os.setsid()
        said = os.open(root / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, sys.stderr.fileno())
        run_step.STEP_COMMANDS["report"] = (lambda experiment: work(root, order, *how), ("experiment",), "any")
        code = main.main(["report", "--experiment", "any"])
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def work(root, order, *how):
    """From here on a signal is heeded."""
    note(root, "begin")
    if len(how) == 1:
        watch_acts(root, *how)
    elif how:
        name, left, delay_ms = how
        delay_s = float(delay_ms) / 1000
        PLANNED.update(root=root, number=signal.Signals[name], left=int(left), delay_s=delay_s)
        strike_if_due()
    ORDERS[order](root)


def watch_acts(root, act):
    """Counts what is done to the disk from now on, and kills this process at the act that was asked for."""
    count = 0
    shutil._use_fd_functions = False  # rmtree then removes files one by one, by os.unlink

    def is_the_last(name):
        nonlocal count
        count += 1
        if act == "count":
            note(root, f"act {count} {name}")
        return str(count) == act

    for name in ACTS:
        setattr(os, name, watched(name, getattr(os, name), is_the_last))
    Path.write_bytes = half_written(Path.write_bytes, is_the_last)


def watched(name, original, is_the_last):
    def do(*arguments, **options):
        if is_the_last(name):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    return do


def half_written(original, is_the_last):
    def write_bytes(path, data):
        if is_the_last("write"):
            original(path, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return original(path, data)

    return write_bytes


if __name__ == "__main__":
    main(Path(sys.argv[1]))
