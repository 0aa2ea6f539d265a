"""Which entries of params.yaml an experiment or a study needs, in every section."""

from collections.abc import Iterable

from edpipe.params.lineage import teachers_needed
from edpipe.params.schema import Params, entry

SECTIONS = ("datasets", "partitions", "recipes", "teachers", "students", "soft_labels", "experiments", "studies")


def needed_entries(params: Params, experiments: Iterable[str], studies: Iterable[str] = ()) -> dict[str, list[str]]:
    """For each section the names of the entries that these experiments and studies need, and their own.

    What another entry needs comes before it. A section of which nothing is needed has an empty list.

    Raises:
        ParamsError: there is no such experiment or study.
    """
    found: dict[str, list[str]] = {section: [] for section in SECTIONS}
    for study in studies:
        for experiment in entry(params, "studies", study).experiments:
            _add_experiment(params, found, experiment)
        _add(found, "studies", study)
    for experiment in experiments:
        _add_experiment(params, found, experiment)
    return found


def _add(found: dict[str, list[str]], section: str, name: str) -> None:
    if name not in found[section]:
        found[section].append(name)


def _add_experiment(params: Params, found: dict[str, list[str]], name: str) -> None:
    knobs = entry(params, "experiments", name)
    if name in found["experiments"]:
        return
    _add(found, "datasets", knobs.dataset)
    _add(found, "soft_labels", knobs.dataset)
    _add(found, "recipes", knobs.recipe)
    _add(found, "students", knobs.student)
    for _, teacher in teachers_needed(params, name):
        _add_teacher(params, found, teacher)
    _add(found, "partitions", knobs.partition)
    _add(found, "experiments", name)
    for other in knobs.beside:
        _add_experiment(params, found, other)


def _add_teacher(params: Params, found: dict[str, list[str]], name: str) -> None:
    knobs = params.teachers[name]
    _add(found, "recipes", knobs.fitting.recipe)
    if knobs.partition is not None:
        confusion = params.partitions[knobs.partition].confusion
        if confusion is not None:
            _add_teacher(params, found, confusion.teacher)
        _add(found, "partitions", knobs.partition)
    if knobs.network.experiment is not None:
        _add_experiment(params, found, knobs.network.experiment)
    _add(found, "teachers", name)
