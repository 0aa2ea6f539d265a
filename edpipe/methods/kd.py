"""Knowledge distillation (Hinton et al. 2015): one stage, all classes, one teacher of all classes."""

from edpipe.methods.curriculum import StagePlan, TeacherUse, whole_school
from edpipe.params.experiment import KdKnobs
from edpipe.params.partition import ALL_CLASSES
from edpipe.params.stage import StageKnobs


def curriculum(method: KdKnobs, name: str, budget: StageKnobs) -> tuple[StagePlan, ...]:
    """One stage; labels and one teacher."""
    teachers = (TeacherUse(teacher=method.teacher, subset=ALL_CLASSES),)
    return (
        whole_school(name, budget, teachers=teachers, temperature=method.temperature, task_weight=method.task_weight),
    )
