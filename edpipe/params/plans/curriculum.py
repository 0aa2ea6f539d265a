"""The stages of an experiment."""

from edpipe.params.experiment import ExperimentKnobs
from edpipe.params.plans.method import MethodSetting
from edpipe.params.plans.plan import StagePlan
from edpipe.params.schema import Params, entry


def curriculum(params: Params, experiment: str) -> tuple[StagePlan, ...]:
    """The stages of an experiment, in order.

    Raises:
        ParamsError: no such experiment, or budgets that do not fit the method.
    """
    knobs: ExperimentKnobs = entry(params, "experiments", experiment)
    return knobs.method.stages(MethodSetting(params, experiment))
