"""CTKD (arXiv 1907.09643): one stage; a teacher that learns beside the student, and an expert's attention maps.

The scratch teacher gets no gradient from the student, so that what it said is recorded once and replayed.
"""

from edpipe.methods.plan import StagePlan, TeacherUse, TrajectoryUse, all_subsets
from edpipe.params.distill import PLAIN_KD, AtAlgorithm
from edpipe.params.experiment import CtkdKnobs
from edpipe.params.partition import ALL_CLASSES
from edpipe.params.stage import StageKnobs


def curriculum(method: CtkdKnobs, name: str, budget: StageKnobs) -> tuple[StagePlan, ...]:
    """One stage; labels, the recorded teacher, and the maps of the expert if they have any weight."""
    has_expert = method.expert is not None and method.attention_weight > 0
    experts = (TeacherUse(teacher=str(method.expert), subset=ALL_CLASSES),) if has_expert else ()
    return (
        all_subsets(
            name,
            budget,
            teachers=experts,
            algorithm=AtAlgorithm(kind="at") if has_expert else PLAIN_KD,
            trajectory=TrajectoryUse(teacher=method.scratch),
            temperature=method.temperature,
            task_weight=method.task_weight,
            distill_weight=method.distill_weight,
            attention_weight=method.attention_weight if has_expert else 0.0,
        ),
    )
