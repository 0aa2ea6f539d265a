"""Cross-entropy: one stage, all classes, no teacher. The baseline of all others."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edpipe.params.plans.method import MethodSetting, Phased
from edpipe.params.plans.plan import StagePlan


class Ce(Phased):
    """Cross-entropy with the labels alone."""

    summary: ClassVar[str] = "Cross-entropy with the labels alone: no teacher, all classes at once."

    name: Literal["ce"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of the label given to all classes."
    )

    def stages(self, setting: MethodSetting) -> tuple[StagePlan, ...]:
        """The labels are the only target."""
        return self.in_phases(setting, label_smoothing=self.label_smoothing)
