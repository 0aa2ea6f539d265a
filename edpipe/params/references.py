"""Checks of params.yaml that need more than one section: every name exists, and all parts fit together."""

from collections.abc import Iterable

from edpipe.errors import ParamsError, nearest
from edpipe.params.experiment import (
    CtkdKnobs,
    DistillKnobs,
    EdKnobs,
    ExperimentKnobs,
    MultiTeacherKnobs,
    SingleTeacherKnobs,
    TeskdKnobs,
)
from edpipe.params.schema import ONLY_STAGE, Params, entry
from edpipe.params.study import StudyKnobs
from edpipe.params.teacher import FittingKnobs, NetworkKnobs, TeacherKnobs


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
        _check_experiment(params, f"experiments.{name}", experiment)
    for name, study in params.studies.items():
        _check_study(params, name, study)


def _check_study(params: Params, name: str, study: StudyKnobs) -> None:
    path = f"studies.{name}"
    for experiment in study.experiments:
        _known(f"{path}.experiments", experiment, params.experiments, "experiments")
    chosen = {experiment: params.experiments[experiment] for experiment in study.experiments}
    for what in ("dataset", "student", "recipe"):
        _check_same(path, what, {experiment: getattr(knobs, what) for experiment, knobs in chosen.items()})
    _check_same(path, "set of seeds", {experiment: str(sorted(knobs.seeds)) for experiment, knobs in chosen.items()})
    images = {experiment: [stage.images for stage in knobs.stages.values()] for experiment, knobs in chosen.items()}
    # Epochs count images of a dataset that may not be packed yet; the study itself compares those.
    counted = {experiment: f"{sum(filter(None, each)):,}" for experiment, each in images.items() if all(each)}
    if study.equal == "images":
        _check_same(path, "number of images", counted)
    if (other := f"study_{name}") in params.experiments:
        raise ParamsError(f"{path}: results/{other}.json belongs to experiments.{other}; rename one of the two")


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


def _check_experiment(params: Params, path: str, experiment: ExperimentKnobs) -> None:
    _known(f"{path}.dataset", experiment.dataset, params.datasets, "datasets")
    _known(f"{path}.dataset", experiment.dataset, params.soft_labels, "soft_labels")
    _known(f"{path}.partition", experiment.partition, params.partitions, "partitions")
    _known(f"{path}.student", experiment.student, params.students, "students")
    _known(f"{path}.recipe", experiment.recipe, params.recipes, "recipes")
    _check_stages(params, path, experiment)
    if params.partitions[experiment.partition].confusion is not None:
        _check_confusion_views(params, path, experiment)
    for where, teacher in named_teachers(experiment.method):
        _check_teacher(params, path, f"{path}.method.{where}", experiment, teacher)
    if isinstance(experiment.method, DistillKnobs):
        _check_temperature(params, path, experiment, experiment.method)
        _check_stored(params, path, experiment)
    if isinstance(experiment.method, EdKnobs) and experiment.method.easiest:
        _check_tells_easiest(params, path, experiment.dataset)
    if isinstance(experiment.method, CtkdKnobs):
        _check_scratch_teacher(params, path, experiment, experiment.method)
    space = params.soft_labels[experiment.dataset].space
    kinds = {params.teachers[teacher].partition is None for _, teacher in named_teachers(experiment.method)}
    if len(kinds) > 1 and space.mixing is not None:
        raise ParamsError(
            f"{path}.method.teachers: has teachers of all classes and teachers of subsets, which by soft_labels."
            f"{experiment.dataset}.space.mixing saw different pairs of images; use one kind, or remove mixing"
        )
    if isinstance(experiment.method, TeskdKnobs) and space.mixing is not None:
        raise ParamsError(
            f"{path}.method: teskd has no loss for images of two classes, which soft_labels.{experiment.dataset}.space."
            "mixing makes; remove mixing, or use another method"
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


def _check_tells_easiest(params: Params, path: str, dataset: str) -> None:
    """That the stored views of this dataset tell how well a teacher names an image."""
    where, soft_labels = f"soft_labels.{dataset}", params.soft_labels[dataset]
    if soft_labels.space.mixing is not None:
        raise ParamsError(
            f"{path}.method.easiest: asks how well teachers name an image, but {where}.space.mixing shows them mixed "
            f"images, of two classes each; remove mixing, or easiest"
        )
    if soft_labels.storage.temperature not in (None, 1):
        raise ParamsError(
            f"{path}.method.easiest: asks how well teachers name an image at temperature 1, but {where}.storage "
            f"samples at temperature {soft_labels.storage.temperature:g}; use another precision, or remove easiest"
        )


def named_teachers(method: object) -> list[tuple[str, str]]:
    """Where in the method each teacher is named, and its name."""
    if isinstance(method, MultiTeacherKnobs):
        return [(f"teachers.{i}", teacher) for i, teacher in enumerate(method.teachers)]
    if isinstance(method, EdKnobs) and method.teachers is not None:
        return [(f"teachers.{level}.{i}", t) for level, names in method.teachers.items() for i, t in enumerate(names)]
    if isinstance(method, CtkdKnobs):
        return [("scratch", method.scratch), *([("expert", method.expert)] if method.expert is not None else [])]
    if isinstance(method, SingleTeacherKnobs | EdKnobs):
        return [("teacher", str(method.teacher))]
    return []


def _check_teacher(params: Params, path: str, where: str, experiment: ExperimentKnobs, teacher: str) -> None:
    method = experiment.method
    _known(where, teacher, params.teachers, "teachers")
    partition = params.teachers[teacher].partition
    if partition is not None and not isinstance(method, EdKnobs):
        raise ParamsError(
            f"{where}: '{teacher}' knows only subsets of partition '{partition}', but method '{method.name}' "
            f"needs a teacher of all classes; name one whose partition is absent"
        )
    if partition is not None and partition != experiment.partition:
        raise ParamsError(
            f"{where}: '{teacher}' is made for partition '{partition}', this experiment teaches "
            f"'{experiment.partition}'; a stage would be without teacher; use the same partition in both"
        )
    if partition is not None and isinstance(method, EdKnobs) and method.teacher_weighting != "aver":
        raise ParamsError(
            f"{path}.method.teacher_weighting: '{method.teacher_weighting}' weighs teachers of the same "
            f"classes, but '{teacher}' knows only subsets of partition '{partition}'; "
            f"use aver, or teachers whose partition is absent"
        )
    is_mixed = params.soft_labels[experiment.dataset].space.mixing is not None
    is_growing = isinstance(method, EdKnobs) and method.classes == "growing"
    if is_mixed and partition is None and is_growing:
        raise ParamsError(
            f"{where}: '{teacher}' knows all classes, so soft_labels.{experiment.dataset}.space.mixing would "
            f"mix images with those of classes not taught yet; name a teacher that has a partition, or remove mixing"
        )


def _check_temperature(params: Params, path: str, experiment: ExperimentKnobs, method: DistillKnobs) -> None:
    sampled_at = params.soft_labels[experiment.dataset].storage.temperature
    if sampled_at not in (None, method.temperature):
        raise ParamsError(
            f"{path}.method.temperature: {method.temperature:g}, but soft_labels.{experiment.dataset}.storage samples "
            f"at temperature {sampled_at:g}, and sampled rows serve no other; use the same in both, or another "
            "precision"
        )


def _check_stored(params: Params, path: str, experiment: ExperimentKnobs) -> None:
    """That the soft labels hold what the algorithm needs besides logits."""
    method, storage = experiment.method, params.soft_labels[experiment.dataset].storage
    kinds = {method.name}
    if isinstance(method, EdKnobs):
        kinds = {method.distill.kind, *(algorithm.kind for algorithm in method.distill_by_level.values())}
    if "at" in kinds and not storage.attention:
        raise ParamsError(
            f"{path}.method: at learns from attention maps, which soft_labels.{experiment.dataset}.storage does not "
            "keep; set storage.attention: true there"
        )
    if "fitnet" in kinds and storage.hint is None:
        raise ParamsError(
            f"{path}.method: fitnet learns from a hint, which soft_labels.{experiment.dataset}.storage does not keep; "
            "set storage.hint there"
        )


def _check_scratch_teacher(params: Params, path: str, experiment: ExperimentKnobs, method: CtkdKnobs) -> None:
    """That teacher and student can see the same samples in the same batches for as long, and the maps are stored."""
    _, fitting = check_scratch(params, f"{path}.method.scratch", method.scratch)
    epochs, name = experiment.stages[ONLY_STAGE].epochs, method.scratch
    if epochs != fitting.epochs:
        given = f"{epochs:g} epochs" if epochs else f"{experiment.stages[ONLY_STAGE].images} images"
        raise ParamsError(
            f"{path}.stages.{ONLY_STAGE}: {given}, but the scratch teacher '{name}' learns beside the student for "
            f"{fitting.epochs:g} epochs; give epochs: {fitting.epochs:g}, or change teachers.{name}.fitting.epochs"
        )
    sizes = [params.recipes[recipe].batch_size for recipe in (experiment.recipe, fitting.recipe)]
    if sizes[0] != sizes[1]:
        raise ParamsError(
            f"{path}.recipe: '{experiment.recipe}' has batch_size {sizes[0]}, but the scratch teacher '{name}' learns "
            f"by '{fitting.recipe}' with {sizes[1]}, and both see the same batches; use the same batch_size in both"
        )
    if method.attention_weight > 0 and not params.soft_labels[experiment.dataset].storage.attention:
        raise ParamsError(
            f"{path}.method: ctkd learns from attention maps, which soft_labels.{experiment.dataset}.storage does not "
            "keep; set storage.attention: true there, or attention_weight: 0"
        )


def check_scratch(params: Params, where: str, teacher: str) -> tuple[NetworkKnobs, FittingKnobs]:
    """Network and fitting of a teacher that can learn beside a student.

    Raises:
        ParamsError: there is none of this name, it knows a subset only, is fetched, or its epochs are no whole number.
    """
    knobs: TeacherKnobs = entry(params, "teachers", teacher)
    problem = ""
    if knobs.partition is not None:
        problem = f"knows only subsets of partition '{knobs.partition}'; name one whose partition is absent"
    elif knobs.network.source != "train":
        problem = f"has source: {knobs.network.source}; name one of source: train"
    elif not knobs.fitting.epochs.is_integer():
        problem = f"has fitting.epochs {knobs.fitting.epochs:g}; give a whole number"
    if problem:
        raise ParamsError(
            f"{where}: a scratch teacher learns beside the student from the start, but '{teacher}' {problem}"
        )
    return knobs.network, knobs.fitting


def _check_stages(params: Params, path: str, experiment: ExperimentKnobs) -> None:
    if experiment.method.name == "ed":
        wanted = params.partitions[experiment.partition].subsets
        reason = f"one for each subset of partition '{experiment.partition}'"
    else:
        wanted, reason = (ONLY_STAGE,), f"method '{experiment.method.name}' has one stage"
    if set(experiment.stages) != set(wanted):
        raise ParamsError(f"{path}.stages: needs exactly {list(wanted)} ({reason}), got {list(experiment.stages)}")
    if isinstance(experiment.method, EdKnobs):
        _check_levels(f"{path}.method", experiment.method, wanted)
        if params.students[experiment.student].reference == "authors":
            _check_authors(f"{path}.method", experiment.method)


def _check_authors(path: str, method: EdKnobs) -> None:
    """That the last level, with its additional BN, has nothing else beside it."""
    kinds = {method.distill.kind, *(algorithm.kind for algorithm in method.distill_by_level.values())}
    if method.references == "kept" or "at" in kinds:
        raise ParamsError(
            f"{path}: a student whose reference is 'authors' goes with references: replaced and without at, got "
            f"references {method.references}, distill {', '.join(sorted(kinds))}; use reference: adapter"
        )


def _check_levels(path: str, method: EdKnobs, levels: tuple[str, ...]) -> None:
    if method.teachers is not None and set(method.teachers) != set(levels):
        raise ParamsError(f"{path}.teachers: needs exactly {list(levels)}, got {list(method.teachers)}")
    for level in method.distill_by_level:
        _known(f"{path}.distill_by_level", level, levels, "the levels")
    for level in method.easiest:
        _known(f"{path}.easiest", level, levels, "the levels")


def _known(path: str, name: str, section: Iterable[str], section_name: str) -> None:
    if name not in section:
        raise ParamsError(f"{path}: '{name}' is not in {section_name}{nearest(name, section)}")
