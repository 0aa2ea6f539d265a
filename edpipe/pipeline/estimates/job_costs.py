"""What one job would take: seconds and bytes from its knobs, the number of images, and speeds measured here."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from edpipe.models.zoo.forms import attention_modules
from edpipe.params.dataset import DatasetKnobs
from edpipe.params.partition import ALL_CLASSES, PartitionKnobs
from edpipe.params.plans.plan import StageJobKnobs
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.schema import Params
from edpipe.params.searches.knobs import SearchJobKnobs
from edpipe.params.soft_labels import StorageKnobs
from edpipe.params.stage import StageKnobs
from edpipe.params.teacher import TeacherKnobs
from edpipe.pipeline.estimates.image_counts import ImageCounts, image_counts
from edpipe.pipeline.estimates.network_speed import NetworkSpeed, NetworkSpeeds, NetworkUse
from edpipe.pipeline.jobs.resources import dataset_of
from edpipe.soft_labels.encoding.costs import store_bytes
from edpipe.storage.job import Job
from edpipe.views.spec import ViewRange

START_S = 1.5
"""Starting a step's process, reading what it needs, writing what it made."""
ARRAYS = ("cifar10", "cifar100", "digits", "fashion_mnist", "svhn")
"""Readers of images that are not compressed."""
ARRAYS_PER_S, FILES_PER_S = 3_000, 300
"""Images that are packed in a second, by one thread; photographs of many megapixels take longer."""
JPEG_BYTES_PER_PIXEL = 0.5
"""At the default quality, without thinning of colours."""
LONG_SIDE = 1.3
"""Of a photograph, relative to its short side."""
WEIGHT_BYTES = 4
VERIFIED_ROWS = 1_000
TRAINING_SHARE_OF_VIEWS = 1.2
"""Making views, normalising them, and the loss come on top of the network's own time."""


@dataclass(frozen=True)
class JobCost:
    """An estimate."""

    seconds: float
    """Of one job that runs alone."""
    num_bytes: int
    """Of what it makes."""


class JobCosts:
    """Estimates of jobs of one params.yaml."""

    def __init__(
        self,
        params: Params,
        speeds: NetworkSpeeds,
        counts: Callable[[Params, str], ImageCounts | None] = image_counts,
    ) -> None:
        self._params, self._speeds, self._counts = params.with_trials, speeds, counts
        self._known: dict[str, ImageCounts | None] = {}

    def of(self, job: Job) -> JobCost | None:
        """None where the number of images or the speed of a network is not known."""
        dataset = dataset_of(self._params, job)
        counts = self._counts_of(dataset) if dataset is not None else None
        if job.step in _LIGHT:
            return JobCost(START_S, 0)
        if dataset is None or counts is None:
            return None
        found = _ESTIMATES[job.step](self, job, dataset, counts)
        return None if found is None else JobCost(START_S + found.seconds, found.num_bytes)

    def _counts_of(self, dataset: str) -> ImageCounts | None:
        if dataset not in self._known:
            self._known[dataset] = self._counts(self._params, dataset)
        return self._known[dataset]

    # One function for each step with a network or with images.

    def pack_dataset(self, _job: Job, dataset: str, counts: ImageCounts) -> JobCost:
        """Every image is decoded once."""
        knobs: DatasetKnobs = self._params.datasets[dataset]
        rate = ARRAYS_PER_S if knobs.reader in ARRAYS else FILES_PER_S
        return JobCost(counts.total / rate, counts.total * packed_bytes(knobs))

    def make_teacher(self, job: Job, dataset: str, counts: ImageCounts) -> JobCost | None:
        """Its epochs, and its top1 on the validation images."""
        teacher, share = self._params.teachers[str(job.arguments["teacher"])], self._share(job)
        speed = self._teacher_speed(dataset, counts, teacher, share)
        if speed is None:
            return None
        # Of a probe all but the last layer is in evaluation mode and has no gradients.
        rate = speed.forward if teacher.fitting.layers == "classifier" else speed.training
        fitted = float(teacher.fitting.epochs * counts.train * share)
        seconds = fitted * TRAINING_SHARE_OF_VIEWS / rate + counts.val * float(share) / speed.forward
        return JobCost(seconds, WEIGHT_BYTES * speed.parameters)

    def record_trajectory(self, job: Job, dataset: str, counts: ImageCounts) -> JobCost | None:
        """As training a teacher, and a row of logits for each image of each epoch."""
        made = self.make_teacher(job, dataset, counts)
        if made is None:
            return None
        epochs = round(self._params.teachers[str(job.arguments["teacher"])].fitting.epochs)
        storage: StorageKnobs = self._params.soft_labels[dataset].storage
        return JobCost(made.seconds, store_bytes(storage, [(counts.train, counts.num_classes)], epochs))

    def dump_soft_labels(self, job: Job, dataset: str, counts: ImageCounts) -> JobCost | None:
        """The teacher sees each training image of its classes once for each view."""
        share, num_views = self._share(job), ViewRange.parse(str(job.arguments["views"])).num_views
        teacher = self._params.teachers[str(job.arguments["teacher"])]
        speed = self._teacher_speed(dataset, counts, teacher, share)
        if speed is None:
            return None
        storage: StorageKnobs = self._params.soft_labels[dataset].storage
        samples, classes = round(counts.train * share), max(round(counts.num_classes * share), 1)
        beside = feature_bytes(storage, speed, teacher.network.model)
        num_bytes = store_bytes(storage, [(samples, classes)], num_views, beside)
        return JobCost(num_views * samples * TRAINING_SHARE_OF_VIEWS / speed.forward, num_bytes)

    def verify_soft_labels(self, job: Job, dataset: str, counts: ImageCounts) -> JobCost | None:
        """The teacher is asked again about some rows."""
        share, teacher = self._share(job), self._params.teachers[str(job.arguments["teacher"])]
        speed = self._teacher_speed(dataset, counts, teacher, share)
        return None if speed is None else JobCost(VERIFIED_ROWS / speed.forward, 0)

    def evaluate_teacher(self, job: Job, dataset: str, counts: ImageCounts) -> JobCost | None:
        """The test images of its classes once."""
        share, teacher = self._share(job), self._params.teachers[str(job.arguments["teacher"])]
        speed = self._teacher_speed(dataset, counts, teacher, share)
        return None if speed is None else JobCost(counts.test * float(share) / speed.forward, 0)

    def run_stage(self, job: Job[StageJobKnobs], dataset: str, counts: ImageCounts) -> JobCost | None:
        """The images of its budget, through as much of the network as the level has."""
        plan = job.knobs.plan
        speed = self._student_speed(str(job.arguments["experiment"]), dataset, counts)
        if speed is None:
            return None
        part = plan.blocks / plan.num_blocks
        taught = counts.train * self._taught(str(job.arguments["experiment"]), plan.taught)
        taught *= plan.easiest * plan.hardest
        full = self._params.datasets[dataset].image_size
        # Two of three parts of a block's training are its backward pass.
        learning = (plan.blocks - 2 / 3 * plan.frozen) / plan.num_blocks
        cost = learning * ((plan.budget.image_size or full) / full) ** 2
        # A budget of compute is in images of the whole student at full size already.
        whole = plan.budget.compute or seen_images(plan.budget, taught) * cost
        seconds = whole * TRAINING_SHARE_OF_VIEWS / speed.training
        return JobCost(seconds, round(WEIGHT_BYTES * speed.parameters * part))

    def evaluate(self, job: Job, dataset: str, counts: ImageCounts) -> JobCost | None:
        """The student of each stage sees the test images, and the validation images."""
        speed = self._student_speed(str(job.arguments["experiment"]), dataset, counts)
        num_stages = sum(path.suffix != ".json" for path in job.inputs["students"])
        return None if speed is None else JobCost(num_stages * (counts.test + counts.val) / speed.forward, 0)

    def search(self, job: Job[SearchJobKnobs], dataset: str, counts: ImageCounts) -> JobCost | None:
        """The last student of each trial and seed sees the validation images."""
        speeds = [self._student_speed(trial.name, dataset, counts) for trial in job.knobs.trials]
        if any(speed is None for speed in speeds):
            return None
        seconds = sum(counts.val / speed.forward for speed in speeds if speed is not None)
        return JobCost(len(job.knobs.search.seeds) * seconds, 0)

    def _taught(self, experiment: str, subsets: tuple[str, ...]) -> float:
        """Share of all classes in these subsets."""
        partition = self._params.partitions[self._params.experiments[experiment].partition]
        return float(sum(class_share(partition, subset) for subset in subsets))

    def _share(self, job: Job) -> Fraction:
        """Of all classes, those that the teacher of a job knows."""
        teacher: TeacherKnobs = self._params.teachers[str(job.arguments["teacher"])]
        if teacher.partition is None:
            return Fraction(1)
        return class_share(self._params.partitions[teacher.partition], str(job.arguments["subset"]))

    def _teacher_speed(
        self, dataset: str, counts: ImageCounts, teacher: TeacherKnobs, share: Fraction
    ) -> NetworkSpeed | None:
        recipe = self._params.recipes[teacher.fitting.recipe]
        classes = max(round(counts.num_classes * share), 1)
        return self._speeds.of(
            network_use(self._params, dataset, teacher.network.model, classes, recipe, teacher.network.image_size)
        )

    def _student_speed(self, experiment: str, dataset: str, counts: ImageCounts) -> NetworkSpeed | None:
        knobs = self._params.experiments[experiment]
        model, recipe = self._params.students[knobs.student].model, self._params.recipes[knobs.recipe]
        return self._speeds.of(network_use(self._params, dataset, model, counts.num_classes, recipe))


_LIGHT = ("partition_dataset", "partition_by_confusion", "result", "report", "study")
_ESTIMATES: dict[str, Callable[[JobCosts, Job, str, ImageCounts], JobCost | None]] = {
    "pack_dataset": JobCosts.pack_dataset,
    "train_teacher": JobCosts.make_teacher,
    "fetch_teacher": JobCosts.make_teacher,
    "record_trajectory": JobCosts.record_trajectory,
    "dump_soft_labels": JobCosts.dump_soft_labels,
    "verify_soft_labels": JobCosts.verify_soft_labels,
    "evaluate_teacher": JobCosts.evaluate_teacher,
    "run_stage": JobCosts.run_stage,
    "evaluate": JobCosts.evaluate,
    "search": JobCosts.search,
}


def network_use(
    params: Params, dataset: str, model: str, num_classes: int, recipe: RecipeKnobs, image_size: int | None = None
) -> NetworkUse:
    """How a network is used on a dataset; `image_size` in pixels where it is not the dataset's."""
    knobs = params.datasets[dataset]
    side = image_size or knobs.image_size
    num_outputs = 10 ** max(len(str(num_classes - 1)), 1)  # a few more hardly change its speed
    return NetworkUse(model, num_outputs, knobs.channels, side, recipe.batch_size, recipe.precision)


def packed_bytes(knobs: DatasetKnobs) -> int:
    """Of one image in the dataset file.

    >>> packed_bytes(DatasetKnobs(reader="folder", image_size=32))
    3072
    """
    if knobs.encoding == "raw":
        return knobs.image_size**2 * knobs.channels
    side = knobs.stored_side or knobs.image_size
    return round(side**2 * LONG_SIDE * JPEG_BYTES_PER_PIXEL)


def feature_bytes(storage: StorageKnobs, speed: NetworkSpeed, model: str) -> int:
    """Of what is stored of a view beside its logits: attention maps and a hint, two bytes a number."""
    maps = speed.feature_stages[-len(attention_modules(model) or speed.feature_stages) :]
    numbers = sum(height * width for _, height, width in maps) if storage.attention else 0
    if storage.hint is not None and len(speed.feature_stages) >= storage.hint.feature_stage:
        channels, height, width = speed.feature_stages[storage.hint.feature_stage - 1]
        numbers += channels * min(height, storage.hint.side or height) * min(width, storage.hint.side or width)
    return 2 * numbers


def seen_images(budget: StageKnobs, pool: float) -> float:
    """Images that a budget shows of a pool of so many.

    >>> seen_images(StageKnobs(epochs=2.5), 100.0), seen_images(StageKnobs(images=30), 100.0)
    (250.0, 30.0)
    """
    return float((budget.epochs or 0) * pool if budget.images is None else budget.images)


def class_share(partition: PartitionKnobs, subset: str) -> Fraction:
    """Of all classes, those in a subset; as its ratio says, before classes are counted.

    >>> class_share(PartitionKnobs(subsets=["a", "b"], ratio=[1, 3]), "b")
    Fraction(3, 4)
    """
    if subset == ALL_CLASSES:
        return Fraction(1)
    if partition.classes is not None:
        return Fraction(len(partition.classes[subset]), sum(map(len, partition.classes.values())))
    ratio = partition.ratio or (1,) * len(partition.subsets)
    return Fraction(ratio[partition.subsets.index(subset)], sum(ratio))
