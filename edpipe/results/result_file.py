"""results/<experiment>.json: what is in it, and a reader that refuses anything else.

The models are the format: docs/result.schema.json is generated from them, docs/result.md explains every key.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from edpipe.errors import CorruptFileError, remake
from edpipe.params.base import Knobs
from edpipe.params.plans.plan import StagePlan, plan_as_now
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import StudentViews
from edpipe.params.student import StudentKnobs
from edpipe.results.measures.cost import duration
from edpipe.results.measures.metrics import Spread
from edpipe.results.recomputed import check_summed_up
from edpipe.storage.digests import digest_json
from edpipe.storage.records import check_seal, read_json_object, without_seal

RESULT_FORMAT = "edpipe-result"
RESULT_FORMAT_VERSION = 5
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Versions = dict[str, str]
CodeVersions = dict[
    Annotated[str, Field(pattern=r"^[a-z]+\.[a-z0-9_]+$")], Annotated[str, Field(pattern=r"^\d+(\+[0-9a-f]{16})?$")]
]


class SubsetClasses(Knobs):
    """One subset of the partition."""

    name: str = Field(description="As in params.yaml.")
    class_ids: tuple[Count, ...] = Field(strict=False, description="Rows of data.class_names; ascending.")


class DataFacts(Knobs):
    """What the students were measured on."""

    dataset: str = Field(description="Name in params.yaml.")
    class_names: tuple[str, ...] = Field(strict=False, description="In order of class number.")
    test_samples_by_class: tuple[Count, ...] = Field(
        strict=False, description="Images of the test split, for each class."
    )
    subsets: tuple[SubsetClasses, ...] = Field(strict=False, description="In the order in which they are taught.")


class Setup(Knobs):
    """What was trained; the same for all seeds, with all defaults filled in."""

    student: StudentKnobs = Field(description="The network that is kept.")
    recipe: RecipeKnobs = Field(description="How weights are fitted, but in the stages below.")
    stage_recipes: dict[str, RecipeKnobs] = Field(
        {}, description="Of stages with another recipe than the last one, by name; absent: there are none."
    )
    views: StudentViews = Field(description="Which augmented versions of an image were seen.")
    stages: tuple[StagePlan, ...] = Field(strict=False, description="The curriculum, in order.")

    @property
    def recipes(self) -> tuple[RecipeKnobs, ...]:
        """Of each stage, in order."""
        return tuple(self.stage_recipes.get(plan.name, self.recipe) for plan in self.stages)


class SoftLabelUse(Knobs):
    """One teacher's soft labels that a stage learnt from."""

    teacher: str = Field(description="Name in params.yaml.")
    subset: str = Field(description="Which classes it knows; 'all': every class.")
    digests: tuple[str, ...] = Field(strict=False, description="Of each file of stored soft labels.")
    teacher_digest: str = Field(description="Of the teacher's weights.")
    teacher_forwards: Count = Field(description="Images that went through the teacher to make the files.")
    kl_bound: Annotated[float, Field(ge=0)] | None = Field(
        description="What rounding the logits can cost at most, at the stage's temperature, nats; null: sampled rows, "
        "an estimate without a bound."
    )


class StageOutcome(Knobs):
    """The student of one seed after one stage."""

    name: str = Field(description="Of the stage.")
    number: Annotated[int, Field(ge=1)] = Field(description="From 1.")
    top1_by_subset: dict[str, Share | None] = Field(
        description="Top1 on each subset's test images among the classes that the student knows; null: not known yet."
    )
    images_seen: Count = Field(description="Training images, repeats counted.")
    images_with_teacher: Count = Field(description="Those of them that also had a teacher's logits.")
    taught_samples: Count = Field(description="Different training images.")
    final_loss: float = Field(description="Mean of the last tenth of the iterations; nats.")
    parameters: Count = Field(description="Of this stage's student, its reference included.")
    macs: Count = Field(description="Multiply-accumulates of one image's forward pass.")
    training_macs: Count = Field(description="Of all images seen; a backward pass counts as two forward passes.")
    soft_labels: tuple[SoftLabelUse, ...] = Field(strict=False, description="Empty: labels alone.")
    weights_digest: Digest = Field(description="Of the student's weights.")
    code: CodeVersions = Field(description="By unit: versions of the code that trained it.")
    versions: Versions = Field(description="Of the libraries that trained it.")
    adopted: dict[str, Any] | None = Field(
        None, description="What `edpipe adopt` compared when other code took it over; absent: nothing took it over."
    )


class Metrics(Knobs):
    """The last student of one seed on the whole test split, but for val_top1 and val_samples."""

    top1: Share = Field(description="Share of test images whose class comes first.")
    top5: Share = Field(description="Share of test images whose class is among the first five.")
    test_samples: Annotated[int, Field(ge=1)] = Field(description="Images of the test split.")
    ece: Share = Field(description="Expected calibration error, 15 bins.")
    val_top1: Share | None = Field(description="Top1 on the validation split; null: it has no image.")
    val_samples: Count = Field(description="Images of the validation split.")
    agreement: dict[str, Share | None] = Field(
        description="For each teacher, as teacher/subset: share of the test images of its classes on which the "
        "student, among these classes, names the one that the teacher names; null: no such image."
    )
    top1_by_class: tuple[Share | None, ...] = Field(strict=False, description="null: no test image of this class.")
    forgetting: dict[str, Annotated[float, Field(ge=-1, le=1)] | None] = Field(
        description="For each subset: best top1 after an earlier stage minus top1 after the last; null: taught last."
    )
    backward_transfer: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        description="Mean over earlier subsets of top1 after the last stage minus when first taught; null: one stage."
    )


class TeacherOutcome(Knobs):
    """One teacher whose soft labels some stage learnt from, on the test images of the classes that it knows."""

    top1: Share | None = Field(description="Among its own classes; null: no such image.")
    ece: Share | None = Field(description="Expected calibration error, 15 bins; null: no such image.")
    test_samples: Count = Field(description="Test images of its classes.")


class SeedOutcome(Knobs):
    """One seed."""

    seed: Count = Field(description="As in params.yaml.")
    metrics: Metrics = Field(description="Of the last student.")
    stages: tuple[StageOutcome, ...] = Field(strict=False, description="In order.")
    code: CodeVersions = Field(description="By unit: versions of the code that measured it.")
    versions: Versions = Field(description="Of the libraries that measured it.")


class Summary(Knobs):
    """Over seeds: mean, sample standard deviation, 95 % interval of Student's t; null where there is one seed."""

    top1: Spread
    top5: Spread
    ece: Spread
    val_top1: Spread | None = Field(None, description="Absent without validation images.")
    agreement: dict[str, Spread] = Field(description="For each teacher; empty without teachers.")
    backward_transfer: Spread | None = Field(None, description="Absent with one stage.")
    forgetting: dict[str, Spread] = Field(description="Of the subsets that an earlier stage taught.")


class Budget(Knobs):
    """What the experiment used, counted; images, compute and sizes for one seed, teacher forwards over all seeds."""

    images_seen: Count = Field(description="Training images of one seed, repeats counted.")
    training_macs: Count = Field(description="Multiply-accumulates of one seed's training, teachers not counted.")
    student_parameters: Count = Field(description="Of the student that is kept.")
    student_macs: Count = Field(description="Multiply-accumulates of its forward pass on one image.")
    teacher_forwards_spent: Count = Field(description="Images through teachers to make the soft labels, once.")
    teacher_forwards_online: Count = Field(description="Images that teachers would have seen without a store.")
    teacher_forwards_saved: int = Field(description="online - spent; negative until enough students share the store.")


class Taken(Knobs):
    """What making some artifacts took; null where no figures are known of any of them."""

    seconds: Seconds | None = Field(description="By the clock, one artifact after the other.")
    cpu_seconds: Seconds | None = Field(description="Of all threads.")
    images: Count | None = Field(description="That networks were fitted to, repeats counted; teachers included.")
    teacher_forwards: Count | None = Field(description="Images through teachers, to dump and to verify.")
    peak_memory_bytes: Count | None = Field(description="Of the largest process.")
    peak_gpu_memory_bytes: Count | None = Field(description="By torch's count; null: no GPU was used.")
    artifacts: Count = Field(description="How many were needed.")
    with_figures: Count = Field(description="Of how many the figures are known; the others are in no sum.")

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing in the sums."""
        return self.with_figures == self.artifacts


class StepCost(Taken):
    """What all artifacts of one step took."""

    is_shared: bool = Field(description="Whether other experiments use these artifacts as well.")


class Cost(Taken):
    """What everything that the experiment needed took, counted in full; the one part that equal runs may differ in."""

    shared_seconds: Seconds | None = Field(description="Of dataset, partitions, teachers and soft labels.")
    own_seconds: Seconds | None = Field(description="Of students and their evaluation, all seeds.")
    steps: dict[str, StepCost] = Field(description="The same for each step.")

    def is_whole_of(self, is_shared: bool) -> bool:
        """Whether nothing is missing in the seconds of shared artifacts, or of the others."""
        return all(step.is_whole for step in self.steps.values() if step.is_shared == is_shared)


def format_seconds(cost: Cost, is_shared: bool) -> str:
    """The seconds of shared artifacts, or of the others, for people; "≥" where figures are missing in the sum."""
    seconds = cost.shared_seconds if is_shared else cost.own_seconds
    if seconds is None:
        return "–"
    return ("" if cost.is_whole_of(is_shared) else "≥ ") + duration(seconds)


class ResultInputs(Knobs):
    """What all seeds were measured on."""

    dataset: Digest = Field(description="Of images, labels and splits.")
    partition: Digest = Field(description="Of the assignment of classes to subsets.")
    evaluations: tuple[Digest, ...] = Field(
        strict=False, description="`file_digest` of each seed's evaluation, in the order of `seeds`."
    )


class Result(Knobs):
    """results/<experiment>.json: all seeds of one experiment."""

    format: Literal["edpipe-result"]
    format_version: Literal[5]
    experiment: str = Field(description="Name in params.yaml.")
    method: str = Field(description="ce, kd, ed, …")
    summary: Summary
    budget: Budget
    cost: Cost
    data: DataFacts
    setup: Setup
    teachers: dict[str, TeacherOutcome] = Field(description="As teacher/subset; empty without teachers.")
    seeds: Annotated[tuple[SeedOutcome, ...], Field(min_length=1, strict=False)]
    inputs: ResultInputs
    step: Literal["result"]
    knobs: dict[str, Any] = Field(description="Of the result step; it has none.")
    code: CodeVersions = Field(description="By unit: versions of the code that gathered the seeds.")
    versions: Versions = Field(description="Of the libraries that gathered the seeds.")
    digest: Digest = Field(description="Of all but itself, `cost` and `file_digest`: equal in equal runs.")
    file_digest: Digest = Field(description="Of all but itself; compared on every read.")


UNDIGESTED = ("digest", "cost")
"""What the digest of a result does not cover, besides the seal."""


def read_result(path: Path) -> Result:
    """A result, checked to the last key; its seal is compared, and what it sums up is computed again from its seeds.

    Raises:
        CorruptFileError: it is missing, unreadable, no result, of another version, altered, or contradicts itself.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise CorruptFileError(f"{path}: {what}; name a results/<experiment>.json")
    contents = read_json_object(path)
    if contents.get("format") != RESULT_FORMAT:
        raise CorruptFileError(
            f"{path}: not a result (format {contents.get('format')!r}, not '{RESULT_FORMAT}'); "
            "name a results/<experiment>.json"
        )
    if contents.get("format_version") != RESULT_FORMAT_VERSION:
        raise CorruptFileError(
            f"{path}: result of version {contents.get('format_version')!r}, this edpipe reads {RESULT_FORMAT_VERSION}; "
            f"{remake(path)}"
        )
    check_seal(path, contents)
    result = _validated(path, contents)
    digested = {name: value for name, value in without_seal(contents).items() if name not in UNDIGESTED}
    if result.digest != digest_json(digested):
        raise CorruptFileError(f"{path}: digest {result.digest} is not that of its contents; {remake(path)}")
    check_summed_up(path, contents)
    return result


def _validated(path: Path, contents: dict[str, Any]) -> Result:
    try:
        return Result.model_validate_json(json.dumps(_as_now(contents)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise CorruptFileError(
            f"{path}: {where}: {first['msg']}; the file was altered or made by another edpipe; {remake(path)}"
        ) from error


def _as_now(contents: dict[str, Any]) -> dict[str, Any]:
    """With plans of before levels had image sizes in today's words; whatever else is wrong is left for the check."""
    setup = contents.get("setup")
    if not isinstance(setup, dict) or not isinstance(setup.get("stages"), list):
        return contents
    try:
        return contents | {"setup": setup | {"stages": [plan_as_now(plan) for plan in setup["stages"]]}}
    except (KeyError, TypeError):
        return contents


def result_schema() -> str:
    """The JSON schema of a result; docs/result.schema.json holds it."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Result.model_json_schema()}
    return json.dumps(schema, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
