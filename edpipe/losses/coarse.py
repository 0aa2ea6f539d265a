"""Losses over groups of classes: probabilities of a group's classes are added up (Stretcu et al. 2021)."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from edpipe.losses.stage_terms import StageBatch, TeacherTargets


def group_logits(
    logits: Float[Tensor, "sample class"], groups: Int64[Tensor, " class"]
) -> Float[Tensor, "sample group"]:
    """Logits whose softmax is the sum of the classes' softmax in each group: the logsumexp of its classes' logits.

    Args:
        logits: of the classes.
        groups: of each class its group, 0 … n-1; none is empty.
    """
    numbers = torch.arange(int(groups.max()) + 1, device=logits.device)
    is_member = groups == numbers[:, None]
    return logits[:, None].masked_fill(~is_member, -torch.inf).logsumexp(dim=2)


def group_batch(batch: StageBatch, groups: Int64[Tensor, " class"]) -> StageBatch:
    """The batch with groups in place of classes: labels, and what teachers say.

    Args:
        batch: numbered as the student's outputs.
        groups: of each output its group, 0 … n-1.
    """
    other = None if batch.other is None else (groups[batch.other[0]], batch.other[1])
    targets = [_group_targets(target, groups) for target in batch.targets]
    return replace(batch, labels=groups[batch.labels], other=other, targets=targets)


def _group_targets(target: TeacherTargets, groups: Int64[Tensor, " class"]) -> TeacherTargets:
    columns, own_groups = torch.unique(groups[target.columns], return_inverse=True)
    return replace(target, logits=group_logits(target.logits, own_groups), columns=columns)
