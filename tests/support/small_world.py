"""A packed dataset, teachers that nobody trained, their soft labels and the stages taught from them, in seconds.

A teacher's weights are drawn, and its head is scaled so that it tells images apart as a trained one does.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from layouts import make_image_folder

from edpipe.datasets.dataset_file import open_dataset
from edpipe.datasets.partition_file import read_partition
from edpipe.models.forward import forward
from edpipe.models.zoo.build import build_network
from edpipe.params.dataset import DatasetKnobs
from edpipe.params.partition import PartitionKnobs
from edpipe.params.plans.plan import StageJobKnobs, StagePlan, TeacherUse
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import (
    DumpKnobs,
    PadCrop,
    StorageKnobs,
    StudentViews,
    ViewSpace,
    ViewUse,
    unlimited_views,
)
from edpipe.params.stage import StageKnobs
from edpipe.params.student import StudentKnobs
from edpipe.soft_labels.teacher_outputs import TeacherFiles
from edpipe.steps.dump_soft_labels import dump_soft_labels
from edpipe.steps.pack_dataset import pack_dataset
from edpipe.steps.partition_dataset import partition_dataset
from edpipe.steps.verify_soft_labels import verify_soft_labels
from edpipe.storage.records import make_record, record_path
from edpipe.storage.weights import write_weights
from edpipe.training.stage.inputs import StageFiles
from edpipe.views.batches import ViewBatches
from edpipe.views.pixels import normalise
from edpipe.views.spec import ViewSpec, count_views, view_ranges

CPU = torch.device("cpu")
SHIFTS = PadCrop(kind="pad_crop", padding=1, flip=False)
NINE = ViewSpace(augment=SHIFTS, exhaustive=True)
"""All nine views of a shift by at most one pixel."""
EXACT = StorageKnobs(precision="float32")
SPREAD = 3.0
"""Standard deviation of a teacher's logits."""
TRAINING = RecipeKnobs(batch_size=32, weight_decay=5e-4, warmup=0.1)


@dataclass(frozen=True)
class World:
    """A folder with a dataset and a partition of it into two halves."""

    root: Path
    dataset: Path
    partition: Path

    def teacher(self, subset="all", seed=0, model="resnet8", recipe=None, name=None, like=None):
        """Makes a teacher of a subset.

        `like`: files of another teacher, whose record this one's weights get, as a forger would do it.
        """
        dataset, partition = open_dataset(self.dataset), None
        class_ids, digest = tuple(range(dataset.num_classes)), ""
        if subset != "all":
            partition = read_partition(self.partition, dataset)
            class_ids, digest = partition.classes_of((subset,)), partition.digest
        recipe = recipe or RecipeKnobs()
        network = spread_network(model, dataset, class_ids, seed, recipe)
        name = name or ("general" if subset == "all" else "specialists")
        path = self.root / "teachers" / name / f"{subset}.safetensors"
        record = make_record(
            "train_teacher",
            {"network": {"model": model}, "recipe": recipe},
            {"dataset": dataset.digest, "partition": digest},
            class_ids=list(class_ids),
            mean=list(dataset.mean),
            std=list(dataset.std),
            top1=0.5,
            top1_split="train",
        )
        write_weights(path, network.state_dict(), record)
        return TeacherFiles(name, subset, self.dataset, self.partition if subset != "all" else None, path)

    def index(self, files):
        return self.root / "soft_labels" / files.teacher / f"{files.subset}.json"

    def dump(self, files, space=NINE, use=ViewUse(per_file=9), storage=EXACT):  # noqa: B008  (frozen)
        """Every file of a teacher's soft labels; their paths."""
        number = count_views(StudentViews(space=space, number=use.number, choice=use.choice))
        paths = []
        for views in view_ranges(number, use.per_file):
            paths.append(self.index(files).with_suffix("") / f"views_{views}.h5")
            dump_soft_labels(files, DumpKnobs(space, storage, 0.0), views, paths[-1])
        return tuple(paths)

    def store(self, files, space=NINE, use=ViewUse(per_file=9), storage=EXACT):  # noqa: B008  (frozen)
        """Dumped and verified soft labels; their paths."""
        paths = self.dump(files, space, use, storage)
        verify_soft_labels(files, paths, use, self.index(files))
        return paths

    def stage(self, teachers, paths, space=NINE, use=ViewUse(per_file=9), out="student", previous=None, **plan):  # noqa: B008
        """Knobs and files of a stage taught by these teachers; by default kd's only one."""
        plan = {
            "name": "only",
            "number": 1,
            "num_stages": 1,
            "taught": ("all",),
            "known": ("all",),
            "teachers": tuple(TeacherUse(teacher=t.teacher, subset=t.subset) for t in teachers),
            "temperature": 4.0,
            "task_weight": 0.3,
            "distill_weight": 0.7,
            "budget": StageKnobs(epochs=1, learning_rate=0.05),
        } | plan
        views = StudentViews(space=space, number=use.number, choice=use.choice)
        if not teachers:
            views = unlimited_views(space)
        knobs = StageJobKnobs(StagePlan.model_validate(plan), StudentKnobs(model="resnet8"), TRAINING, views)
        return knobs, StageFiles(
            self.dataset,
            self.partition,
            previous,
            tuple(self.index(t) for t in teachers),
            tuple(paths),
            tuple(record_path(t.weights_path) for t in teachers),
            self.root / "students" / f"{out}.safetensors",
        )


def make_world(root, reader="digits", per_class=8, **knobs):
    """Digits of 8 × 8 pixels; or, with reader folder, coloured squares of a few classes."""
    dataset, partition = root / "dataset.h5", root / "partition.json"
    raw = root / "raw"
    if reader == "folder":
        make_image_folder(raw, ("cat", "dog", "owl", "yak"), per_class)
        knobs = {"image_size": 16, "channels": 3} | knobs
    else:
        knobs = {"image_size": 8, "channels": 1, "max_per_class": per_class} | knobs
    pack_dataset("digits", DatasetKnobs(reader=reader, **knobs), raw, dataset)
    partition_dataset(dataset, PartitionKnobs(subsets=("primary", "middle")), partition)
    return World(root, dataset, partition)


def plain_batches(dataset):
    return ViewBatches(dataset, ViewSpec(SHIFTS, 9, True, 0, dataset.image_size), CPU)


def spread_network(model, dataset, class_ids, seed, recipe):
    """A network of these classes, in evaluation mode, whose logits on the training images vary by SPREAD."""
    network = build_network(model, len(class_ids), dataset.channels, seed).to(memory_format=torch.channels_last).eval()
    images = normalise(plain_batches(dataset).plain(dataset.sample_ids("train")), dataset.mean, dataset.std)
    with torch.inference_mode():
        logits = forward(network, images, recipe)
    factor = SPREAD / logits.std(dim=0).mean()
    head = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        head.weight.mul_(factor)
        head.bias.sub_(logits.mean(dim=0)).mul_(factor)
    return network


def every_row(labels):
    """(sample ids, views) of every row of an opened file, in its order."""
    views = np.arange(labels.views.first, labels.views.stop).repeat(len(labels.sample_ids))
    return np.tile(labels.sample_ids, labels.views.num_views), views
