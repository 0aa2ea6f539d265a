"""Knobs of `experiments:`: a student, a method, a budget, seeds."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edpipe.params.base import Knobs
from edpipe.params.distill import PLAIN_KD, DistWeights, DkdWeights, SchoolAlgorithm
from edpipe.params.partition import Name
from edpipe.params.stage import StageKnobs


class CeKnobs(Knobs):
    """Cross-entropy with the labels alone."""

    name: Literal["ce"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of the label given to all classes."
    )


Weight = Annotated[float, Field(ge=0, le=1e9)]


class DistillKnobs(Knobs):
    """How a student weighs labels against its teachers."""

    temperature: Annotated[float, Field(gt=0)] = Field(4.0, description="Divides the logits before softmax.")
    task_weight: Weight = Field(0.3, description="Weight of the task loss. 0.3 is the ED code's value.")
    distill_weight: Weight | None = Field(
        None, description="Weight of the distillation loss; absent: 1 - task_weight, of at 1000, of fitnet 100."
    )

    @model_validator(mode="after")
    def _rest_is_positive(self) -> "DistillKnobs":
        if self.distill_weight is None and self.task_weight >= 1 and not self._has_own_weight():
            raise ValueError(f"task_weight {self.task_weight:g} leaves nothing for the teacher; give distill_weight")
        return self

    def _has_own_weight(self) -> bool:
        """Whether an absent distill_weight is something else than the rest."""
        return False


class SingleTeacherKnobs(DistillKnobs):
    """One stage, all classes, one teacher of all classes."""

    teacher: Name = Field(description="One of teachers.")


class KdKnobs(SingleTeacherKnobs):
    """Knowledge distillation: divergence of the softened softmaxes."""

    name: Literal["kd"]


class LogitStdKnobs(SingleTeacherKnobs):
    """kd of standardised logits, with its authors' weights."""

    name: Literal["logit_std"]
    temperature: Annotated[float, Field(gt=0)] = Field(2.0, description="Divides the standardised logits.")
    task_weight: Weight = Field(0.1, description="Weight of the task loss.")
    distill_weight: Weight = Field(9.0, description="Weight of the distillation loss.")


class DkdKnobs(SingleTeacherKnobs, DkdWeights):
    """Decoupled knowledge distillation."""

    name: Literal["dkd"]
    task_weight: Weight = Field(1.0, description="Weight of the task loss.")
    distill_weight: Weight = Field(1.0, description="Weight of the distillation loss.")


class DistKnobs(SingleTeacherKnobs, DistWeights):
    """DIST: correlation over classes and over the batch."""

    name: Literal["dist"]
    task_weight: Weight = Field(1.0, description="Weight of the task loss.")
    distill_weight: Weight = Field(1.0, description="Weight of the distillation loss.")


class FeatureKnobs(SingleTeacherKnobs):
    """at, fitnet: what the teacher sees instead of what it says; soft labels must hold it."""

    name: Literal["at", "fitnet"] = Field(description="at: attention maps; fitnet: the features of one stage.")
    task_weight: Weight = Field(1.0, description="Weight of the task loss.")

    def _has_own_weight(self) -> bool:
        return True


def _check_teachers_differ(where: str, teachers: tuple[str, ...]) -> None:
    if len(set(teachers)) != len(teachers):
        raise ValueError(f"{where}: teachers must differ, got {list(teachers)}")


WeightingRule = Literal["aver", "ebkd", "aekd", "ca_mkd"]


class MultiTeacherKnobs(DistillKnobs):
    """One stage, several teachers of all classes; the weights of each sample's teachers add up to 1."""

    name: WeightingRule = Field(description="How the teachers of one sample are weighed against each other.")
    teachers: Annotated[tuple[Name, ...], Field(min_length=1, strict=False)] = Field(
        description="Some of teachers, each of all classes."
    )
    task_weight: Weight = Field(1.0, description="Weight of the task loss. 1 is the CA-MKD code's value.")
    distill_weight: Weight = Field(1.0, description="Weight of the distillation loss, likewise.")

    @model_validator(mode="after")
    def _teachers_differ(self) -> "MultiTeacherKnobs":
        _check_teachers_differ("teachers", self.teachers)
        return self


class EdKnobs(DistillKnobs):
    """One stage per school level; the student grows by one block a level."""

    name: Literal["ed"]
    teacher: Name | None = Field(None, description="One of teachers, in every level; or give teachers.")
    teachers: dict[Name, Annotated[tuple[Name, ...], Field(min_length=1, strict=False)]] | None = Field(
        None, description="Instead of teacher: those of each level, so that a panel can grow with the level."
    )
    teacher_weighting: WeightingRule = Field(
        "aver", description="How several teachers of one sample are weighed against each other."
    )
    distill: SchoolAlgorithm = Field(
        PLAIN_KD, description="How outputs are compared with a teacher's: kd, dkd, dist or at."
    )
    distill_by_level: dict[Name, SchoolAlgorithm] = Field({}, description="The same for single levels.")
    classes: Literal["growing", "all"] = Field(
        "growing", description="growing: each level adds its subset; all: every level teaches and knows all classes."
    )
    replay: bool = Field(True, description="true: level k teaches subsets 1..k; false: subset k alone.")
    subset_order: Literal["mixed", "sequential"] = Field(
        "mixed", description="Order within an epoch: all subsets shuffled together, or one after the other."
    )
    normalisation: Literal["slice", "full"] = Field(
        "slice", description="Student's softmax in the kd loss: over the teacher's classes, or over all taught classes."
    )
    easiest: dict[Name, Annotated[float, Field(gt=0, le=1)]] = Field(
        {},
        description="For single levels: the share (above 0, up to 1) of each taught class's samples that is taught, "
        "those which their teachers' stored logits name best (lowest mean cross-entropy). Absent: all.",
    )
    rate_schedule: Literal["restarted", "carried"] = Field(
        "restarted", description="restarted: each stage runs the whole schedule; carried: one schedule over all stages."
    )
    references: Literal["replaced", "kept"] = Field(
        "replaced", description="Earlier levels' reference blocks: dropped, or taught on beside the student."
    )
    reference_weight: Weight = Field(0.3, description="kept only: weight of each earlier reference's loss.")
    anchor_weight: Weight = Field(
        0.0, description="Weight of a kd loss against the student of the level before, on the classes it knew."
    )

    def _has_own_weight(self) -> bool:
        return {self.distill.kind, *(algorithm.kind for algorithm in self.distill_by_level.values())} == {"at"}

    @model_validator(mode="after")
    def _one_way_of_teachers(self) -> "EdKnobs":
        if (self.teacher is None) == (self.teachers is None):
            raise ValueError("give teacher or teachers, exactly one of them")
        for level, teachers in (self.teachers or {}).items():
            _check_teachers_differ(f"teachers.{level}", teachers)
        if self.classes == "all" and not self.replay:
            raise ValueError("replay: false has no meaning with classes: all, which teaches everything; remove it")
        if self.references == "replaced" and "reference_weight" in self.model_fields_set:
            raise ValueError("reference_weight belongs to references: kept; remove it")
        kinds = {self.distill.kind, *(algorithm.kind for algorithm in self.distill_by_level.values())}
        if self.normalisation == "full" and kinds != {"kd"}:
            raise ValueError(f"normalisation: full goes with distill kd alone, got {', '.join(sorted(kinds))}")
        return self


class TeskdWeightKnobs(Knobs):
    """How the terms of TESKD's loss are weighed; the defaults are those of its authors' code."""

    temperature: Annotated[float, Field(gt=0)] = Field(4.0, description="Divides the logits of the kd loss.")
    task_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.2, description="Of the sum of all cross-entropies; the kd losses of the students get the rest."
    )
    feature_weight: Weight = Field(1e-7, description="Of the squared distances of the students' features.")
    detach_target: bool = Field(
        False, description="true: the kd loss teaches the students alone; false, as in the code: the network as well."
    )
    feature_reduction: Literal["sum", "mean"] = Field(
        "sum", description="Over the samples of a batch; sum, as in the code, makes it grow with the batch size."
    )


class TeskdKnobs(TeskdWeightKnobs):
    """TESKD (arXiv 2110.00329): one stage, no teacher; students on the network's own stages help it to learn."""

    name: Literal["teskd"]


class CtkdKnobs(DistillKnobs):
    """CTKD (arXiv 1907.09643): one stage; a teacher that learns beside the student, and an expert's attention maps."""

    name: Literal["ctkd"]
    scratch: Name = Field(
        description="One of teachers, of source train and all classes: it learns on what the student sees, and what it "
        "says on its way is recorded, once for each seed."
    )
    expert: Name | None = Field(
        None, description="One of teachers, of all classes, whose attention maps are stored; absent only without them."
    )
    task_weight: Weight = Field(1.0, description="Weight of the task loss.")
    distill_weight: Weight = Field(
        1.0, description="Weight of the kd loss against the scratch teacher; assumed, the paper's value is not known."
    )
    attention_weight: Weight = Field(
        1000.0, description="Weight of the expert's attention maps, that of the attention-transfer code; 0: no expert."
    )

    @model_validator(mode="after")
    def _has_its_expert(self) -> "CtkdKnobs":
        if self.expert is None and self.attention_weight > 0:
            raise ValueError(
                f"attention_weight {self.attention_weight:g} needs an expert; name one of teachers, or set it to 0"
            )
        return self


Method = Annotated[
    CeKnobs
    | KdKnobs
    | LogitStdKnobs
    | DkdKnobs
    | DistKnobs
    | FeatureKnobs
    | MultiTeacherKnobs
    | EdKnobs
    | TeskdKnobs
    | CtkdKnobs,
    Field(discriminator="name"),
]


class ExperimentKnobs(Knobs):
    """One named line of the study: results/<experiment>.json."""

    dataset: Name = Field(description="One of datasets.")
    partition: Name = Field(description="One of partitions; accuracy is reported per subset, whatever the method.")
    student: Name = Field(description="One of students.")
    method: Method = Field(description="How the student learns.")
    recipe: Name = Field(description="One of recipes.")
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1, strict=False)] = Field(
        description="One student is trained for each."
    )
    stages: dict[Name, StageKnobs] = Field(
        description="ed: one entry for each subset of the partition; other methods: one entry, named 'only'."
    )

    @model_validator(mode="after")
    def _seeds_differ(self) -> "ExperimentKnobs":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must differ, got {list(self.seeds)}")
        return self


@dataclass(frozen=True)
class ResultKnobs:
    """Knobs of one result."""

    seeds: tuple[int, ...]
    method: str
    """Its name."""
