"""The parts of the code that jobs hang on, each with a version of its own.

A step is one unit: everything that its `run` can reach. What a knob chooses among several is a unit each: the reader of
a data set, the family of a network, a loss, a rule for the weights of teachers, a method that trains something beside
the student. A job hangs on the unit of its step and on those that its own knobs choose, so that an edit of another
reader or loss leaves it alone.
"""

from functools import cache

from edpipe.storage.code.closure import Closure, closure, digest_of_meaning
from edpipe.storage.code.modules import PACKAGE, SourceTree
from edpipe.storage.code.references import Place

CHOICES: dict[str, tuple[str, ...]] = {
    "readers.caltech101": ("datasets.readers.caltech.read_caltech101",),
    "readers.caltech256": ("datasets.readers.caltech.read_caltech256",),
    "readers.cifar10": ("datasets.readers.cifar.read_cifar10",),
    "readers.cifar100": ("datasets.readers.cifar.read_cifar100",),
    "readers.digits": ("datasets.readers.digits.read",),
    "readers.fashion_mnist": ("datasets.readers.fashion_mnist.read",),
    "readers.folder": ("datasets.readers.folder.read",),
    "readers.food101": ("datasets.readers.food101.read",),
    "readers.huggingface": ("datasets.readers.hugging_face.read",),
    "readers.imagenet": ("datasets.readers.imagenet.read",),
    "readers.svhn": ("datasets.readers.svhn.read",),
    "readers.tiny_imagenet": ("datasets.readers.tiny_imagenet.read",),
    "networks.resnet": ("models.zoo.resnet.build_resnet",),
    "networks.cifar_resnet": ("models.zoo.resnet.build_cifar_resnet",),
    "networks.wrn": ("models.zoo.wrn.WideResNet",),
    "networks.vgg": ("models.zoo.vgg.CifarVgg",),
    "networks.mobilenetv": ("models.zoo.mobilenet.CifarMobileNetV2",),
    "networks.shufflenetv": ("models.zoo.shufflenet.CifarShuffleNet", "models.zoo.shufflenet.CifarShuffleNetV2"),
    "losses.kd": ("losses.kd.kd_loss", "losses.kd.slice_kd_loss", "losses.logits.standardise"),
    "losses.dkd": ("losses.logits.dkd_loss",),
    "losses.dist": ("losses.logits.dist_loss",),
    "losses.at": ("losses.features.attention_loss", "models.students.auxiliary.attention_ends"),
    "losses.fitnet": ("losses.features.hint_loss", "models.students.hint.hint_of"),
    "weightings.ebkd": ("losses.teacher_weights._ebkd",),
    "weightings.aekd": ("losses.teacher_weights._aekd",),
    "weightings.ca_mkd": ("losses.teacher_weights._ca_mkd",),
    "methods.ctkd": ("training.stage.loss._ctkd_loss", "training.stage.inputs._open_trajectory"),
    "methods.teskd": ("models.students.teskd_branches.TeskdNetwork", "losses.teskd.teskd_loss"),
}
"""By unit: the definitions that are used only where it is chosen. No closure of a step goes on into them."""
THREADS = "pipeline.jobs.resources.network_threads"
"""The last bits of what networks compute depend on it."""
ASIDE = (
    "storage.code.versions.token",
    "storage.code.versions.tokens",
    "runtime.progress.announce",
    "runtime.progress.show_progress",
    "training.curves.observer.observe",
    "training.curves.validation.validation_of",
)
"""In no closure: versions are compared as values; lines for people and curves are in no artifact, and change none."""


def step_unit(step: str) -> str:
    """The unit of a step.

    >>> step_unit("run_stage")
    'steps.run_stage'
    """
    return f"steps.{step}"


def unit_names(tree: SourceTree) -> tuple[str, ...]:
    """Every unit: steps first, then choices."""
    return (*map(step_unit, tree.stems("steps")), *CHOICES)


def place_of(dotted: str) -> Place:
    """The definition of a dotted name within the package."""
    module, _, name = dotted.rpartition(".")
    return Place(f"{PACKAGE}.{module}", name)


@cache
def closure_of(tree: SourceTree, unit: str) -> Closure:
    """What a unit reaches; it stops before choices of other kinds, for which the job names units of their own.

    Raises:
        KeyError: the package has no such unit.
    """
    cut = frozenset(map(place_of, ASIDE)) | _entries_of_other_kinds(unit)
    if unit in CHOICES:
        return closure(tree, map(place_of, CHOICES[unit]), cut)
    run = place_of(f"steps.{unit.removeprefix('steps.')}.run")
    found = closure(tree, [run], cut)
    return closure(tree, [run, place_of(THREADS)], cut) if found.cut & entries_of("networks") else found


def _entries_of_other_kinds(unit: str) -> frozenset[Place]:
    kinds = {other.split(".")[0] for other in CHOICES} - {unit.split(".")[0]}
    return frozenset(place for kind in kinds for place in entries_of(kind))


def entries_of(kind: str) -> frozenset[Place]:
    """Where the units of one kind begin, such as "networks"."""
    return frozenset(place_of(n) for unit, names in CHOICES.items() if unit.startswith(f"{kind}.") for n in names)


@cache
def unit_digest(tree: SourceTree, unit: str) -> str:
    """Digest of what the code of a unit means.

    Raises:
        KeyError: the package has no such unit.
    """
    return digest_of_meaning(tree, closure_of(tree, unit).meaning)
