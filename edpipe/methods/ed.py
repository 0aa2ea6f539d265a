"""Education Distillation (arXiv 2311.13811): one stage for each school level.

Stage k trains body blocks 1..k and teaching reference block k on subsets 1..k (with replay) or k alone, each subset
with its own teacher. What the sources leave open is a knob; its default is named in `EdKnobs`.
"""

from collections.abc import Mapping

from edpipe.errors import ParamsError
from edpipe.methods.curriculum import StagePlan, TeacherUse
from edpipe.params.experiment import EdKnobs
from edpipe.params.partition import ALL_CLASSES
from edpipe.params.stage import StageKnobs


def curriculum(
    method: EdKnobs, levels: tuple[str, ...], budgets: Mapping[str, StageKnobs], is_specialist: bool
) -> tuple[StagePlan, ...]:
    """The school: `levels` names the subsets in the order in which they are introduced.

    Raises:
        ParamsError: a carried learning rate, with budgets that are not all epochs or all images.
    """
    windows = _windows(method, [budgets[level] for level in levels])
    return tuple(
        StagePlan(
            name=level,
            number=k,
            num_stages=len(levels),
            taught=levels[:k] if method.replay else (level,),
            known=levels[:k],
            teachers=_teachers(method.teacher, levels[:k] if method.replay else (level,), is_specialist),
            temperature=method.temperature,
            task_weight=method.task_weight,
            normalisation=method.normalisation,
            mixing=method.mixing,
            budget=budgets[level],
            window=windows[k - 1],
        )
        for k, level in enumerate(levels, start=1)
    )


def _teachers(teacher: str, taught: tuple[str, ...], is_specialist: bool) -> tuple[TeacherUse, ...]:
    subsets = taught if is_specialist else (ALL_CLASSES,)
    return tuple(TeacherUse(teacher=teacher, subset=subset) for subset in subsets)


def _windows(method: EdKnobs, budgets: list[StageKnobs]) -> list[tuple[float, float]]:
    if method.learning_rate == "restarted":
        return [(0.0, 1.0)] * len(budgets)
    sizes = [b.epochs for b in budgets if b.epochs] or [b.images for b in budgets if b.images]
    if len(sizes) != len(budgets):
        raise ParamsError("method.learning_rate: 'carried' needs all stages in epochs or all in images, got both")
    ends = [sum(sizes[: k + 1]) / sum(sizes) for k in range(len(sizes))]
    return list(zip([0.0, *ends[:-1]], ends, strict=True))
