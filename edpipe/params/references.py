"""Checks of params.yaml that need more than one section: every name exists, and all parts fit together."""

from collections.abc import Iterable

from edpipe.errors import ParamsError, nearest
from edpipe.params.experiment import ExperimentKnobs
from edpipe.params.plans.loss import Stored
from edpipe.params.plans.method import DistillMethod, MethodSetting
from edpipe.params.schema import Params
from edpipe.params.study import StudyKnobs

RESERVED = "index"


def check_references(params: Params) -> None:
    """Every name points to something, and every experiment's parts fit together.

    Raises:
        ParamsError: with one line for the first thing that does not.
    """
    if len(set(params.tracked)) != len(params.tracked):
        raise ParamsError(f"tracked: names must differ, got {list(params.tracked)}")
    for name in params.tracked:
        _known("tracked", name, params.experiments, "experiments")
    for name in params.soft_labels:
        _known(f"soft_labels.{name}", name, params.datasets, "datasets")
    for name, teacher in params.teachers.items():
        _known(f"teachers.{name}.fitting.recipe", teacher.fitting.recipe, params.recipes, "recipes")
        if teacher.partition is not None:
            _known(f"teachers.{name}.partition", teacher.partition, params.partitions, "partitions")
    for name, partition in params.partitions.items():
        if partition.confusion is not None:
            _check_confusion_teacher(params, f"partitions.{name}.confusion.teacher", partition.confusion.teacher)
    for name, experiment in params.experiments.items():
        if name == RESERVED:
            raise ParamsError(f"experiments.{name}: results/{name}.html is the page of all results; rename it")
        check_experiment(params, name)
        _check_beside(params, name, experiment)
    for name, study in params.studies.items():
        _check_study(params, name, study)


def _check_beside(params: Params, name: str, experiment: ExperimentKnobs) -> None:
    path = f"experiments.{name}.beside"
    if len(set(experiment.beside)) != len(experiment.beside):
        raise ParamsError(f"{path}: names must differ, got {list(experiment.beside)}")
    for other in experiment.beside:
        _known(path, other, params.experiments, "experiments")
        if other == name:
            raise ParamsError(f"{path}: '{name}' cannot stand beside itself; remove it")
        dataset = params.experiments[other].dataset
        if dataset != experiment.dataset:
            raise ParamsError(
                f"{path}: '{other}' is of dataset '{dataset}', this one of '{experiment.dataset}'; name experiments of "
                f"'{experiment.dataset}'"
            )


def _check_study(params: Params, name: str, study: StudyKnobs) -> None:
    path = f"studies.{name}"
    for experiment in study.experiments:
        _known(f"{path}.experiments", experiment, params.experiments, "experiments")
    chosen = {experiment: params.experiments[experiment] for experiment in study.experiments}
    for what in ("dataset", "student"):
        _check_same(path, what, {experiment: getattr(knobs, what) for experiment, knobs in chosen.items()})
    if study.recipes == "same":
        _check_same(path, "recipe", {experiment: _recipes_of(knobs) for experiment, knobs in chosen.items()})
    _check_seeds(path, study, chosen)
    images = {
        experiment: [stage.images for stage in knobs.stages.values()]
        for experiment, knobs in chosen.items()
        if experiment not in study.beside
    }
    # Epochs count images of a dataset that may not be packed yet; the study itself compares those.
    counted = {experiment: f"{sum(filter(None, each)):,}" for experiment, each in images.items() if all(each)}
    if study.equal == "images":
        _check_same(path, "number of images", counted)
    if (other := f"study_{name}") in params.experiments:
        raise ParamsError(f"{path}: results/{other}.json belongs to experiments.{other}; rename one of the two")


def _check_seeds(path: str, study: StudyKnobs, chosen: dict[str, ExperimentKnobs]) -> None:
    """That every seed has its counterpart of the base, since differences are taken seed by seed."""
    base = chosen[study.base].seeds
    for experiment, knobs in chosen.items():
        if not set(knobs.seeds) <= set(base):
            raise ParamsError(
                f"{path}.experiments: seeds must be seeds of the base '{study.base}', {sorted(base)}, or some of them; "
                f"{experiment} has {sorted(knobs.seeds)}"
            )
    for number, test in enumerate(study.tests):
        if not set(chosen[test.experiment].seeds) & set(chosen[test.minus].seeds):
            raise ParamsError(
                f"{path}.tests.{number}: {test.experiment} and {test.minus} share no seed, and differences are taken "
                "seed by seed; give them common seeds"
            )


def _recipes_of(experiment: ExperimentKnobs) -> str:
    """Names of the recipes that its stages have, each once."""
    names = (stage.recipe or experiment.recipe for stage in experiment.stages.values())
    return ", ".join(sorted(set(names)))


def _check_same(path: str, what: str, values: dict[str, str]) -> None:
    if len(set(values.values())) > 1:
        found = ", ".join(f"{experiment} has {value}" for experiment, value in values.items())
        raise ParamsError(f"{path}.experiments: all must have one {what}; {found}")


def _check_confusion_teacher(params: Params, where: str, teacher: str) -> None:
    _known(where, teacher, params.teachers, "teachers")
    partition = params.teachers[teacher].partition
    if partition is not None:
        raise ParamsError(
            f"{where}: '{teacher}' knows only subsets of partition '{partition}', but only a teacher of all classes "
            f"confuses any two of them; name one whose partition is absent"
        )


def check_experiment(params: Params, name: str) -> None:
    """Every name in one experiment points to something, and its parts fit together.

    Raises:
        ParamsError: with one line for the first thing that does not.
    """
    path, experiment = f"experiments.{name}", params.experiments[name]
    _known(f"{path}.dataset", experiment.dataset, params.datasets, "datasets")
    _known(f"{path}.dataset", experiment.dataset, params.soft_labels, "soft_labels")
    _known(f"{path}.partition", experiment.partition, params.partitions, "partitions")
    _known(f"{path}.student", experiment.student, params.students, "students")
    _known(f"{path}.recipe", experiment.recipe, params.recipes, "recipes")
    method, setting = experiment.method, MethodSetting(params, name)
    _check_stages(path, experiment, setting)
    if params.partitions[experiment.partition].confusion is not None:
        _check_confusion_views(params, path, experiment)
    for where, teacher in method.named_teachers():
        _check_teacher(params, f"{path}.method.{where}", experiment, teacher)
    if isinstance(method, DistillMethod):
        _check_temperature(params, path, experiment, method)
    _check_stored(params, path, experiment)
    _check_mixing(params, path, experiment)
    method.check(setting)
    _check_image_sizes(params, path, experiment, setting)


def _check_image_sizes(params: Params, path: str, experiment: ExperimentKnobs, setting: MethodSetting) -> None:
    """That stages have images no larger than those of the dataset, the last one as large, and logits to learn from."""
    full, plans = params.datasets[experiment.dataset].image_size, experiment.method.stages(setting)
    for plan in plans:
        where, side = f"{path}.stages.{plan.name}.image_size", plan.budget.image_size or full
        if side > full:
            raise ParamsError(f"{where}: {side}, but images of '{experiment.dataset}' have {full} pixels; give less")
        if side < full and plan is plans[-1]:
            raise ParamsError(
                f"{where}: {side}, but the student is to know images of {full} pixels after the last stage; remove it"
            )
        if side < full and plan.teachers and plan.algorithm.stored:
            raise ParamsError(
                f"{where}: {side}, but '{plan.algorithm.kind}' compares features with those of views of {full} pixels; "
                "remove it, or use a loss of logits in this stage"
            )


def _check_mixing(params: Params, path: str, experiment: ExperimentKnobs) -> None:
    """That all teachers saw the same mixed images, and the method has a loss for them."""
    if params.soft_labels[experiment.dataset].space.mixing is None:
        return
    kinds = {params.teachers[teacher].partition is None for _, teacher in experiment.method.named_teachers()}
    if len(kinds) > 1:
        raise ParamsError(
            f"{path}.method.teachers: has teachers of all classes and teachers of subsets, which by soft_labels."
            f"{experiment.dataset}.space.mixing saw different pairs of images; use one kind, or remove mixing"
        )
    if not experiment.method.handles_mixing:
        raise ParamsError(
            f"{path}.method: {experiment.method.name} has no loss for images of two classes, which soft_labels."
            f"{experiment.dataset}.space.mixing makes; remove mixing, or use another method"
        )


def _check_confusion_views(params: Params, path: str, experiment: ExperimentKnobs) -> None:
    """That the stored views of this dataset tell what a teacher confuses."""
    where, soft_labels = f"soft_labels.{experiment.dataset}", params.soft_labels[experiment.dataset]
    if soft_labels.space.mixing is not None:
        raise ParamsError(
            f"{path}.partition: '{experiment.partition}' asks what a teacher confuses, but {where}.space.mixing shows "
            f"it mixed images, of which it names both classes; remove mixing, or use a partition without confusion"
        )
    if soft_labels.storage.temperature not in (None, 1):
        raise ParamsError(
            f"{path}.partition: '{experiment.partition}' asks what a teacher confuses at temperature 1, but "
            f"{where}.storage samples at temperature {soft_labels.storage.temperature:g}; use another precision, or a "
            f"partition without confusion"
        )


def _check_teacher(params: Params, where: str, experiment: ExperimentKnobs, teacher: str) -> None:
    method = experiment.method
    _known(where, teacher, params.teachers, "teachers")
    partition = params.teachers[teacher].partition
    if partition is not None and not method.takes_specialists:
        raise ParamsError(
            f"{where}: '{teacher}' knows only subsets of partition '{partition}', but method '{method.name}' "
            f"needs a teacher of all classes; name one whose partition is absent"
        )
    if partition is not None and partition != experiment.partition:
        raise ParamsError(
            f"{where}: '{teacher}' is made for partition '{partition}', this experiment teaches "
            f"'{experiment.partition}'; a stage would be without teacher; use the same partition in both"
        )


def _check_temperature(params: Params, path: str, experiment: ExperimentKnobs, method: DistillMethod) -> None:
    sampled_at = params.soft_labels[experiment.dataset].storage.temperature
    if sampled_at not in (None, method.temperature):
        raise ParamsError(
            f"{path}.method.temperature: {method.temperature:g}, but soft_labels.{experiment.dataset}.storage samples "
            f"at temperature {sampled_at:g}, and sampled rows serve no other; use the same in both, or another "
            "precision"
        )


WISHES = {
    Stored.ATTENTION: ("attention maps", "set storage.attention: true there"),
    Stored.HINT: ("a hint", "set storage.hint there"),
}
"""What else soft labels can hold, and how to have it stored."""


def _check_stored(params: Params, path: str, experiment: ExperimentKnobs) -> None:
    """That the soft labels hold what the method needs besides logits."""
    storage = params.soft_labels[experiment.dataset].storage
    held = {Stored.ATTENTION: storage.attention, Stored.HINT: storage.hint is not None}
    for stored, whose in experiment.method.needs().items():
        if not held[stored]:
            what, remedy = WISHES[stored]
            raise ParamsError(
                f"{path}.method: {whose} learns from {what}, which soft_labels.{experiment.dataset}.storage does not "
                f"keep; {remedy}"
            )


def _check_stages(path: str, experiment: ExperimentKnobs, setting: MethodSetting) -> None:
    wanted, reason = experiment.method.stage_names(setting)
    if set(experiment.stages) != set(wanted):
        raise ParamsError(f"{path}.stages: needs exactly {list(wanted)} ({reason}), got {list(experiment.stages)}")
    for name, stage in experiment.stages.items():
        if stage.recipe is not None:
            _known(f"{path}.stages.{name}.recipe", stage.recipe, setting.params.recipes, "recipes")


def _known(path: str, name: str, section: Iterable[str], section_name: str) -> None:
    if name not in section:
        raise ParamsError(f"{path}: '{name}' is not in {section_name}{nearest(name, section)}")
