"""One stage, all classes, several teachers of all classes: aver, ebkd, aekd and ca_mkd.

The teachers are combined when the student trains, so all rules share the same stored logits.
"""

from edpipe.methods.plan import StagePlan, TeacherUse, all_subsets, loss_weights
from edpipe.params.distill import PLAIN_KD
from edpipe.params.experiment import MultiTeacherKnobs
from edpipe.params.partition import ALL_CLASSES
from edpipe.params.stage import StageKnobs


def curriculum(method: MultiTeacherKnobs, name: str, budget: StageKnobs) -> tuple[StagePlan, ...]:
    """One stage; labels and a panel of teachers."""
    teachers = tuple(TeacherUse(teacher=teacher, subset=ALL_CLASSES) for teacher in method.teachers)
    weights = loss_weights(method, PLAIN_KD)
    return (all_subsets(name, budget, teachers=teachers, teacher_weighting=method.name, **weights),)
