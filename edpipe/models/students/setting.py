"""What a loss is told when it builds what is trained beside a student."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from edpipe.models.splitting.chain import Tap


@dataclass(frozen=True)
class HintShape:
    """What a teacher's stored hint is of."""

    feature_stage: int
    """From 1."""
    side: int | None
    """To which the teacher's map was averaged down, pixels, if it was larger; None: it was left as it was."""
    shape: tuple[int, int, int]
    """Channels, height and width."""

    @property
    def averaged_side(self) -> int | None:
        """Side of a map that was averaged down, or had just that size; None: the map is whole, and smaller."""
        return self.side if self.side is not None and max(self.shape[1:]) >= self.side else None


@dataclass(frozen=True)
class StudentSetting:
    """A student before its training."""

    network: nn.Module
    """The whole network of which the student is a part, or which it is."""
    student: nn.Module
    """What the stage trains."""
    channels: int
    """Of the images."""
    image_size: int
    """Side of the images, pixels."""
    seed: int
    """Of weights drawn here."""
    hint: HintShape | None = None
    """Of the first teacher's stored hint, if there is one."""


class SideModule(nn.Module):
    """Reads features of a student on its way; its parameters are trained with it and dropped afterwards.

    `forward` is given the features of each tap, in order.
    """

    def __init__(self, taps: Sequence[Tap]) -> None:
        super().__init__()
        self.taps = tuple(taps)  # tuples, for their modules to belong to the student alone
