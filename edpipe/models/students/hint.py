"""A student's features of one stage in the form of the teacher's hint (FitNet, Romero et al. 2015).

The regressor is that of the RepDistiller code, whose weight of the loss is the default here.
"""

from jaxtyping import Float
from torch import Tensor, nn

from edpipe.errors import NetworkError
from edpipe.models.probe import drawing, model_name
from edpipe.models.splitting.chain import Tap, map_shapes
from edpipe.models.splitting.split import split_into_stages
from edpipe.models.splitting.taps import pooled
from edpipe.models.students.setting import HintShape, SideModule

MapShape = tuple[int, int, int]
"""Channels, height and width."""


class HintRegressor(nn.Module):
    """A convolution, BN and ReLU that bring a student's features to the shape of a teacher's.

    Maps of one size: 1×1. The student's are twice as large: 3×3 of stride 2; half as large: a transposed 4×4 of stride
    2; larger otherwise: one kernel so large that the teacher's size is left over. Weights are drawn as torch draws them
    by default. Its parameters are trained along with the student's, and dropped afterwards (Romero et al. 2015,
    section 2.2).

    Args:
        student: shape of what comes in.
        teacher: shape of what goes out.
        seed: of the weights drawn here; the global generator is left alone.

    Raises:
        ValueError: a number of channels or pixels is not positive, or the student's maps are smaller than the
            teacher's, but not half as large.
    """

    def __init__(self, student: MapShape, teacher: MapShape, seed: int) -> None:
        super().__init__()
        if min(*student, *teacher) < 1:
            raise ValueError(f"channels and pixels must be >= 1, got {student} and {teacher}")
        with drawing(seed):
            self.conv = _convolution(student, teacher)
        self.bn = nn.BatchNorm2d(teacher[0])
        self.relu = nn.ReLU()

    def forward(
        self, features: Float[Tensor, "sample channel_student height width"]
    ) -> Float[Tensor, "sample channel_teacher height_teacher width_teacher"]:
        """The student's features in the teacher's channels and size."""
        return self.relu(self.bn(self.conv(features)))


def _convolution(student: MapShape, teacher: MapShape) -> nn.Module:
    (channels, height, width), (new_channels, new_height, new_width) = student, teacher
    if (height, width) == (2 * new_height, 2 * new_width):
        return nn.Conv2d(channels, new_channels, 3, stride=2, padding=1)
    if (2 * height, 2 * width) == (new_height, new_width):
        return nn.ConvTranspose2d(channels, new_channels, 4, stride=2, padding=1)
    if height < new_height or width < new_width:
        raise ValueError(f"no regressor leads from maps of {height}×{width} to {new_height}×{new_width}")
    return nn.Conv2d(channels, new_channels, (1 + height - new_height, 1 + width - new_width))


class Hint(SideModule):
    """A student's features of one stage, in the shape of the teacher's hint (Romero et al. 2015).

    The regressor is trained along with the student, and never kept.

    Args:
        end: of the stage.
        regressor: towards the teacher's maps.
        side: to which the teacher's maps were averaged down before they were stored; None: they are whole.
    """

    def __init__(self, end: Tap, regressor: HintRegressor, side: int | None) -> None:
        super().__init__([end])
        self.regressor, self._side = regressor, side

    def forward(self, features: Float[Tensor, "sample c h w"]) -> Float[Tensor, "sample channel height width"]:
        """What is compared with the teacher's hint."""
        made = self.regressor(features)
        # Averaged behind the regressor, as the teacher's maps were behind its ReLU.
        return made if self._side is None else pooled(made, self._side)


def hint_of(network: nn.Module, hint: HintShape, sizes: tuple[int, int], seed: int) -> Hint:
    """What makes a hint of the stage of the student's network that the teacher's hint is of.

    Args:
        network: the whole student.
        hint: what the teacher's is.
        sizes: channels and side of the images.
        seed: of the regressor's weights.

    Raises:
        NetworkError: the network has no such stage, or its maps cannot be brought to the size of the teacher's hint.
    """
    blocks, _ = split_into_stages(network, "hints", "use another method or student")
    if hint.feature_stage > len(blocks):
        raise NetworkError(
            f"model {model_name(network)!r}: has {len(blocks)} feature stages, the teacher's hint is of its stage "
            f"{hint.feature_stage}; store the hint of a lower stage (storage.hint.feature_stage), or use another "
            "student"
        )
    _, channels, height, width = map_shapes(network, blocks, *sizes)[hint.feature_stage - 1]
    regressor = _regressor(network, hint, (channels, height, width), seed)
    return Hint(blocks[hint.feature_stage - 1].tap, regressor, hint.averaged_side)


def _regressor(network: nn.Module, hint: HintShape, own: MapShape, seed: int) -> HintRegressor:
    """Of whole maps towards the teacher's size; where they were averaged down, towards their channels alone."""
    channels, height, width = hint.shape
    stage = f"model {model_name(network)!r}: stage {hint.feature_stage} gives maps of {own[1]}×{own[2]}"
    if hint.averaged_side is not None:
        if own[1] < height or own[2] < width:
            raise NetworkError(
                f"{stage}, the teacher's hint was averaged down to {height}×{width}; use a smaller storage.hint.side, "
                "or another student"
            )
        return HintRegressor(own, (channels, *own[1:]), seed)
    try:
        return HintRegressor(own, hint.shape, seed)
    except ValueError as error:
        raise NetworkError(
            f"{stage}, the teacher's hint is {height}×{width}; the student's must be as large, larger, or half as "
            f"large: give storage.hint.side {min(own[1:])} or less, or use another student"
        ) from error
