"""The table of steps: every rule of the pipeline, in order, with all that the rest of the package knows of it.

A new step is an entry here with the function that makes its job, a module of its name in edpipe/steps with `run(job)`,
a rule in edpipe/pipeline/snakemake/rules, and, if DVC follows it, a block of dvc.yaml.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from edpipe.params.dataset import PackKnobs
from edpipe.params.experiment import ResultKnobs
from edpipe.params.partition import PartitionJobKnobs
from edpipe.params.plans.plan import StageJobKnobs
from edpipe.params.searches.knobs import SearchJobKnobs
from edpipe.params.soft_labels import ConfusionJobKnobs, DumpKnobs, VerifyKnobs
from edpipe.params.study import StudyJobKnobs
from edpipe.params.teacher import TeacherJobKnobs, TrajectoryKnobs
from edpipe.pipeline.jobs import data, searches, students, teachers
from edpipe.storage.job import Job, NoKnobs

OPTIMIZERS = ("torch", "torch._dynamo")
"""torch's optimizers import the second when they are first used."""
STATISTICS = ("scipy.special",)


class Artifact(StrEnum):
    """What a step makes; its reader and its checks hang on it."""

    DATASET = "dataset"
    PARTITION = "partition"
    WEIGHTS = "weights"
    SOFT_LABELS = "soft labels"
    SOFT_LABEL_INDEX = "soft-label index"
    TEACHER_EVALUATION = "teacher evaluation"
    EVALUATION = "evaluation"
    RESULT = "result"
    PAGE = "page"
    STUDY = "study"
    SEARCH = "search"


@dataclass(frozen=True)
class Step:
    """One rule of the pipeline."""

    name: str
    """Of the rule, the module in edpipe/steps, and the subcommand."""
    purpose: str
    """What it does, as `edpipe --help` says it."""
    options: tuple[str, ...]
    """Of the subcommand; they name a job."""
    make: Callable[..., Job]
    """Gives the job that params.yaml and the options name."""
    knobs: type
    """Type of `Job.knobs`."""
    inputs: tuple[str, ...]
    """Roles of what it reads."""
    artifact: Artifact
    chosen_by: str = ""
    """Set where `make` may give the job of a sibling step: how the refusal begins, with the place in params.yaml."""
    trains: bool = False
    """Whether several processes may train its network together."""
    needs_network: bool = False
    """Whether it runs a network, so that it takes a GPU and several threads."""
    is_shared: bool = True
    """Whether experiments share what it makes."""
    is_tracked: bool = True
    """Whether dvc.yaml has a block for it."""
    preloads: tuple[str, ...] = ()
    """What it imports besides its own module."""


_PARTITION_CHOICE = "partitions.{partition}.confusion: this partition"
_TEACHER_CHOICE = "teachers.{teacher}.network.source: this teacher"
_TEACHER_OPTIONS = ("dataset", "teacher", "subset")
STEPS = (
    Step(
        name="pack_dataset",
        purpose="pack raw images into one file",
        options=("dataset",),
        make=data.pack_dataset,
        knobs=PackKnobs,
        inputs=(),
        artifact=Artifact.DATASET,
    ),
    Step(
        name="partition_dataset",
        purpose="divide the classes into subsets",
        options=("dataset", "partition"),
        make=data.partition_dataset,
        knobs=PartitionJobKnobs,
        inputs=("dataset",),
        artifact=Artifact.PARTITION,
        chosen_by=_PARTITION_CHOICE,
    ),
    Step(
        name="partition_by_confusion",
        purpose="divide the classes into subsets by what a teacher confuses",
        options=("dataset", "partition"),
        make=data.partition_dataset,
        knobs=ConfusionJobKnobs,
        inputs=("dataset", "indexes", "soft_labels", "teachers"),
        artifact=Artifact.PARTITION,
        chosen_by=_PARTITION_CHOICE,
    ),
    Step(
        name="train_teacher",
        purpose="train a teacher from scratch",
        options=_TEACHER_OPTIONS,
        make=teachers.make_teacher,
        knobs=TeacherJobKnobs,
        inputs=("dataset", "partition"),
        artifact=Artifact.WEIGHTS,
        chosen_by=_TEACHER_CHOICE,
        trains=True,
        needs_network=True,
        preloads=OPTIMIZERS,
    ),
    Step(
        name="fetch_teacher",
        purpose="fetch a teacher's weights, and fine-tune them if asked",
        options=_TEACHER_OPTIONS,
        make=teachers.make_teacher,
        knobs=TeacherJobKnobs,
        inputs=("dataset", "partition", "student"),
        artifact=Artifact.WEIGHTS,
        chosen_by=_TEACHER_CHOICE,
        trains=True,
        needs_network=True,
        preloads=OPTIMIZERS,
    ),
    Step(
        name="dump_soft_labels",
        purpose="store a teacher's logits for some views, such as 0-7",
        options=(*_TEACHER_OPTIONS, "views"),
        make=teachers.dump_soft_labels,
        knobs=DumpKnobs,
        inputs=("dataset", "partition", "teacher"),
        artifact=Artifact.SOFT_LABELS,
        needs_network=True,
        preloads=("torch",),
    ),
    Step(
        name="verify_soft_labels",
        purpose="compare stored logits with the teacher's",
        options=_TEACHER_OPTIONS,
        make=teachers.verify_soft_labels,
        knobs=VerifyKnobs,
        inputs=("dataset", "partition", "teacher", "soft_labels"),
        artifact=Artifact.SOFT_LABEL_INDEX,
        needs_network=True,
        preloads=("torch",),
    ),
    Step(
        name="evaluate_teacher",
        purpose="measure a teacher on the test images of its classes",
        options=_TEACHER_OPTIONS,
        make=teachers.evaluate_teacher,
        knobs=NoKnobs,
        inputs=("dataset", "partition", "teacher"),
        artifact=Artifact.TEACHER_EVALUATION,
        needs_network=True,
        preloads=("torch",),
    ),
    Step(
        name="record_trajectory",
        purpose="train a teacher on what students of a seed see, and store its logits of every epoch",
        options=("dataset", "teacher", "seed"),
        make=teachers.record_trajectory,
        knobs=TrajectoryKnobs,
        inputs=("dataset",),
        artifact=Artifact.SOFT_LABELS,
        needs_network=True,
        preloads=OPTIMIZERS,
    ),
    Step(
        name="run_stage",
        purpose="train a student through one stage",
        options=("experiment", "seed", "stage"),
        make=students.run_stage,
        knobs=StageJobKnobs,
        inputs=("dataset", "partition", "previous", "indexes", "soft_labels", "teachers", "trajectory"),
        artifact=Artifact.WEIGHTS,
        trains=True,
        needs_network=True,
        is_shared=False,
        preloads=OPTIMIZERS,
    ),
    Step(
        name="evaluate",
        purpose="measure the student of every stage on the test split",
        options=("experiment", "seed"),
        make=students.evaluate,
        knobs=NoKnobs,
        inputs=("dataset", "partition", "students", "teacher_evaluations"),
        artifact=Artifact.EVALUATION,
        needs_network=True,
        is_shared=False,
        preloads=OPTIMIZERS,
    ),
    Step(
        name="result",
        purpose="summarise the seeds of an experiment",
        options=("experiment",),
        make=students.result,
        knobs=ResultKnobs,
        inputs=("evaluations",),
        artifact=Artifact.RESULT,
        is_shared=False,
        preloads=STATISTICS,
    ),
    Step(
        name="report",
        purpose="draw the page of an experiment",
        options=("experiment",),
        make=students.report,
        knobs=NoKnobs,
        inputs=("result", "dataset", "partition", "evaluations", "teacher_evaluations", "beside"),
        artifact=Artifact.PAGE,
        is_shared=False,
    ),
    Step(
        name="study",
        purpose="compare experiments with one of them in a table",
        options=("study",),
        make=students.study,
        knobs=StudyJobKnobs,
        inputs=("results",),
        artifact=Artifact.STUDY,
        is_shared=False,
        is_tracked=False,
        preloads=STATISTICS,
    ),
    Step(
        name="search",
        purpose="measure the trials of a search on the validation split, and put them in order",
        options=("search",),
        make=searches.search,
        knobs=SearchJobKnobs,
        inputs=("dataset", "partitions", "students"),
        artifact=Artifact.SEARCH,
        needs_network=True,
        is_shared=False,
        is_tracked=False,
        preloads=("torch", *STATISTICS),
    ),
)
STEP = {step.name: step for step in STEPS}
"""By name."""
