"""Education Distillation (arXiv 2311.13811): one stage for each school level.

Stage k trains body blocks 1..k and teaching reference block k on subsets 1..k (with replay) or k alone, each subset
with its own teacher. What the sources leave open is a knob with its default.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from edpipe.errors import ParamsError
from edpipe.params.base import Knobs
from edpipe.params.partition import ALL_CLASSES, Name
from edpipe.params.plans import level_checks
from edpipe.params.plans.loss import TeacherLoss, Weight
from edpipe.params.plans.method import MOST_STAGES, DistillMethod, MethodSetting
from edpipe.params.plans.parts import WHOLE, Part, follows_training, parts_of
from edpipe.params.plans.plan import StagePlan, TeacherUse, WeightingRule, plain_kd
from edpipe.params.plans.registered import Registered

LevelLoss = Annotated[TeacherLoss, Registered("losses", "kind", only="for_levels")]
Share = Annotated[float, Field(gt=0, le=1)]
_SCHOOL = "Education Distillation: at each school level the student {grows} and learns from that level's teachers;"


class LevelKnobs(Knobs):
    """One level of a school that is not simply one subset and one block."""

    name: Name = Field(description="Of its entry in `stages`; the name of a subset introduces that subset.")
    blocks: Annotated[int, Field(ge=1)] = Field(description="So many body blocks of the student are trained.")


@dataclass(frozen=True)
class _Level:
    """One level as it is in one partition."""

    name: str
    blocks: int
    known: tuple[str, ...]
    """Subsets whose classes have an output."""
    taught: tuple[str, ...]


class Ed(DistillMethod):
    """One stage per school level; the student grows by one block a level, or as `levels` say."""

    summary: ClassVar[str] = _SCHOOL.format(grows="grows by one block")
    takes_specialists: ClassVar[bool] = True

    name: Literal["ed"]
    teacher: Name | None = Field(None, description="One of teachers, in every level; or give teachers.")
    teachers: dict[Name, Annotated[tuple[Name, ...], Field(min_length=1, strict=False)]] | None = Field(
        None, description="Instead of teacher: those of each level, so that a panel can grow with the level."
    )
    levels: Annotated[tuple[LevelKnobs, ...], Field(min_length=1, max_length=MOST_STAGES, strict=False)] | None = Field(
        None,
        description="In order, from few blocks to all of them, the number of the last level. Absent: one level for "
        "each subset of the partition, a block each.",
    )
    teacher_weighting: WeightingRule = Field(
        "aver", description="How several teachers of one sample are weighed against each other."
    )
    distill: LevelLoss = Field(
        default_factory=plain_kd,
        description="How outputs are compared with a teacher's: kd, dkd, dist, at, or a plugin's loss; absent: kd.",
    )
    distill_by_level: dict[Name, LevelLoss] = Field({}, description="The same for single levels.")
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
    easiest: dict[Name, Share] = Field(
        {},
        description="For single levels: the share (above 0, up to 1) of each taught class's samples that is taught, "
        "those which their teachers' stored logits name best (lowest mean cross-entropy). Absent: all.",
    )
    hardest: dict[Name, Share] = Field(
        {}, description="Likewise, those which they name worst. A level has a share of easiest, or of hardest, or none."
    )
    coarse: Annotated[tuple[Name, ...], Field(strict=False)] = Field(
        (),
        description="Levels that learn to tell the subsets apart, not their classes: in the losses, probabilities of a "
        "subset's classes are added up. A partition by confusion makes subsets of classes that look alike.",
    )
    frozen: dict[Name, Annotated[int, Field(ge=1)]] = Field(
        {}, description="For single levels: so many of the first body blocks do not learn any more. Absent: none."
    )
    new_block: Literal["drawn", "zero"] = Field(
        "drawn",
        description="How the blocks start that a level adds. drawn: as drawn; zero: the last normalisation of each "
        "residual unit has scale 0, so that the unit gives its shortcut.",
    )
    fade_in: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="Of a level that adds blocks, the share (0 to 1) over which its logits pass linearly from those of "
        "the reference of the level before to its own. 0: at once.",
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

    @model_validator(mode="after")
    def _fits_together(self) -> "Ed":
        if (self.teacher is None) == (self.teachers is None):
            raise ValueError("give teacher or teachers, exactly one of them")
        for level, teachers in (self.teachers or {}).items():
            if len(set(teachers)) != len(teachers):
                raise ValueError(f"teachers.{level}: teachers must differ, got {list(teachers)}")
        self._check_growth()
        if self.classes == "all" and not self.replay:
            raise ValueError("replay: false has no meaning with classes: all, which teaches everything; remove it")
        if self.references == "replaced" and "reference_weight" in self.model_fields_set:
            raise ValueError("reference_weight belongs to references: kept; remove it")
        kinds = self._kinds()
        if self.normalisation == "full" and kinds != {"kd"}:
            raise ValueError(f"normalisation: full goes with distill kd alone, got {', '.join(sorted(kinds))}")
        return self

    def _check_growth(self) -> None:
        blocks = [level.blocks for level in self.levels or ()]
        names = [level.name for level in self.levels or ()]
        if len(set(names)) != len(names):
            raise ValueError(f"levels: names must differ, got {names}")
        if blocks != sorted(blocks):
            raise ValueError(f"levels: blocks must not become fewer, got {blocks}")

    def teacher_losses(self) -> tuple[TeacherLoss, ...]:
        """Of all levels."""
        return (self.distill, *self.distill_by_level.values())

    def stage_names(self, setting: MethodSetting) -> tuple[tuple[str, ...], str]:
        """The levels."""
        if self.levels is not None:
            return tuple(level.name for level in self.levels), f"those of {setting.path}.levels"
        partition = setting.params.experiments[setting.experiment].partition
        return setting.levels, f"one for each subset of partition '{partition}'"

    def named_teachers(self) -> list[tuple[str, str]]:
        """Of all levels."""
        if self.teachers is None:
            return [("teacher", str(self.teacher))]
        return [(f"teachers.{level}.{i}", t) for level, names in self.teachers.items() for i, t in enumerate(names)]

    def has_shared_schedule(self) -> bool:
        """A carried learning rate, and a loss that changes on the way, make every stage depend on all budgets."""
        return self.rate_schedule == "carried" or any(map(follows_training, self.teacher_losses()))

    def stages(self, setting: MethodSetting) -> tuple[StagePlan, ...]:
        """The school, level by level.

        Raises:
            ParamsError: budgets that cannot be added up, where a rate or a loss goes on from level to level.
        """
        levels, path = self._levels(setting.levels), setting.path
        budgets = [setting.budgets[level.name] for level in levels]
        windows = spans = [WHOLE] * len(levels)
        if self.rate_schedule == "carried":
            windows = parts_of(budgets, f"{path}.rate_schedule", "'carried'")
        if any(map(follows_training, self.teacher_losses())):
            spans = parts_of(budgets, path, "a loss that changes on the way")
        return tuple(
            self._stage(setting, levels[: k + 1], spans[k], budget=budgets[k], window=windows[k])
            for k in range(len(levels))
        )

    def _levels(self, subsets: tuple[str, ...]) -> list[_Level]:
        """All levels, with the subsets that each knows and teaches."""
        given = self.levels or tuple(LevelKnobs(name=name, blocks=k + 1) for k, name in enumerate(subsets))
        levels: list[_Level] = []
        for level in given:
            known = levels[-1].known if levels else ()
            introduced = (level.name,) if level.name in subsets and self.classes == "growing" else ()
            known = subsets if self.classes == "all" else known + introduced
            levels.append(_Level(level.name, level.blocks, known, known if self.replay else introduced or known[-1:]))
        return levels

    def _stage(self, setting: MethodSetting, levels: list[_Level], span: Part, **part: Any) -> StagePlan:
        """The last of these levels; `part` is its budget, and its part of the schedule; `span` of the whole."""
        level, number = levels[-1], len(levels)
        every = self._levels(setting.levels)
        loss = self.distill_by_level.get(level.name, self.distill)
        return StagePlan(
            name=level.name,
            number=number,
            num_stages=len(every),
            blocks=level.blocks,
            num_blocks=every[-1].blocks,
            taught=level.taught,
            known=level.known,
            teachers=self._teachers(level.name, level.taught, setting.specialists),
            teacher_weighting=self.teacher_weighting,
            algorithm=loss,
            normalisation=self.normalisation,
            subset_order=self.subset_order,
            easiest=self.easiest.get(level.name, 1.0),
            hardest=self.hardest.get(level.name, 1.0),
            coarse=level.name in self.coarse,
            frozen=self.frozen.get(level.name, 0),
            span=span if follows_training(loss) else WHOLE,
            **part,
            **self._terms(levels),
            **self._growth(levels),
            **self.loss_weights(loss),
        )

    def _terms(self, levels: list[_Level]) -> dict[str, Any]:
        """Of kept references, and of the student of the level before."""
        is_kept, is_anchored = self.references == "kept", bool(self.anchor_weight) and len(levels) > 1
        # Of levels with as many blocks, the last one's reference is left.
        kept = {level.blocks: level.known for level in levels[:-1] if level.blocks < levels[-1].blocks}
        return {
            "kept": tuple(kept.values()) if is_kept else (),
            "kept_blocks": tuple(kept) if is_kept else (),
            "reference_weight": self.reference_weight if is_kept else 0.0,
            "anchor_weight": self.anchor_weight if is_anchored else 0.0,
            "anchored": levels[-2].known if is_anchored else (),
        }

    def _growth(self, levels: list[_Level]) -> dict[str, Any]:
        """How the blocks come in that the last of these levels adds."""
        if len(levels) == 1 or levels[-2].blocks == levels[-1].blocks:
            return {}
        before = {"fading": levels[-2].known, "fading_blocks": levels[-2].blocks} if self.fade_in else {}
        return {"new_block": self.new_block, "fade_in": self.fade_in, **before}

    def _teachers(self, level: str, taught: tuple[str, ...], specialists: frozenset[str]) -> tuple[TeacherUse, ...]:
        return tuple(
            TeacherUse(teacher=teacher, subset=subset)
            for teacher in self._teachers_of(level)
            for subset in (taught if teacher in specialists else (ALL_CLASSES,))
        )

    def _teachers_of(self, level: str) -> tuple[str, ...]:
        return (self.teacher,) if self.teacher is not None else (self.teachers or {})[level]

    def _kinds(self) -> set[str]:
        return {loss.kind for loss in self.teacher_losses()}

    @classmethod
    def page_text(cls, name: str, plans: tuple[StagePlan, ...]) -> str:
        """How the student grows, and whether classes arrive with the levels."""
        blocks, arrives = [plan.blocks for plan in plans], len({plan.known for plan in plans}) > 1
        is_plain = blocks == list(range(1, len(blocks) + 1))
        grows = "grows by one block" if is_plain else f"has its first {', '.join(map(str, blocks))} blocks"
        classes = "classes arrive with the levels" if arrives else "all classes are there from the start"
        return f"{_SCHOOL.format(grows=grows)} {classes}."

    def check(self, setting: MethodSetting) -> None:
        """That levels, students, teachers and views fit the school.

        Raises:
            ParamsError: they do not.
        """
        self._check_levels(setting)
        self._check_authors(setting)
        self._check_weighting(setting)
        self._check_mixing(setting)
        level_checks.check_anchor(setting, self.anchor_weight)
        level_checks.check_shares(setting, {"easiest": self.easiest, "hardest": self.hardest})
        levels = {level.name: level for level in self._levels(setting.levels)}
        blocks = {name: level.blocks for name, level in levels.items()}
        level_checks.check_new_blocks(setting, tuple(blocks.values()), self.new_block, self.fade_in)
        level_checks.check_frozen(setting, blocks, self.frozen)
        taught = {name: levels[name].taught for name in self.coarse}
        level_checks.check_coarse(
            setting, list(levels)[-1], taught, {name: self._teachers_of(name) for name in self.coarse}
        )

    def _check_levels(self, setting: MethodSetting) -> None:
        levels, path = tuple(level.name for level in self._levels(setting.levels)), setting.path
        self._check_subsets(setting)
        if self.teachers is not None and set(self.teachers) != set(levels):
            raise ParamsError(f"{path}.teachers: needs exactly {list(levels)}, got {list(self.teachers)}")
        for knob in ("distill_by_level", "easiest", "hardest", "coarse", "frozen"):
            level_checks.check_known(f"{path}.{knob}", getattr(self, knob), levels)

    def _check_subsets(self, setting: MethodSetting) -> None:
        """That the levels introduce all subsets, at least one in the first, and all before the student is whole."""
        levels, path, subsets = self._levels(setting.levels), f"{setting.path}.levels", setting.levels
        if not levels[0].known:
            raise ParamsError(
                f"{path}.0.name: '{levels[0].name}' is no subset, so the first level would have no class; name one of "
                f"{', '.join(subsets)}, or set classes: all"
            )
        for k, level in enumerate(levels):
            missing = [subset for subset in subsets if subset not in level.known]
            if level.blocks == levels[-1].blocks and missing:
                raise ParamsError(
                    f"{path}.{k}: '{level.name}' has all {level.blocks} blocks, so all classes must be known, but "
                    f"'{missing[0]}' is not introduced; name a level after it, at the latest this one, or set "
                    "classes: all"
                )

    def _check_authors(self, setting: MethodSetting) -> None:
        """That the last level, with its additional BN, has nothing else beside it."""
        student = setting.params.students[setting.params.experiments[setting.experiment].student]
        watches = any(loss.stored for loss in self.teacher_losses())
        if student.reference == "authors" and (self.references == "kept" or watches):
            raise ParamsError(
                f"{setting.path}: a student whose reference is 'authors' goes with references: replaced and without "
                f"at, got references {self.references}, distill {', '.join(sorted(self._kinds()))}; use reference: "
                "adapter"
            )
        blocks = [level.blocks for level in self._levels(setting.levels)]
        if student.reference == "authors" and len(set(blocks)) < len(blocks):
            raise ParamsError(
                f"{setting.path}.levels: a student whose reference is 'authors' grows in every level, got blocks "
                f"{blocks}; use reference: adapter"
            )

    def _check_weighting(self, setting: MethodSetting) -> None:
        for _, teacher in self.named_teachers() if self.teacher_weighting != "aver" else ():
            partition = setting.params.teachers[teacher].partition
            if partition is not None:
                raise ParamsError(
                    f"{setting.path}.teacher_weighting: '{self.teacher_weighting}' weighs teachers of the same "
                    f"classes, but '{teacher}' knows only subsets of partition '{partition}'; "
                    f"use aver, or teachers whose partition is absent"
                )

    def _check_mixing(self, setting: MethodSetting) -> None:
        """That no mixed image shows a class that is not taught yet."""
        dataset = setting.params.experiments[setting.experiment].dataset
        if setting.params.soft_labels[dataset].space.mixing is None or self.classes != "growing":
            return
        for where, teacher in self.named_teachers():
            if setting.params.teachers[teacher].partition is None:
                raise ParamsError(
                    f"{setting.path}.{where}: '{teacher}' knows all classes, so soft_labels.{dataset}.space.mixing "
                    "would mix images with those of classes not taught yet; name a teacher that has a partition, or "
                    "remove mixing"
                )
