"""Decoupled knowledge distillation (Zhao et al. 2022): the label's share, and the others among themselves."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from edpipe.params.plans.loss import TeacherLoss

if TYPE_CHECKING:
    import torch

    import edpipe.losses.stage_terms


class Dkd(TeacherLoss):
    """Decoupled knowledge distillation."""

    summary: ClassVar[str] = (
        "Knowledge distillation: all classes at once, one teacher that knows all of them; what it says of the true "
        "class and of the others is learnt apart."
    )
    method_defaults: ClassVar[Mapping[str, float]] = {"task_weight": 1.0, "distill_weight": 1.0}
    progress_of: ClassVar[Literal["stage", "training"]] = "training"

    kind: Literal["dkd"]
    alpha: Annotated[float, Field(ge=0)] = Field(1.0, description="Weight of the label's share.")
    beta: Annotated[float, Field(ge=0)] = Field(
        8.0,
        description="Weight of the other classes among themselves. The mdistiller code has 8 as its default, so for "
        "resnet32x4 to resnet8x4; 2 for resnet56 to resnet20 and resnet110 to resnet32; 6 for vgg13 to vgg8 or "
        "mobilenetv2 and for wrn_40_2 to wrn_16_2 or wrn_40_1; on ImageNet, at temperature 1, 0.5 for resnet34 to "
        "resnet18.",
    )
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        1 / 12,
        description="Share of the whole training, all stages together, over which the distillation loss rises "
        "from 0; 20 of 240 epochs.",
    )

    def losses(self, pair: "edpipe.losses.stage_terms.TeacherPair") -> "torch.Tensor":
        """Each sample's loss, nats; over the first share of the training it rises from 0."""
        from edpipe.losses.logits import dkd_loss

        losses = dkd_loss(pair.student, pair.teacher, pair.labels, pair.temperature, self.alpha, self.beta)
        return losses * min(1.0, pair.progress / self.warmup if self.warmup else 1.0)
