"""Plugins as users write them."""

LOSS = '''\
"""kd, written anew."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edpipe import TeacherLoss


class Again(TeacherLoss):
    """kd, written anew."""

    summary: ClassVar[str] = "As kd."

    kind: Literal["again"]
    factor: Annotated[float, Field(gt=0)] = Field(1.0, description="Of the loss.")

    def losses(self, pair):
        """Of each sample, nats."""
        import torch.nn.functional as F

        student = F.log_softmax(pair.student / pair.temperature, dim=-1)
        teacher = F.log_softmax(pair.teacher / pair.temperature, dim=-1)
        kl = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1) * pair.temperature**2
        return scaled(kl, self.factor)


def scaled(losses, factor):
    return losses if factor == 1 else factor * losses
'''
NETWORK_AND_READER = '''\
"""A small network, and ten classes of drawn squares."""

import numpy as np

from edpipe import RawDataset, RawSample, network, reader


@network("two_convolutions")
def build(num_classes, channels):
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(4, 8, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )


@reader("squares")
def read(root, knobs):
    names = tuple(f"side_{side}" for side in range(1, 5))
    samples = [
        RawSample(label, None, f"{label}/{number}", lambda label=label, number=number: drawn(label, number))
        for label in range(4)
        for number in range(12)
    ]
    return RawDataset(names, samples)


def drawn(label, number):
    image = np.zeros((8, 8), dtype=np.uint8)
    image[1 : 2 + label, 1 : 2 + label] = 100 + 10 * number
    return image
'''
