"""What a curriculum is: an ordered list of stages, each saying what is taught, by whom, and with which loss."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from edpipe.params.base import Knobs
from edpipe.params.partition import ALL_CLASSES
from edpipe.params.plans.loss import StageLoss, TeacherLoss, UnknownLoss, UnknownStageLoss
from edpipe.params.plans.registered import Registered
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import StudentViews
from edpipe.params.stage import StageKnobs
from edpipe.params.student import StudentKnobs

WeightingRule = Literal["aver", "ebkd", "aekd", "ca_mkd"]
WHOLE_BATCH_RULES = ("aekd",)
"""Rules that compare the samples of a batch with each other."""


def plain_kd() -> TeacherLoss:
    """The loss of Hinton et al. (2015), with its defaults."""
    from edpipe.params.plans.plugins import loss_class

    return loss_class("kd").model_validate({"kind": "kd"})


class TeacherUse(Knobs):
    """One file of soft labels: a teacher, and the subset it teaches ("all" = every class)."""

    teacher: str
    subset: str


class TrajectoryUse(Knobs):
    """What a teacher of all classes said while it learnt beside a student of the same seed."""

    teacher: str


class StagePlan(Knobs):
    """One stage: which form of the student, which subsets, which soft labels, which loss, for how long."""

    name: str = Field(description="Of the stage; in ed also of the subset that it introduces.")
    number: int = Field(description="From 1, in the order of stages.")
    num_stages: int = Field(description="So many stages there are.")
    blocks: int = Field(1, description="The student has its first `blocks` body blocks.")
    num_blocks: int = Field(1, description="Into so many body blocks the student is split.")
    taught: Annotated[tuple[str, ...], Field(strict=False)] = Field(description="Subsets whose samples are seen.")
    known: Annotated[tuple[str, ...], Field(strict=False)] = Field(description="Subsets whose classes have an output.")
    teachers: Annotated[tuple[TeacherUse, ...], Field(strict=False)] = Field((), description="Empty: labels alone.")
    teacher_weighting: WeightingRule = Field("aver", description="How several teachers of one sample are weighed.")
    algorithm: Annotated[TeacherLoss, Registered("losses", "kind", unknown=UnknownLoss)] = Field(
        default_factory=plain_kd, description="How outputs are compared with a teacher's."
    )
    temperature: float = 1.0
    task_weight: float = 1.0
    distill_weight: float = Field(0.0, description="Of each sample's distillation loss.")
    label_smoothing: float = 0.0
    normalisation: Literal["slice", "full"] = "slice"
    kept: Annotated[tuple[tuple[str, ...], ...], Field(strict=False)] = Field(
        (), description="Of each earlier reference that is taught on: the subsets whose classes it has an output for."
    )
    kept_blocks: Annotated[tuple[int, ...], Field(strict=False)] = Field(
        (), description="Of each of them: behind so many body blocks it stands."
    )
    reference_weight: float = Field(0.0, description="Of each kept reference's loss.")
    anchor_weight: float = Field(0.0, description="Of the kd loss against the student of the stage before.")
    anchored: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="Subsets whose classes that student knew."
    )
    subset_order: Literal["mixed", "sequential"] = "mixed"
    easiest: float = Field(1.0, description="Share of each taught class's samples that is seen, the easiest ones.")
    hardest: float = Field(1.0, description="Likewise, the hardest ones; one of the two is 1.")
    coarse: bool = Field(False, description="Losses compare subsets: probabilities of a subset's classes are added up.")
    frozen: int = Field(0, description="So many of the first body blocks do not learn.")
    new_block: Literal["drawn", "zero"] = Field(
        "drawn", description="zero: residual units of blocks that are new in this stage start as their shortcuts."
    )
    fade_in: float = Field(0.0, description="Share of the stage in which logits pass from the reference before to own.")
    fading: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="Subsets whose classes that reference has an output for; empty: nothing fades."
    )
    fading_blocks: int = Field(0, description="It stands behind so many body blocks; 0: nothing fades.")
    trajectory: TrajectoryUse | None = Field(None, description="A teacher that learns beside the student, replayed.")
    own_loss: Annotated[StageLoss, Registered("stage_losses", "kind", unknown=UnknownStageLoss)] | None = Field(
        None, description="The loss of a method that is no sum of label loss and teachers' losses."
    )
    budget: StageKnobs
    window: Annotated[tuple[float, float], Field(strict=False)] = Field(
        (0.0, 1.0), description="Which part of the learning-rate schedule the stage runs through."
    )
    span: Annotated[tuple[float, float], Field(strict=False)] = Field(
        (0.0, 1.0), description="Which part of the whole training it is, for losses that change on the way."
    )


def all_subsets(name: str, budget: StageKnobs, **given: object) -> StagePlan:
    """A stage of a method without school levels, the only one if nothing else is given: whole student, all classes."""
    everything = (ALL_CLASSES,)
    only = {"name": name, "number": 1, "num_stages": 1, "taught": everything, "known": everything, "budget": budget}
    return StagePlan.model_validate(only | given)


@dataclass(frozen=True)
class StageJobKnobs:
    """Knobs of one stage of one student."""

    plan: StagePlan
    student: StudentKnobs
    recipe: RecipeKnobs
    views: StudentViews


def knobs_as_now(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs in a record, in today's words; only those of stages have changed."""
    if "plan" not in knobs:
        return dict(knobs)
    found = {**knobs, "plan": plan_as_now(knobs["plan"])}
    models = {"student": StudentKnobs, "recipe": RecipeKnobs}
    return found | {name: _with_defaults(model, knobs[name]) for name, model in models.items() if name in knobs}


def plan_as_now(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The plan in a record, in today's words.

    What a record does not name yet has its default, which therefore has to mean "as before". Before stages and blocks
    were counted apart, stage k had k of as many blocks as there were stages.
    """
    found = _without_fields_of_methods(plan)
    if "blocks" not in found:
        found |= {"blocks": found["number"], "num_blocks": found["num_stages"]}
        found["kept_blocks"] = list(range(1, len(found["kept"]) + 1))
    return _with_defaults(StagePlan, found)


def _with_defaults(model: type[Knobs], recorded: Mapping[str, Any]) -> dict[str, Any]:
    """With what the record does not name; as it is if it is not of this edpipe's kind."""
    try:
        # As JSON, where lists are tuples.
        return model.model_validate_json(json.dumps(dict(recorded))).model_dump(mode="json")
    except ValidationError:
        return dict(recorded)


def _without_fields_of_methods(plan: Mapping[str, Any]) -> dict[str, Any]:
    """edpipe before plugins had fields for two methods of its own.

    >>> _without_fields_of_methods({"teskd": None, "attention_weight": 0.0, "trajectory": None})
    {'trajectory': None, 'own_loss': None}
    """
    if "teskd" not in plan:
        return dict(plan)
    kept = {name: value for name, value in plan.items() if name not in ("teskd", "attention_weight")}
    own_loss = None
    if plan["teskd"] is not None:
        own_loss = {"kind": "teskd", **plan["teskd"]}
    elif plan["trajectory"] is not None:
        own_loss = {"kind": "ctkd", "attention_weight": plan["attention_weight"]}
    return {**kept, "own_loss": own_loss}
