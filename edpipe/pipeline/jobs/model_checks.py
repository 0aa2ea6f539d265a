"""Checks of params.yaml that go beyond its values: plans of stages, and networks; made before the first job."""

from collections.abc import Iterable, Iterator

from edpipe.errors import NetworkError, ParamsError
from edpipe.models.zoo.forms import own_form
from edpipe.models.zoo.names import check_model_name
from edpipe.params.plans.curriculum import curriculum
from edpipe.params.plans.plan import StagePlan
from edpipe.params.plans.registered import REGISTRY
from edpipe.params.schema import Params
from edpipe.params.searches.checks import said_of_searches
from edpipe.pipeline.jobs.data import partition_teachers
from edpipe.pipeline.jobs.plan_checks import sampled_problems, source_problems


def check_params(params: Params, experiments: tuple[str, ...] | None = None, with_networks: bool = True) -> None:
    """All that params.yaml alone decides of the given experiments, or of everything in it, trials included.

    Args:
        params: see `parse_params` for what was checked before.
        experiments: whose names are in it, or names of trials; None: all.
        with_networks: builds each network, which imports torch; else their names alone are looked at.

    Raises:
        ParamsError: one line for each thing that is wrong, with its place in params.yaml.
    """
    _check_network_names()
    found = params.with_trials
    with said_of_searches(params):
        _check_experiments(found, tuple(found.experiments if experiments is None else experiments), with_networks)


def _check_experiments(params: Params, names: tuple[str, ...], with_networks: bool) -> None:
    plans = {name: curriculum(params, name) for name in names}
    for name in names:
        _check_models(params, name, plans[name])
    problems = list(dict.fromkeys(_problems(params, plans, with_networks)))
    if problems:
        raise ParamsError(*problems)


def _check_network_names() -> None:
    for name in REGISTRY.networks:
        if own_form(name) is not None:
            raise ParamsError(f"plugins: the package has a network named '{name}' already; rename that of the plugin")


def check_model(place: str, model: str) -> None:
    """That a model of this name can be built; imports timm or torchvision only for their names.

    Raises:
        ParamsError: it cannot; with the place in params.yaml.
    """
    try:
        check_model_name(model)
    except NetworkError as error:
        raise ParamsError(f"{place}: {error}") from error


def _check_models(params: Params, experiment: str, plans: Iterable[StagePlan]) -> None:
    for teacher, _ in _teachers(params, experiment, plans):
        check_model(f"teachers.{teacher}.network.model", params.teachers[teacher].network.model)
    student = params.experiments[experiment].student
    check_model(f"students.{student}.model", params.students[student].model)


def _teachers(params: Params, experiment: str, plans: Iterable[StagePlan]) -> dict[tuple[str, bool], None]:
    """Each teacher of an experiment, and whether its soft labels are dumped; a trajectory is recorded instead."""
    plans = tuple(plans)
    dumped = [use.teacher for plan in plans for use in plan.teachers]
    dumped += [
        teacher for teacher, _ in partition_teachers(params.partitions[params.experiments[experiment].partition])
    ]
    recorded = [plan.trajectory.teacher for plan in plans if plan.trajectory is not None]
    return dict.fromkeys([(teacher, True) for teacher in dumped] + [(teacher, False) for teacher in recorded])


def _problems(params: Params, plans: dict[str, tuple[StagePlan, ...]], with_networks: bool) -> Iterator[str]:
    for name, stages in plans.items():
        dataset = params.experiments[name].dataset
        yield from sampled_problems(params, name, stages)
        for teacher, _ in _teachers(params, name, stages):
            yield from source_problems(teacher, params.teachers[teacher].network, dataset, params.datasets[dataset])
        if with_networks:
            yield from _network_problems(params, name, stages)


def _network_problems(params: Params, experiment: str, plans: tuple[StagePlan, ...]) -> Iterator[str]:
    from edpipe.pipeline.jobs.network_checks import student_problems, teacher_problems  # they import torch

    name = params.experiments[experiment].dataset
    dataset, storage = params.datasets[name], params.soft_labels[name].storage
    for teacher, is_dumped in _teachers(params, experiment, plans):
        network = params.teachers[teacher].network
        yield from teacher_problems(
            teacher, network, dataset.channels, dataset.image_size, storage if is_dumped else None
        )
    yield from student_problems(params, experiment, plans)
