"""Education Distillation (arXiv 2311.13811): one stage for each school level.

Stage k trains body blocks 1..k and teaching reference block k on subsets 1..k (with replay) or k alone, each subset
with its own teacher. What the sources leave open is a knob; its default is named in `EdKnobs`.
"""

from collections.abc import Container, Mapping

from edpipe.errors import ParamsError
from edpipe.methods.plan import StagePlan, TeacherUse, loss_weights
from edpipe.params.experiment import EdKnobs
from edpipe.params.partition import ALL_CLASSES
from edpipe.params.stage import StageKnobs


def curriculum(
    method: EdKnobs, levels: tuple[str, ...], budgets: Mapping[str, StageKnobs], specialists: Container[str]
) -> tuple[StagePlan, ...]:
    """The school: `levels` names the subsets in the order in which they are introduced, `specialists` those teachers
    that know one subset each.

    Raises:
        ParamsError: a carried learning rate, with budgets that are not all epochs or all images.
    """
    windows = _windows(method, [budgets[level] for level in levels])
    known = [levels if method.classes == "all" else levels[:k] for k in range(1, len(levels) + 1)]
    return tuple(
        _stage(method, level, known[: k + 1], len(levels), specialists, budgets[level], windows[k])
        for k, level in enumerate(levels)
    )


def _stage(
    method: EdKnobs,
    level: str,
    known: list[tuple[str, ...]],
    num_levels: int,
    specialists: Container[str],
    budget: StageKnobs,
    window: tuple[float, float],
) -> StagePlan:
    """One level; `known` are the subsets that it and each level before it know."""
    taught = known[-1] if method.replay or method.classes == "all" else (level,)
    algorithm = method.distill_by_level.get(level, method.distill)
    is_anchored = bool(method.anchor_weight) and len(known) > 1
    is_kept = method.references == "kept"
    return StagePlan(
        name=level,
        number=len(known),
        num_stages=num_levels,
        taught=taught,
        known=known[-1],
        teachers=_teachers(method, level, taught, specialists),
        teacher_weighting=method.teacher_weighting,
        algorithm=algorithm,
        normalisation=method.normalisation,
        subset_order=method.subset_order,
        easiest=method.easiest.get(level, 1.0),
        kept=tuple(known[:-1]) if is_kept else (),
        reference_weight=method.reference_weight if is_kept else 0.0,
        anchor_weight=method.anchor_weight if is_anchored else 0.0,
        anchored=known[-2] if is_anchored else (),
        budget=budget,
        window=window,
        **loss_weights(method, algorithm),
    )


def teachers_of(method: EdKnobs, level: str) -> tuple[str, ...]:
    """Names of the teachers of one level."""
    return (method.teacher,) if method.teacher is not None else (method.teachers or {})[level]


def _teachers(
    method: EdKnobs, level: str, taught: tuple[str, ...], specialists: Container[str]
) -> tuple[TeacherUse, ...]:
    return tuple(
        TeacherUse(teacher=teacher, subset=subset)
        for teacher in teachers_of(method, level)
        for subset in (taught if teacher in specialists else (ALL_CLASSES,))
    )


def _windows(method: EdKnobs, budgets: list[StageKnobs]) -> list[tuple[float, float]]:
    if method.rate_schedule == "restarted":
        return [(0.0, 1.0)] * len(budgets)
    sizes = [b.epochs for b in budgets if b.epochs] or [b.images for b in budgets if b.images]
    if len(sizes) != len(budgets):
        raise ParamsError("method.rate_schedule: 'carried' needs all stages in epochs or all in images, got both")
    ends = [sum(sizes[: k + 1]) / sum(sizes) for k in range(len(sizes))]
    return list(zip([0.0, *ends[:-1]], ends, strict=True))
