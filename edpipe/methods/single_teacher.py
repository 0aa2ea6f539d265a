"""One stage, all classes, one teacher of all classes: kd, logit_std, dkd, dist, at and fitnet."""

from edpipe.methods.plan import StagePlan, TeacherUse, all_subsets, loss_weights
from edpipe.params.distill import (
    Algorithm,
    AtAlgorithm,
    DistAlgorithm,
    DistWeights,
    DkdAlgorithm,
    DkdWeights,
    FitnetAlgorithm,
    KdAlgorithm,
)
from edpipe.params.experiment import LogitStdKnobs, SingleTeacherKnobs
from edpipe.params.partition import ALL_CLASSES
from edpipe.params.stage import StageKnobs


def curriculum(method: SingleTeacherKnobs, name: str, budget: StageKnobs) -> tuple[StagePlan, ...]:
    """One stage; labels and one teacher."""
    teachers = (TeacherUse(teacher=method.teacher, subset=ALL_CLASSES),)
    algorithm = _algorithm(method)
    weights = loss_weights(method, algorithm)
    return (all_subsets(name, budget, teachers=teachers, algorithm=algorithm, **weights),)


def _algorithm(method: SingleTeacherKnobs) -> Algorithm:
    if isinstance(method, DkdWeights):
        return DkdAlgorithm(kind="dkd", alpha=method.alpha, beta=method.beta, warmup=method.warmup)
    if isinstance(method, DistWeights):
        return DistAlgorithm(kind="dist", beta=method.beta, gamma=method.gamma)
    name = getattr(method, "name")  # noqa: B009  (each kind of knobs has its own names)
    if name in ("at", "fitnet"):
        return AtAlgorithm(kind="at") if name == "at" else FitnetAlgorithm(kind="fitnet")
    return KdAlgorithm(kind="kd", standardise=isinstance(method, LogitStdKnobs))
