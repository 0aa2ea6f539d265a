"""A student's features of one stage in the form of the teacher's hint (FitNet, Romero et al. 2015)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.errors import NetworkError
from edpipe.models.probe import model_name
from edpipe.models.splitting.chain import Tap, map_shapes
from edpipe.models.splitting.split import split_into_stages
from edpipe.models.splitting.taps import pooled
from edpipe.models.students.setting import SideModule


class HintRegressor(nn.Module):
    """A 1×1 convolution and BN that bring a student's features to a teacher's channels; ReLU on demand.

    Its parameters are trained along with the student's, and dropped afterwards (Romero et al. 2015, section 2.2).

    Args:
        num_student_channels: of what comes in.
        num_teacher_channels: of what goes out.
        seed: of the weights drawn here; the global generator is left alone.
        relu: for teacher features that were taken behind a ReLU.

    Raises:
        ValueError: a number of channels is not positive.
    """

    def __init__(self, num_student_channels: int, num_teacher_channels: int, seed: int, relu: bool = False) -> None:
        super().__init__()
        if num_student_channels < 1 or num_teacher_channels < 1:
            raise ValueError(f"channels must be >= 1, got {num_student_channels} and {num_teacher_channels}")
        # skip_init, for a new convolution would draw from the global generator.
        conv = nn.utils.skip_init(nn.Conv2d, num_student_channels, num_teacher_channels, 1, bias=False)
        generator = torch.Generator().manual_seed(seed)
        nn.init.kaiming_normal_(next(conv.parameters()), mode="fan_out", nonlinearity="relu", generator=generator)
        self.conv = conv
        self.bn = nn.BatchNorm2d(num_teacher_channels)
        self.relu = nn.ReLU() if relu else nn.Identity()

    def forward(
        self, features: Float[Tensor, "sample channel_student height width"]
    ) -> Float[Tensor, "sample channel_teacher height width"]:
        """The student's features in the teacher's channels."""
        return self.relu(self.bn(self.conv(features)))


class Hint(SideModule):
    """A student's features of one stage, as small as the teacher's hint and in its channels (Romero et al. 2015).

    The regressor is trained along with the student, and never kept.
    """

    def __init__(self, end: Tap, side: int, regressor: HintRegressor) -> None:
        super().__init__([end])
        self._side, self.regressor = side, regressor

    def forward(self, features: Float[Tensor, "sample c h w"]) -> Float[Tensor, "sample channel height width"]:
        """What is compared with the teacher's hint."""
        return self.regressor(pooled(features, self._side))


def hint_of(
    network: nn.Module, feature_stage: int, side: int, shape: tuple[int, int, int], sizes: tuple[int, int], seed: int
) -> Hint:
    """What makes a hint of the stage of the student's network that the teacher's hint is of.

    Args:
        network: the whole student.
        level: of the stage, from 1.
        side: to which the teacher's map was averaged down.
        shape: channels, height and width of the teacher's hint.
        sizes: channels and side of the images.
        seed: of the regressor's weights.

    Raises:
        NetworkError: the network has no such stage, or its map is smaller than the teacher's hint.
    """
    blocks, _ = split_into_stages(network, "hints", "use another method or student")
    if feature_stage > len(blocks):
        raise NetworkError(
            f"model {model_name(network)!r}: has {len(blocks)} feature stages, the teacher's hint is of its stage "
            f"{feature_stage}; store the hint of a lower stage (storage.hint.feature_stage), or use another student"
        )
    _, channels, height, width = map_shapes(network, blocks, *sizes)[feature_stage - 1]
    own = min(height, side), min(width, side)
    if own != shape[1:]:
        raise NetworkError(
            f"model {model_name(network)!r}: stage {feature_stage} gives a hint of {own[0]}×{own[1]}, the teacher's is "
            f"{shape[1]}×{shape[2]}; use a smaller storage.hint.side, or another student"
        )
    return Hint(blocks[feature_stage - 1].tap, side, HintRegressor(channels, shape[0], seed))
