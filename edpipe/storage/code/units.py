"""The parts of the code that jobs hang on, each with a version of its own.

A step is one unit: everything that its `run` can reach. What a knob chooses among several is a unit each: the reader of
a data set, the family of a network, a loss, a rule for the weights of teachers, a method that trains something beside
the student. A job hangs on the unit of its step and on those that its own knobs choose, so that an edit of another
reader or loss leaves it alone.
"""

import ast
from functools import cache

from edpipe.params.plans.registered import REGISTRY
from edpipe.storage.code.closure import Closure, closure, digest_of_meaning
from edpipe.storage.code.modules import PACKAGE, Module, SourceTree
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
    "weightings.ebkd": ("losses.teacher_weights._ebkd",),
    "weightings.aekd": ("losses.teacher_weights._aekd",),
    "weightings.ca_mkd": ("losses.teacher_weights._ca_mkd",),
}
"""By unit: the definitions that are used only where it is chosen. No closure of a step goes on into them.

Losses are found by their classes in `edpipe.methods`, see `choices_of`; plugins name theirs themselves.
"""
LOSS_BASES = {"TeacherLoss": "losses", "StageLoss": "methods"}
"""By the base of a class in `edpipe.methods`: the kind of its unit."""
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
ASIDE_MODULES = ("params.plans.registered", "params.plans.plugins", "params.plans.reader_names")
"""Likewise: they find what knobs choose, and jobs name the units of that."""


def step_unit(step: str) -> str:
    """The unit of a step.

    >>> step_unit("run_stage")
    'steps.run_stage'
    """
    return f"steps.{step}"


def unit_names(tree: SourceTree) -> tuple[str, ...]:
    """Every unit: steps first, then choices."""
    return (*map(step_unit, tree.stems("steps")), *choices_of(tree), *REGISTRY.places)


@cache
def choices_of(tree: SourceTree) -> dict[str, tuple[Place, ...]]:
    """By unit of the package that knobs choose: where it begins."""
    found = {unit: tuple(map(place_of, names)) for unit, names in CHOICES.items()}
    for stem in tree.stems("methods"):
        found |= _losses_in(tree.module(f"{PACKAGE}.methods.{stem}"))
    kinds = [unit.split(".")[0] for unit in found]
    return dict(sorted(found.items(), key=lambda item: kinds.index(item[0].split(".")[0])))


def _losses_in(module: Module) -> dict[str, tuple[Place, ...]]:
    """The losses that a module defines, by unit."""
    found = {}
    for name, statements in module.definitions.items():
        for node in statements:
            if isinstance(node, ast.ClassDef):
                kinds = [LOSS_BASES[base.id] for base in node.bases if getattr(base, "id", "") in LOSS_BASES]  # type: ignore[attr-defined]
                found |= {f"{kind}.{value}": (Place(module.name, name),) for kind in kinds for value in _tag_of(node)}
    return found


def _tag_of(node: ast.ClassDef) -> list[str]:
    """The value of the literal that a class has as `kind`."""
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and getattr(part.target, "id", "") == "kind":
            return [str(c.value) for c in ast.walk(part.annotation) if isinstance(c, ast.Constant)]
    return []


def entries(tree: SourceTree, unit: str) -> tuple[Place, ...]:
    """Where a unit that knobs choose begins; of a plugin's, in its own module.

    Raises:
        KeyError: there is no such unit.
    """
    if unit in REGISTRY.places:
        return (Place(*REGISTRY.places[unit]),)
    return choices_of(tree)[unit]


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
    cut = _aside(tree) | _entries_of_other_kinds(tree, unit)
    if not unit.startswith("steps."):
        return closure(tree, entries(tree, unit), cut)
    run = place_of(f"steps.{unit.removeprefix('steps.')}.run")
    found = closure(tree, [run], cut)
    return closure(tree, [run, place_of(THREADS)], cut) if found.cut & entries_of(tree, "networks") else found


@cache
def _aside(tree: SourceTree) -> frozenset[Place]:
    names = (f"{PACKAGE}.{module}" for module in ASIDE_MODULES)
    whole = [name for name in names if tree.file_of(name) is not None]  # an older package has no plugins
    inside = (Place(module, name) for module in whole for name in tree.module(module).definitions)
    return frozenset([*map(place_of, ASIDE), *inside])


def _entries_of_other_kinds(tree: SourceTree, unit: str) -> frozenset[Place]:
    kinds = {other.split(".")[0] for other in choices_of(tree)} - {unit.split(".")[0]}
    return frozenset(place for kind in kinds for place in entries_of(tree, kind))


def entries_of(tree: SourceTree, kind: str) -> frozenset[Place]:
    """Where the units of one kind begin, such as "networks"."""
    units = choices_of(tree)
    return frozenset(place for unit, places in units.items() if unit.startswith(f"{kind}.") for place in places)


@cache
def unit_digest(tree: SourceTree, unit: str) -> str:
    """Digest of what the code of a unit means.

    Raises:
        KeyError: the package has no such unit.
    """
    return digest_of_meaning(tree, closure_of(tree, unit).meaning)
