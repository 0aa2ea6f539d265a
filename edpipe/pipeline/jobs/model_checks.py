"""Checks of params.yaml that may need a network library; made once, before the first job."""

from edpipe.errors import NetworkError, ParamsError
from edpipe.methods.by_name import curriculum
from edpipe.models.zoo.names import check_model_name
from edpipe.params.schema import Params
from edpipe.pipeline.jobs.data import partition_teachers


def check_params(params: Params, experiments: tuple[str, ...] | None = None) -> None:
    """Model names and curricula of the given experiments, or of everything in params.yaml.

    Raises:
        ParamsError: with the place in params.yaml.
    """
    for name in experiments if experiments is not None else params.experiments:
        for plan in curriculum(params, name):
            for use in (*plan.teachers, *([plan.trajectory] if plan.trajectory else [])):
                check_model(f"teachers.{use.teacher}.network.model", params.teachers[use.teacher].network.model)
        for teacher, _ in partition_teachers(params.partitions[params.experiments[name].partition]):
            check_model(f"teachers.{teacher}.network.model", params.teachers[teacher].network.model)
        student = params.experiments[name].student
        check_model(f"students.{student}.model", params.students[student].model)


def check_model(place: str, model: str) -> None:
    """That a model of this name can be built; imports timm or torchvision only for their names.

    Raises:
        ParamsError: it cannot; with the place in params.yaml.
    """
    try:
        check_model_name(model)
    except NetworkError as error:
        raise ParamsError(f"{place}: {error}") from error
