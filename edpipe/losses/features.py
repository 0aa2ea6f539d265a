"""Losses on features, per sample: attention maps (AT) and hints (FitNet)."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from edpipe.losses.kd import precise


def attention_loss(
    student_map: Float[Tensor, "sample height_student width_student"],
    teacher_map: Float[Tensor, "sample height_teacher width_teacher"],
) -> Float[Tensor, " sample"]:
    """Mean over pixels of the squared difference of two attention maps (Zagoruyko and Komodakis 2017, section 3.1).

    Maps are of unit length, as `attention_map` gives them. The larger is averaged down to the size of the smaller and
    made unit length again: maps are what is stored of a teacher, so maps are averaged, where published code averages
    features before it squares them.
    """
    size = (min(student_map.shape[1], teacher_map.shape[1]), min(student_map.shape[2], teacher_map.shape[2]))
    difference = _averaged_down(precise(student_map), size) - _averaged_down(precise(teacher_map), size)
    return difference.flatten(1).pow(2).mean(dim=1)


def hint_loss(
    student_features: Float[Tensor, "sample channel height width"],
    teacher_features: Float[Tensor, "sample channel height width"],
) -> Float[Tensor, " sample"]:
    """Mean over channel, height and width of the squared difference (FitNets, Romero et al. 2015, section 2.2).

    The student's features come through a `HintRegressor`.

    Raises:
        ValueError: the two differ in shape.
    """
    if student_features.shape != teacher_features.shape:
        raise ValueError(
            f"features of student and teacher must have one shape, got {tuple(student_features.shape)} and "
            f"{tuple(teacher_features.shape)}; a HintRegressor changes the channels, another stage the size"
        )
    # Kept in the graph from here to the optimizer: published multi-teacher code re-wraps its hint losses with
    # torch.tensor(), which drops their gradients, and is then no more than an average of KD.
    difference = precise(student_features) - precise(teacher_features)
    return difference.flatten(1).pow(2).mean(dim=1)


def _averaged_down(
    attention: Float[Tensor, "sample height width"], size: tuple[int, int]
) -> Float[Tensor, "sample height_small width_small"]:
    if attention.shape[1:] == size:
        return attention
    small = F.adaptive_avg_pool2d(attention[:, None], size)
    return F.normalize(small.flatten(1), dim=1).reshape(-1, *size)
