"""Attention transfer (Zagoruyko and Komodakis 2017): attention maps along the network, instead of logits."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from edpipe.params.plans.loss import Stored, TeacherLoss

if TYPE_CHECKING:
    import torch

    import edpipe.losses.stage_terms
    import edpipe.models.students.auxiliary
    import edpipe.models.students.setting


class At(TeacherLoss):
    """Attention maps along the network, the first with the first; soft labels must hold them."""

    summary: ClassVar[str] = (
        "Knowledge distillation: all classes at once, one teacher that knows all of them; the student follows its "
        "attention maps."
    )
    method_defaults: ClassVar[Mapping[str, float]] = {"task_weight": 1.0}
    stored: ClassVar[frozenset[Stored]] = frozenset({Stored.ATTENTION})
    default_weight: ClassVar[float | None] = 1000.0  # as in the RepDistiller code
    has_temperature: ClassVar[bool] = False

    kind: Literal["at"]

    def losses(self, pair: "edpipe.losses.stage_terms.TeacherPair") -> "torch.Tensor":
        """Sum over maps of each sample's attention loss."""
        import torch

        from edpipe.losses.features import attention_loss

        maps = () if pair.outputs is None else pair.outputs.side
        pairs = zip(maps, pair.target.maps, strict=False)  # a lower level has fewer maps than its teacher
        return torch.stack([attention_loss(own[pair.target.rows], teacher) for own, teacher in pairs]).sum(dim=0)

    def side_module(
        self, setting: "edpipe.models.students.setting.StudentSetting"
    ) -> "edpipe.models.students.auxiliary.AttentionMaps":
        """The student's own maps."""
        from edpipe.models.students.auxiliary import AttentionMaps

        return AttentionMaps(setting.network, setting.student)
