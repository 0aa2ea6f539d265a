"""Knowledge distillation (Hinton et al. 2015): divergence of the softened softmaxes."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from edpipe.params.plans.loss import TeacherLoss

if TYPE_CHECKING:
    import torch

    import edpipe.losses.stage_terms


class Kd(TeacherLoss):
    """Knowledge distillation: divergence of the softened softmaxes."""

    summary: ClassVar[str] = "Knowledge distillation: all classes at once, one teacher that knows all of them."

    kind: Literal["kd"]
    standardise: bool = Field(
        False, description="Logits of both are brought to mean 0 and deviation 1 first (Sun et al. 2024)."
    )

    def losses(self, pair: "edpipe.losses.stage_terms.TeacherPair") -> "torch.Tensor":
        """τ² · KL(teacher ‖ student) of each sample, nats."""
        from edpipe.losses.kd import kd_loss, slice_kd_loss
        from edpipe.losses.logits import standardise

        if self.standardise:
            return kd_loss(standardise(pair.student), standardise(pair.teacher), pair.temperature)
        columns = pair.target.columns
        return slice_kd_loss(pair.all_student, pair.teacher, columns, pair.temperature, pair.normalisation)
