"""What every loss of a student has: knobs, what it needs of teachers, and the computation itself.

A loss against a teacher (`TeacherLoss`) is an entry of `distill:` and, by itself, a method of its name. A loss of a
whole stage (`StageLoss`) replaces the sum of label loss and teachers' losses. Both are defined in `edpipe.methods` and
in plugins, one file each. torch is imported where something is computed, so that params.yaml is read without it.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from edpipe.params.base import Knobs

if TYPE_CHECKING:
    import torch

    import edpipe.losses.stage_terms
    import edpipe.models.students.setting
    import edpipe.models.students.student
    import edpipe.params.plans.plan

Weight = Annotated[float, Field(ge=0, le=1e9)]


class Stored(StrEnum):
    """What soft labels can hold besides logits."""

    ATTENTION = "attention"
    """Attention maps along the network."""
    HINT = "hint"
    """The features of one stage."""


class TeacherLoss(Knobs):
    """How a student's outputs are compared with one teacher's; subclasses add their knobs and say how."""

    kind: str
    summary: ClassVar[str] = ""
    """A sentence for the report page: what a student does that learns by it."""
    stored: ClassVar[frozenset[Stored]] = frozenset()
    """What the soft labels must hold besides logits."""
    default_weight: ClassVar[float | None] = None
    """Of the distillation loss where params.yaml gives none; None: 1 - task_weight."""
    method_defaults: ClassVar[Mapping[str, float]] = {}
    """Defaults of the method of this name, where they differ: temperature, task_weight, distill_weight."""
    for_levels: ClassVar[bool] = True
    """Whether levels of a school may use it."""
    compares_samples: ClassVar[bool] = False
    """Whether it compares the samples of a batch with each other, so that no process may have a part of them."""
    has_temperature: ClassVar[bool] = True
    """Whether the temperature counts."""
    progress_of: ClassVar[Literal["stage", "training"]] = "stage"
    """Of what `pair.progress` is the part that lies behind: of the stage, or of all stages together."""

    def losses(self, pair: "edpipe.losses.stage_terms.TeacherPair") -> "torch.Tensor":
        """Each sample's loss against one teacher, shape (row,).

        Args:
            pair: what student and teacher say of the samples that the teacher teaches.
        """
        raise NotImplementedError

    def side_module(
        self, setting: "edpipe.models.students.setting.StudentSetting"
    ) -> "edpipe.models.students.setting.SideModule | None":
        """What is trained beside the student and dropped afterwards; its output is `pair.outputs.side`."""
        return None


class UnknownLoss(TeacherLoss):
    """A loss that a file names and nobody here defines, such as that of another project's plugin; it has no code."""

    model_config = ConfigDict(extra="allow")


class StageLoss(Knobs):
    """The loss of a stage that is no sum of label loss and teachers' losses."""

    kind: str

    def losses(self, batch: "edpipe.losses.stage_terms.StageOutputs") -> "torch.Tensor":
        """Each sample's loss, shape (sample,)."""
        raise NotImplementedError

    def trainee(self, setting: "edpipe.models.students.setting.StudentSetting") -> "torch.nn.Module | None":
        """The network that is trained instead of the plain student, and holds it; None: the student itself.

        Raises:
            NetworkError: the student's network does not allow it.
        """
        return None

    def text(self, plan: "edpipe.params.plans.plan.StagePlan") -> str:
        """Its terms and weights, for the report page."""
        return self.kind


class UnknownStageLoss(StageLoss):
    """Likewise of a whole stage."""

    model_config = ConfigDict(extra="allow")
