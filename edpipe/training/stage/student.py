"""The student at the start of a stage: built, grown from the stage before, and with what only its training needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edpipe.errors import (
    MismatchError,
    MissingRowsError,
)
from edpipe.models.macs import count_macs, count_training_macs
from edpipe.models.splitting.chain import Tap, join
from edpipe.models.students.auxiliary import AuxiliaryStudent, earlier_references, inherit_references
from edpipe.models.students.extra_norm import ExtraNorm
from edpipe.models.students.setting import HintShape, StudentSetting
from edpipe.models.students.student import Student, grow, student_weights
from edpipe.models.students.zero_start import start_as_shortcuts
from edpipe.models.zoo.build import build_network
from edpipe.params.plans.loss import Stored
from edpipe.params.plans.plan import StageJobKnobs, StagePlan, knobs_as_now
from edpipe.storage.weights import read_weights
from edpipe.training.schedule import ImageMacs
from edpipe.training.stage.inputs import StageFiles
from edpipe.training.stage.task import StageTask


def build_student(seed: int, knobs: StageJobKnobs, files: StageFiles, task: StageTask) -> tuple[Student, nn.Module]:
    """The student at the start of the stage, and what is trained: it, or it with what only its training needs."""
    network = build_network(knobs.student.model, task.dataset.num_classes, task.dataset.channels, seed)
    if files.previous is None:
        return _with_auxiliaries(network, knobs, task, None)
    weights, record = read_weights(files.previous)
    _check_previous(files.previous, record, task)
    task.previous_digest = record["weights_digest"]
    before = Previous(weights, knobs_as_now(record["knobs"])["plan"]["blocks"])
    if knobs.plan.anchor_weight:
        task.predecessor = _predecessor(seed, knobs, before, task)
    return _with_auxiliaries(network, knobs, task, before)


@dataclass(frozen=True)
class Previous:
    """The student after the stage before."""

    weights: Mapping[str, Tensor]
    blocks: int
    """Body blocks that it has."""


def _check_previous(path: Path, record: Mapping[str, Any], task: StageTask) -> None:
    wanted = {"dataset": task.dataset.digest, "partition": task.partition.digest}
    if {name: record["inputs"][name] for name in wanted} != wanted:
        raise MismatchError(f"{path}: was taught from another dataset or partition; run the stages again")


def _with_auxiliaries(
    network: nn.Module, knobs: StageJobKnobs, task: StageTask, before: Previous | None
) -> tuple[Student, nn.Module]:
    plan, channels = knobs.plan, task.dataset.channels
    earlier = _earlier_references(network, knobs, task)
    student = _student_of(network, knobs, task, plan.blocks, len(task.known_class_ids))
    if before is not None:
        _inherit(student, network, plan, before)
    hint = _hint_shape(task) if Stored.HINT in plan.algorithm.stored else None
    setting = StudentSetting(network, student, channels, task.image_size, task.seed, hint)
    own = None if plan.own_loss is None else plan.own_loss.trainee(setting)
    if own is not None:
        return student, own
    side = plan.algorithm.side_module(setting) if plan.teachers else None
    is_whole = plan.blocks == plan.num_blocks > 1
    if is_whole and knobs.student.reference == "authors" and not earlier and side is None:
        return student, ExtraNorm(network)
    if not earlier and side is None:
        return student, student
    auxiliary = AuxiliaryStudent(student, side, earlier, len(plan.kept))
    if earlier and before is not None:
        inherit_references(before.weights, auxiliary, is_new_last=before.blocks < plan.blocks)
    return student, auxiliary


def _inherit(student: Student, network: nn.Module, plan: StagePlan, before: Previous) -> None:
    """Takes over what was learnt; new blocks start as the plan says, and frozen ones stop learning."""
    grow(student_weights(before.weights), student, before.blocks)
    if plan.new_block == "zero":
        start_as_shortcuts(network, student.blocks[before.blocks :], before.blocks + 1)
    if plan.frozen:
        student.freeze(plan.frozen)


def _student_of(network: nn.Module, knobs: StageJobKnobs, task: StageTask, level: int, num_outputs: int) -> Student:
    dataset = task.dataset
    return Student(
        network,
        level,
        knobs.plan.num_blocks,
        num_outputs,
        knobs.student.reference,
        task.image_size,
        dataset.channels,
        task.seed,
    )


def _earlier_references(network: nn.Module, knobs: StageJobKnobs, task: StageTask) -> Sequence[tuple[Tap, nn.Module]]:
    """Those that are taught on, and the one that fades out, which is the last of these if it is kept."""
    plan = knobs.plan
    outputs = dict(zip(plan.kept_blocks, (len(columns) for columns in task.kept_columns), strict=True))
    if plan.fading:
        outputs[plan.fading_blocks] = len(task.fading_columns)
    if not outputs:
        return []
    sizes = task.dataset.channels, task.image_size
    return earlier_references(network, plan.num_blocks, knobs.student.reference, outputs, sizes, task.seed)


def _hint_shape(task: StageTask) -> HintShape:
    """Of the first teacher's stored hint.

    Raises:
        MissingRowsError: the soft labels hold no hints.
    """
    store = task.teachers[0].labels.store
    hint = store.hint_shape
    if hint is None:
        raise MissingRowsError(f"{store.files[0].path}: holds no hint; dump it with storage.hint.feature_stage")
    return HintShape(hint.feature_stage, hint.side, (hint.channels, hint.height, hint.width))


def _predecessor(seed: int, knobs: StageJobKnobs, previous: Previous, task: StageTask) -> nn.Module:
    """The student of the stage before, which no longer changes."""
    dataset = task.dataset
    network = build_network(knobs.student.model, dataset.num_classes, dataset.channels, seed)
    before = _student_of(network, knobs, task, previous.blocks, len(task.anchored_columns))
    before.load(student_weights(previous.weights))
    before.to(task.batches.device).to(memory_format=torch.channels_last)
    return before.eval().requires_grad_(False)


def weights_to_keep(plan: StagePlan, student: Student, trainee: nn.Module) -> dict[str, Tensor]:
    """What the stage's file holds: earlier references go on to the next stage, after the last they are dropped."""
    is_last = plan.number == plan.num_stages
    is_more = isinstance(trainee, ExtraNorm) or (isinstance(trainee, AuxiliaryStudent) and not is_last)
    return trainee.weights() if is_more else student.weights()  # type: ignore[operator]


def training_macs(student: Student, trainee: nn.Module, task: StageTask) -> ImageMacs:
    """Multiply-accumulates of one image's way through everything that is trained or asked online."""
    dataset, sizes = task.dataset, (task.dataset.channels, task.image_size)
    before = 0 if task.predecessor is None else count_macs(task.predecessor, *sizes)
    num_frozen = task.knobs.plan.frozen
    frozen = join(student.blocks[:num_frozen]) if num_frozen else None
    own = count_training_macs(trainee, *sizes, frozen) + before
    if task.knobs.plan.budget.compute is None:
        return ImageMacs(own, own)
    whole = build_network(task.knobs.student.model, dataset.num_classes, dataset.channels, 0)
    return ImageMacs(own, count_training_macs(whole, dataset.channels, dataset.image_size))
