"""TESKD (arXiv 2110.00329): one stage, no teacher; students on the network's own stages, dropped in the end."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from edpipe.params.base import Knobs
from edpipe.params.plans.loss import StageLoss, Weight
from edpipe.params.plans.method import ONLY_STAGE, Method, MethodSetting
from edpipe.params.plans.plan import StagePlan, all_subsets

if TYPE_CHECKING:
    import torch

    import edpipe.losses.stage_terms
    import edpipe.models.students.setting


class TeskdKnobs(Knobs):
    """How the terms of TESKD's loss are weighed; the defaults are those of its authors' code."""

    temperature: Annotated[float, Field(gt=0)] = Field(4.0, description="Divides the logits of the kd loss.")
    task_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.2, description="Of the sum of all cross-entropies; the kd losses of the students get the rest."
    )
    feature_weight: Weight = Field(1e-7, description="Of the squared distances of the students' features.")
    detach_target: bool = Field(
        False, description="true: the kd loss teaches the students alone; false, as in the code: the network as well."
    )
    feature_reduction: Literal["sum", "mean"] = Field(
        "sum", description="Over the samples of a batch; sum, as in the code, makes it grow with the batch size."
    )


class TeskdLoss(StageLoss, TeskdKnobs):
    """The loss of a network and of the students on its own stages."""

    kind: Literal["teskd"]

    def losses(self, batch: "edpipe.losses.stage_terms.StageOutputs") -> "torch.Tensor":
        """Each sample's loss: of the network, of its students, and between their features."""
        from edpipe.losses.teskd import TeskdWeights, teskd_loss
        from edpipe.models.students.teskd_branches import TeskdOutputs

        assert isinstance(batch.outputs, TeskdOutputs), "the trainee below gives them"
        weights = TeskdWeights(**self.model_dump(exclude={"kind"}))
        return teskd_loss(batch.outputs, batch.batch.labels, weights, batch.batch.num_together)

    def trainee(self, setting: "edpipe.models.students.setting.StudentSetting") -> "torch.nn.Module":
        """The network with its students.

        Raises:
            NetworkError: the network has fewer than two feature stages, or is no chain of its modules.
        """
        from edpipe.models.students.teskd_branches import TeskdNetwork

        return TeskdNetwork(setting.network, setting.image_size, setting.channels, setting.seed)

    def text(self, plan: StagePlan) -> str:
        """Shares of the two kinds of terms."""
        return f"TESKD: {self.task_share:g} of it task, the rest kd of its students"


class Teskd(Method, TeskdKnobs):
    """TESKD (arXiv 2110.00329): one stage, no teacher; students on the network's own stages help it to learn."""

    summary: ClassVar[str] = (
        "TESKD: no teacher; students on the network's own stages help it to learn, and are dropped."
    )
    handles_mixing: ClassVar[bool] = False

    name: Literal["teskd"]

    def stages(self, setting: MethodSetting) -> tuple[StagePlan, ...]:
        """One stage; labels, and what the students make of them."""
        loss = TeskdLoss(kind="teskd", **self.model_dump(exclude={"name"}))
        return (all_subsets(ONLY_STAGE, setting.budgets[ONLY_STAGE], own_loss=loss),)
