"""DIST (Huang et al. 2022): correlation instead of divergence, over classes and over the batch."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from edpipe.params.plans.loss import TeacherLoss

if TYPE_CHECKING:
    import torch

    import edpipe.losses.stage_terms


class Dist(TeacherLoss):
    """DIST: correlation over classes and over the batch."""

    summary: ClassVar[str] = (
        "Knowledge distillation: all classes at once, one teacher that knows all of them; its answers are followed by "
        "their correlation."
    )
    method_defaults: ClassVar[Mapping[str, float]] = {"task_weight": 1.0, "distill_weight": 1.0}
    compares_samples: ClassVar[bool] = True

    kind: Literal["dist"]
    beta: Annotated[float, Field(ge=0)] = Field(2.0, description="Weight of the correlation over classes.")
    gamma: Annotated[float, Field(ge=0)] = Field(2.0, description="Weight of the correlation over the batch.")

    def losses(self, pair: "edpipe.losses.stage_terms.TeacherPair") -> "torch.Tensor":
        """Each sample's loss; correlations have no unit."""
        from edpipe.losses.logits import dist_loss

        return dist_loss(pair.student, pair.teacher, pair.temperature, self.beta, self.gamma)
