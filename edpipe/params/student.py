"""Knobs of `students:`: the network that is kept, and what stands in for its missing blocks."""

from typing import Literal

from pydantic import Field

from edpipe.params.base import Knobs


class StudentKnobs(Knobs):
    """The network that is kept in the end."""

    model: str = Field(
        description="resnet8…resnet110, resnet8x4, wrn_40_2, vgg8…vgg19, mobilenetv2, shufflenetv1, shufflenetv2, "
        "cifar_resnet18, 34 or 50, 'timm:<name>' or 'torchvision:<name>'; `edpipe zoo` lists them."
    )
    reference: Literal["adapter", "linear", "authors"] = Field(
        "adapter",
        description="Teaching reference block: adapter = 1×1 conv to the final width, BN, ReLU, pool, linear; "
        "linear = pool, linear; authors = as in the ED authors' code, with BN before the last pooling in training.",
    )
