"""What a step would refuse of a network that params.yaml names: found by building it, without its trained weights.

Networks of the zoo take tens of milliseconds each, large ones of timm seconds; what was found is kept for the next
experiment with the same network. The number of classes is known once a dataset is packed, and changes nothing here.
"""

from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from itertools import pairwise

from torch import nn

from edpipe.errors import NetworkError
from edpipe.models.probe import count_outputs
from edpipe.models.splitting.attention_maps import attention_taps
from edpipe.models.splitting.chain import join, map_shapes
from edpipe.models.splitting.split import feature_stages, split
from edpipe.models.splitting.taps import hint_taps
from edpipe.models.students.auxiliary import AttentionMaps
from edpipe.models.students.extra_norm import ExtraNorm
from edpipe.models.students.hint import hint_of
from edpipe.models.students.setting import HintShape, StudentSetting
from edpipe.models.students.zero_start import start_as_shortcuts
from edpipe.models.zoo.build import build_network
from edpipe.models.zoo.names import split_name
from edpipe.params.plans.loss import StageLoss, Stored
from edpipe.params.plans.plan import StagePlan
from edpipe.params.schema import Params
from edpipe.params.soft_labels import StorageKnobs
from edpipe.params.teacher import NetworkKnobs

NUM_CLASSES = 10
"""Of the networks that are built here."""


def student_problems(params: Params, experiment: str, plans: tuple[StagePlan, ...]) -> Iterator[str]:
    """Why the student of an experiment cannot go through all of its stages; nothing if it can."""
    knobs = params.experiments[experiment]
    student, dataset = params.students[knobs.student], params.datasets[knobs.dataset]
    model, sizes = student.model, (dataset.channels, dataset.image_size)
    problem = _input_problem(model, *sizes) or _split_problem(model, dataset.channels, plans[0].num_blocks)
    problem = problem or _small_images_problem(model, *sizes, plans)
    for before, plan in () if problem else pairwise(plans):
        if plan.new_block == "zero":
            problem = problem or _zero_start_problem(model, dataset.channels, before.blocks, plan)
    for plan in () if problem else plans:
        stored = plan.algorithm.stored if plan.teachers else frozenset()
        if plan.own_loss is not None:
            problem = problem or _own_loss_problem(model, *sizes, plan.own_loss)
        if _has_extra_norm(plan, student.reference):
            problem = problem or _extra_norm_problem(model, dataset.channels)
        if Stored.ATTENTION in stored:
            problem = problem or _maps_problem(model, dataset.channels, plan.num_blocks, plan.blocks)
        if Stored.HINT in stored:
            problem = problem or _hint_problem(params, experiment, plan)
    if problem:
        yield f"experiments.{experiment}.student: {problem}"


def teacher_problems(
    teacher: str, network: NetworkKnobs, channels: int, image_size: int, stored: StorageKnobs | None
) -> Iterator[str]:
    """Why a teacher cannot be made, or cannot give what is to be stored of it; nothing if it can.

    Args:
        teacher: its name.
        network: its knobs.
        channels: of the dataset's images.
        image_size: of the dataset's images, pixels.
        stored: how its soft labels are stored; None: they are not.
    """
    side = network.image_size or image_size
    problem = _weights_problem(network) or _input_problem(network.model, channels, side)
    if stored is not None and stored.attention:
        problem = problem or _attention_problem(network.model, channels)
    if stored is not None and stored.hint is not None:
        problem = problem or _hint_stage_problem(network.model, channels, stored.hint.feature_stage)
    if problem:
        yield f"teachers.{teacher}.network: {problem}"


def _has_extra_norm(plan: StagePlan, reference: str) -> bool:
    """Whether the plan's stage trains the authors' last reference."""
    is_whole = plan.blocks == plan.num_blocks > 1
    return is_whole and reference == "authors" and not plan.kept and not plan.algorithm.stored


def _small_images_problem(model: str, channels: int, full: int, plans: tuple[StagePlan, ...]) -> str | None:
    """Why the student cannot learn from images of other sizes: layers that fit one size alone."""
    for plan in plans:
        side = plan.budget.image_size or full
        problem = _input_problem(model, channels, side) if side != full else None
        if problem:
            return f"stage '{plan.name}' has image_size {side}, but its layers fit images of {full} pixels: {problem}"
    return None


def _hint_problem(params: Params, experiment: str, plan: StagePlan) -> str | None:
    """Why the student has no features like the hint of its first teacher."""
    knobs = params.experiments[experiment]
    dataset, hint = params.datasets[knobs.dataset], params.soft_labels[knobs.dataset].storage.hint
    teacher = params.teachers[plan.teachers[0].teacher].network
    if hint is None:
        return None
    student, side = params.students[knobs.student].model, teacher.image_size or dataset.image_size
    shape = _hint_shape(teacher.model, dataset.channels, side, hint.feature_stage, hint.side)
    if shape is None:
        return None  # that is the teacher's problem
    seen = plan.budget.image_size or dataset.image_size
    return _hint_fit_problem(student, dataset.channels, seen, shape)


@lru_cache(maxsize=2)
def _network(model: str, channels: int) -> nn.Module:
    return build_network(model, NUM_CLASSES, channels, 0)


def _problem_of(try_it: Callable[[], object]) -> str | None:
    """What a NetworkError says; None if there is none."""
    try:
        try_it()
    except NetworkError as error:
        return str(error)
    return None


@cache
def _input_problem(model: str, channels: int, side: int) -> str | None:
    return _problem_of(lambda: count_outputs(_network(model, channels), channels, side))


@cache
def _split_problem(model: str, channels: int, num_blocks: int) -> str | None:
    return _problem_of(lambda: split(_network(model, channels), num_blocks))


def _zero_start_problem(model: str, channels: int, before: int, plan: StagePlan) -> str | None:
    """Why the blocks that a stage adds cannot start as shortcuts."""
    network = build_network(model, NUM_CLASSES, channels, 0)  # one of its own, for it is changed
    blocks, _ = split(network, plan.num_blocks)
    return _problem_of(lambda: start_as_shortcuts(network, blocks[before : plan.blocks], before + 1))


def _own_loss_problem(model: str, channels: int, side: int, loss: StageLoss) -> str | None:
    network = _network(model, channels)
    return _problem_of(lambda: loss.trainee(StudentSetting(network, network, channels, side, 0)))


@cache
def _extra_norm_problem(model: str, channels: int) -> str | None:
    return _problem_of(lambda: ExtraNorm(_network(model, channels)))


@cache
def _maps_problem(model: str, channels: int, num_blocks: int, blocks: int) -> str | None:
    """Of a student that learns attention maps with its first `blocks` blocks."""
    network = _network(model, channels)
    return _problem_of(lambda: AttentionMaps(network, join(split(network, num_blocks)[0][:blocks])))


@cache
def _attention_problem(model: str, channels: int) -> str | None:
    def tap() -> None:
        with attention_taps(_network(model, channels)):
            pass

    return _problem_of(tap)


@cache
def _hint_stage_problem(model: str, channels: int, feature_stage: int) -> str | None:
    def tap() -> None:
        with hint_taps(_network(model, channels), feature_stage, 1):
            pass

    return _problem_of(tap)


@cache
def _hint_shape(model: str, channels: int, side: int, feature_stage: int, hint_side: int | None) -> HintShape | None:
    """What the hint of a teacher is; None if it gives none."""
    if _input_problem(model, channels, side) or _hint_stage_problem(model, channels, feature_stage):
        return None
    network = _network(model, channels)
    _, depth, *map_sides = map_shapes(network, feature_stages(network), channels, side)[feature_stage - 1]
    height, width = (min(one, hint_side or one) for one in map_sides)
    return HintShape(feature_stage, hint_side, (depth, height, width))


@cache
def _hint_fit_problem(model: str, channels: int, side: int, shape: HintShape) -> str | None:
    return _problem_of(lambda: hint_of(_network(model, channels), shape, (channels, side), 0))


def _weights_problem(network: NetworkKnobs) -> str | None:
    """Why a library has no weights for a model of its own."""
    name = split_name(network.model)[1]
    if network.source == "timm":
        import timm

        if not timm.is_model_pretrained(name):
            return f"model {network.model!r}: timm has no pretrained weights for it; use another model or train it"
    if network.source == "torchvision" and network.location is not None:
        from torchvision import models

        known = [weights.name for weights in models.get_model_weights(name)]
        if network.location not in known:
            return f"has no weights {network.location!r}; location must be one of {', '.join(known)}"
    return None
