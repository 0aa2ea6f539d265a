"""The stages of an experiment, by the name of its method."""

from edpipe.errors import ParamsError
from edpipe.methods import ce, ctkd, ed, multi_teacher, single_teacher, teskd
from edpipe.methods.plan import StagePlan
from edpipe.params.experiment import (
    CeKnobs,
    CtkdKnobs,
    ExperimentKnobs,
    MultiTeacherKnobs,
    SingleTeacherKnobs,
    TeskdKnobs,
)
from edpipe.params.schema import ONLY_STAGE, Params, entry


def curriculum(params: Params, experiment: str) -> tuple[StagePlan, ...]:
    """The stages of an experiment, in order.

    Raises:
        ParamsError: no such experiment, or budgets that do not fit the method.
    """
    knobs: ExperimentKnobs = entry(params, "experiments", experiment)
    method = knobs.method
    if isinstance(method, CeKnobs):
        return ce.curriculum(method, ONLY_STAGE, knobs.stages[ONLY_STAGE])
    if isinstance(method, TeskdKnobs):
        return teskd.curriculum(method, ONLY_STAGE, knobs.stages[ONLY_STAGE])
    if isinstance(method, CtkdKnobs):
        return ctkd.curriculum(method, ONLY_STAGE, knobs.stages[ONLY_STAGE])
    if isinstance(method, SingleTeacherKnobs):
        return single_teacher.curriculum(method, ONLY_STAGE, knobs.stages[ONLY_STAGE])
    if isinstance(method, MultiTeacherKnobs):
        return multi_teacher.curriculum(method, ONLY_STAGE, knobs.stages[ONLY_STAGE])
    specialists = {name for name, teacher in params.teachers.items() if teacher.partition is not None}
    levels = params.partitions[knobs.partition].subsets
    try:
        return ed.curriculum(method, levels, knobs.stages, specialists)
    except ParamsError as error:
        raise ParamsError(f"experiments.{experiment}.{error}") from error
