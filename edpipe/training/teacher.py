"""What trained and fetched teachers have in common: opening their data, training, measuring, saving."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from edpipe.datasets.dataset_file import Dataset, open_dataset
from edpipe.datasets.partition_file import read_partition
from edpipe.models.forward import forward
from edpipe.models.pretrained.classifier import freeze_all_but_classifier
from edpipe.models.probe import count_outputs
from edpipe.models.resize import resize_images
from edpipe.models.zoo.names import check_model_name
from edpipe.params.partition import ALL_CLASSES
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import Augment, PadCrop, ResizedCrop, ViewSpace, unlimited_views
from edpipe.params.teacher import FittingKnobs, NetworkKnobs, TeacherJobKnobs
from edpipe.results.measures.metrics import Hits, top_k_hits
from edpipe.runtime.device import prepare_device
from edpipe.runtime.distributed import Group, joined
from edpipe.runtime.progress import announce
from edpipe.storage.job import Job
from edpipe.storage.records import make_record
from edpipe.storage.weights import write_weights
from edpipe.training.curves.validation import validation_of
from edpipe.training.loop import Budget, Training
from edpipe.training.resumable import ResumableTraining
from edpipe.training.sample_stream import SampleStream
from edpipe.training.schedule import epoch_images
from edpipe.views.batches import ViewBatches
from edpipe.views.pixels import normalise
from edpipe.views.sampling import view_of
from edpipe.views.spec import ViewSpec

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class TeacherSetup:
    """All that fitting one teacher needs besides the network."""

    title: str
    dataset: Dataset
    partition_digest: str
    """Empty for a teacher of all classes."""
    subset: str
    class_ids: tuple[int, ...]
    batches: ViewBatches
    fitting: FittingKnobs
    recipe: RecipeKnobs
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    student_digest: str = ""
    """Of the weights of the student that the teacher was; empty if it was none."""

    def normalised(self, mean: tuple[float, ...], std: tuple[float, ...]) -> "TeacherSetup":
        """The same course, for a network whose input is normalised by these."""
        return replace(self, mean=mean, std=std)

    def sample_ids(self, split: str) -> Int64[np.ndarray, " sample"]:
        """Samples of the subset's classes."""
        return self.dataset.sample_ids(split, self.class_ids)

    def local_labels(self, sample_ids: Int64[np.ndarray, " sample"]) -> Int64[Tensor, " sample"]:
        """Labels numbered as the teacher's outputs."""
        local = np.searchsorted(np.array(self.class_ids), self.dataset.labels[sample_ids])
        return torch.from_numpy(local.astype(np.int64)).to(self.batches.device)


def open_teacher_setup(
    title: str,
    dataset_path: Path,
    partition_path: Path | None,
    subset: str,
    augment: PadCrop | ResizedCrop,
    fitting: FittingKnobs,
    recipe: RecipeKnobs,
) -> TeacherSetup:
    """Opens the files that a teacher learns from.

    Raises:
        CorruptFileError: a file is damaged.
        MismatchError: the partition was made from another dataset.
    """
    device = prepare_device()
    dataset = open_dataset(dataset_path)
    class_ids, partition_digest = subset_classes(dataset, partition_path, subset)
    spec = ViewSpec.from_knobs(unlimited_views(_teacher_views(augment)), dataset.image_size)
    batches = ViewBatches(dataset, replace(spec, seed=fitting.seed), device)
    return TeacherSetup(title, dataset, partition_digest, subset, class_ids, batches, fitting, recipe)


def _teacher_views(augment: Augment) -> ViewSpace:
    """Views that are not mixed. Every field is given: the code's digest does not see defaults of knobs."""
    return ViewSpace(augment=augment, mixing=None, exhaustive=False, seed=0)


def setup_of_job(job: Job[TeacherJobKnobs]) -> TeacherSetup:
    """What a job of train_teacher or fetch_teacher trains on.

    Raises:
        NetworkError: unknown model.
        CorruptFileError: a file is damaged.
        MismatchError: the partition was made from another dataset.
    """
    check_model_name(job.knobs.network.model)
    return open_teacher_setup(
        f"teacher {job.arguments['teacher']}/{job.arguments['subset']}",
        job.input("dataset"),
        job.input_or_none("partition"),
        str(job.arguments["subset"]),
        job.knobs.augment,
        job.knobs.fitting,
        job.knobs.recipe,
    )


def subset_classes(dataset: Dataset, partition_path: Path | None, subset: str) -> tuple[tuple[int, ...], str]:
    """Class ids of a subset, ascending, and the digest of the partition that says so ("" for all classes)."""
    if partition_path is None or subset == ALL_CLASSES:
        return tuple(range(dataset.num_classes)), ""
    partition = read_partition(partition_path, dataset)
    return partition.classes_of((subset,)), partition.digest


@dataclass(frozen=True)
class TeacherTask:
    """What a teacher learns: the labels of its classes. The task of its training."""

    setup: TeacherSetup
    stream: SampleStream

    @property
    def num_workers(self) -> int:
        """Threads that make batches ahead, see `ViewBatches.num_workers`."""
        return self.setup.batches.num_workers

    def batch(self, start: int, stop: int) -> tuple[Float[Tensor, "sample _ _ _"], Int64[Tensor, " sample"]]:
        """Normalised views and labels of the samples at positions start … stop-1."""
        setup = self.setup
        epochs, ids = self.stream.slice(start, stop)
        views = view_of(setup.fitting.seed, epochs, ids, setup.batches.spec.num_views)
        return normalise(setup.batches.views(ids, views), setup.mean, setup.std), setup.local_labels(ids)

    def loss(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> Float[Tensor, " sample"]:
        """Cross-entropy of each sample, nats."""
        images, labels = batch
        # Not edpipe.losses.kd: an edit of the student's losses must not train teachers again.
        return F.cross_entropy(forward(network, images, self.setup.recipe), labels, reduction="none")


def train_and_save(
    step: str, network: nn.Module, setup: TeacherSetup, knobs: NetworkKnobs, out_path: Path, **facts: object
) -> None:
    """Trains the network in place, if its course has any epochs; measures it, writes its weights and record.

    Raises:
        NetworkError: the network cannot take the images, resized or not.
        TrainingError: the loss is no longer a finite number, or much too large.
        Interrupted: SIGTERM or Ctrl-C came; the same call goes on where it was.
    """
    resize_images(network, knobs.image_size)
    count_outputs(network, setup.dataset.channels, setup.dataset.image_size)
    network.to(setup.batches.device).to(memory_format=torch.channels_last)
    with joined(setup.batches.device) as group:
        if not setup.fitting.epochs:
            if group.is_main:
                _save(network, setup, out_path, _record(step, setup, knobs, facts))
            return
        sample_ids = setup.sample_ids("train")
        total = epoch_images(setup.fitting.epochs, len(sample_ids))
        training = _training(network, setup, total, group)
        record = _record(step, setup, knobs, facts | {"images_seen": total})
        validate = validation_of(setup.batches, setup.class_ids, setup.mean, setup.std, setup.recipe)
        fitting = ResumableTraining(setup.title, training, out_path, record, len(sample_ids), validate)
        final_loss = fitting.run(TeacherTask(setup, SampleStream(setup.fitting.seed, (sample_ids,), "mixed")))
        if group.is_main:
            _save(network, setup, out_path, {**record, "final_loss": final_loss})
            fitting.finish()


def _training(network: nn.Module, setup: TeacherSetup, num_images: int, group: Group) -> Training:
    """The training of all layers, or of the classifier alone while the rest keeps its batch statistics."""
    is_probe = setup.fitting.layers == "classifier"
    if is_probe:
        freeze_all_but_classifier(network)
    budget = Budget(num_images, setup.fitting.learning_rate)
    return Training(network, setup.recipe, budget, setup.fitting.seed, group, evaluates=is_probe)


def measure_teacher(network: nn.Module, setup: TeacherSetup) -> tuple[Hits, str]:
    """Hits on the subset's validation samples; on its training samples if none were set aside. Says which."""
    split = "val" if len(setup.sample_ids("val")) else "train"
    sample_ids = setup.sample_ids(split)
    network.eval()
    hits = Hits(0, 0)
    with torch.inference_mode():
        for ids in np.split(sample_ids, range(EVALUATION_BATCH, len(sample_ids), EVALUATION_BATCH)):
            images = normalise(setup.batches.plain(ids), setup.mean, setup.std)
            logits = forward(network, images, setup.recipe)
            hits += top_k_hits(logits.cpu().numpy(), setup.local_labels(ids).cpu().numpy(), 1)
    return hits, split


def _record(step: str, setup: TeacherSetup, knobs: NetworkKnobs, facts: dict[str, object]) -> dict[str, object]:
    """What is known before training; all that decides its result is in it."""
    all_knobs = {"network": knobs, "fitting": setup.fitting, "recipe": setup.recipe}
    all_knobs["augment"] = setup.batches.spec.augment
    student = {"student": setup.student_digest} if setup.student_digest else {}
    return make_record(
        step,
        all_knobs,
        {"dataset": setup.dataset.digest, "partition": setup.partition_digest} | student,
        subset=setup.subset,
        class_ids=list(setup.class_ids),
        mean=list(setup.mean),
        std=list(setup.std),
        **facts,
    )


def _save(network: nn.Module, setup: TeacherSetup, out_path: Path, record: dict[str, object]) -> None:
    """Measures the teacher and writes its weights and record."""
    hits, split = measure_teacher(network, setup)
    announce(
        f"{setup.title}: top1 {hits.top1:.4f} on {hits.total} {split} images of its {len(setup.class_ids)} classes"
    )
    measured = {"top1": hits.top1, "top1_split": split, "top1_samples": hits.total}
    write_weights(out_path, network.state_dict(), record | measured)
