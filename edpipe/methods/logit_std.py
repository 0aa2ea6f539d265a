"""kd of standardised logits (Sun et al. 2024), with its authors' weights."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edpipe.methods.kd import Kd
from edpipe.params.plans.loss import Weight
from edpipe.params.plans.method import SingleTeacherMethod


class LogitStd(SingleTeacherMethod):
    """kd of standardised logits, with its authors' weights."""

    summary: ClassVar[str] = (
        "Knowledge distillation: all classes at once, one teacher that knows all of them; logits are standardised "
        "first."
    )

    name: Literal["logit_std"]
    temperature: Annotated[float, Field(gt=0)] = Field(2.0, description="Divides the standardised logits.")
    task_weight: Weight = Field(0.1, description="Weight of the task loss.")
    distill_weight: Weight = Field(9.0, description="Weight of the distillation loss.")

    def loss(self) -> Kd:
        """That of kd, of standardised logits."""
        return Kd(kind="kd", standardise=True)
