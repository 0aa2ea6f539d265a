"""What training on one image costs in a stage, beside the whole student at full size; known before the stage runs."""

from edpipe.models.macs import count_training_macs
from edpipe.models.splitting.chain import join
from edpipe.models.students.student import Student
from edpipe.models.zoo.build import build_network
from edpipe.params.plans.plan import StagePlan
from edpipe.params.student import StudentKnobs


def stage_and_whole_macs(
    plan: StagePlan, student: StudentKnobs, channels: int, image_size: int, num_classes: int
) -> tuple[int, int]:
    """Training multiply-accumulates of one image, in the stage and of the whole student.

    Earlier references, the student before and modules of losses come on top; the stage itself counts them.

    Args:
        plan: of the stage.
        student: its network.
        channels: of the images.
        image_size: of the dataset's images, pixels.
        num_classes: of the student in the end; a stage with fewer has hardly less to compute.

    Raises:
        NetworkError: the network cannot be split, or cannot take such images.
    """
    network = build_network(student.model, num_classes, channels, 0)
    whole = count_training_macs(network, channels, image_size)
    side = plan.budget.image_size or image_size
    stage = Student(network, plan.blocks, plan.num_blocks, num_classes, student.reference, side, channels, 0)
    frozen = join(stage.blocks[: plan.frozen]) if plan.frozen else None
    return count_training_macs(stage, channels, side, frozen), whole
