"""One stage, all classes, several teachers of all classes: aver, ebkd, aekd and ca_mkd.

The teachers are combined when the student trains, so all rules share the same stored logits.
"""

from edpipe.methods.curriculum import StagePlan, TeacherUse, loss_weights, whole_school
from edpipe.params.algorithm import PLAIN_KD
from edpipe.params.experiment import PanelKnobs
from edpipe.params.partition import ALL_CLASSES
from edpipe.params.stage import StageKnobs


def curriculum(method: PanelKnobs, name: str, budget: StageKnobs) -> tuple[StagePlan, ...]:
    """One stage; labels and a panel of teachers."""
    teachers = tuple(TeacherUse(teacher=teacher, subset=ALL_CLASSES) for teacher in method.teachers)
    weights = loss_weights(method, PLAIN_KD)
    return (whole_school(name, budget, teachers=teachers, panel=method.name, **weights),)
