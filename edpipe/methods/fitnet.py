"""FitNets (Romero et al. 2015): the features of one stage, through a regressor."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from edpipe.params.plans.loss import Stored, TeacherLoss

if TYPE_CHECKING:
    import torch

    import edpipe.losses.stage_terms
    import edpipe.models.students.hint
    import edpipe.models.students.setting


class Fitnet(TeacherLoss):
    """The features of one stage, through a regressor; soft labels must hold them."""

    summary: ClassVar[str] = (
        "Knowledge distillation: all classes at once, one teacher that knows all of them; the student follows the "
        "features of one of its stages."
    )
    method_defaults: ClassVar[Mapping[str, float]] = {"task_weight": 1.0}
    stored: ClassVar[frozenset[Stored]] = frozenset({Stored.HINT})
    default_weight: ClassVar[float | None] = 100.0  # as in the RepDistiller code
    for_levels: ClassVar[bool] = False  # a hint needs the one stage that it is of
    has_temperature: ClassVar[bool] = False

    kind: Literal["fitnet"]

    def losses(self, pair: "edpipe.losses.stage_terms.TeacherPair") -> "torch.Tensor":
        """Mean squared difference of each sample's features and its teacher's hint."""
        from edpipe.losses.features import hint_loss

        assert pair.outputs is not None, "no earlier reference comes here"
        assert pair.target.hint is not None, "the soft labels hold hints"
        return hint_loss(pair.outputs.side[pair.target.rows], pair.target.hint)

    def side_module(
        self, setting: "edpipe.models.students.setting.StudentSetting"
    ) -> "edpipe.models.students.hint.Hint":
        """The regressor, behind the student's stage that the hint is of."""
        from edpipe.models.students.hint import hint_of

        assert setting.hint is not None, "the soft labels hold hints"
        return hint_of(setting.network, setting.hint, (setting.channels, setting.image_size), setting.seed)
