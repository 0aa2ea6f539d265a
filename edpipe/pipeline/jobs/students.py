"""The jobs of one experiment: its stages, its evaluations, its result and its page; and the jobs of studies."""

from collections.abc import Iterable
from pathlib import Path

from edpipe.params.experiment import ExperimentKnobs, ResultKnobs
from edpipe.params.plans.curriculum import curriculum
from edpipe.params.plans.plan import StageJobKnobs, StagePlan, TeacherUse
from edpipe.params.schema import Params, entry, one_of
from edpipe.params.soft_labels import StudentViews, unlimited_views
from edpipe.params.study import StudyJobKnobs, StudyKnobs
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.jobs.choices import network_choice, stage_choices
from edpipe.pipeline.jobs.paths import with_record
from edpipe.pipeline.jobs.teachers import record_trajectory, soft_label_paths
from edpipe.storage.job import Job, NoKnobs
from edpipe.storage.records import record_path


def run_stage(params: Params, experiment: str, seed: int, stage: str) -> Job[StageJobKnobs]:
    """Trains the student of one experiment, or of a search's trial, and seed through one stage."""
    params = params.with_trials
    knobs: ExperimentKnobs = entry(params, "experiments", experiment)
    one_of(f"seeds of experiment '{experiment}'", seed, knobs.seeds)
    plans = {plan.name: plan for plan in curriculum(params, experiment)}
    one_of(f"stages of experiment '{experiment}'", stage, plans)
    plan = plans[stage]
    before = [p for p in plans.values() if p.number == plan.number - 1]
    return Job(
        step="run_stage",
        arguments={"experiment": experiment, "seed": seed, "stage": stage},
        knobs=StageJobKnobs(
            plan, params.students[knobs.student], params.recipes[_recipe(knobs, stage)], _stage_views(params, knobs)
        ),
        inputs={
            "dataset": (paths.dataset_path(knobs.dataset),),
            "partition": (paths.partition_path(knobs.dataset, knobs.partition),),
            "previous": tuple(f for p in before for f in with_record(_student_path(experiment, seed, p))),
            # One index for each teacher, first, then the files that the indexes name.
            "indexes": tuple(paths.soft_labels_index_path(knobs.dataset, u.teacher, u.subset) for u in plan.teachers),
            "soft_labels": tuple(
                path
                for use in plan.teachers
                for path in soft_label_paths(params, knobs.dataset, use.teacher, use.subset)[::2]
            ),
            # Which weights the teacher has now: soft labels of others are refused.
            "teachers": tuple(_teacher_record(knobs.dataset, use) for use in plan.teachers),
            "trajectory": record_trajectory(params, knobs.dataset, plan.trajectory.teacher, seed).outputs
            if plan.trajectory
            else (),
        },
        outputs=with_record(paths.student_path(experiment, seed, plan.number, stage)),
        keys=_stage_keys(knobs, experiment, stage),
        choices=stage_choices(plan, params.students[knobs.student].model),
    )


def _recipe(knobs: ExperimentKnobs, stage: str) -> str:
    """Name of the recipe of one stage."""
    return knobs.stages[stage].recipe or knobs.recipe


def _stage_views(params: Params, knobs: ExperimentKnobs) -> StudentViews:
    """Which views the student sees: those that its teachers saw; without teachers nothing limits them."""
    soft_labels = params.soft_labels[knobs.dataset]
    return unlimited_views(soft_labels.space) if not has_teachers(knobs) else soft_labels.student_views


def has_teachers(knobs: ExperimentKnobs) -> bool:
    """Whether the students learn from soft labels."""
    return bool(knobs.method.named_teachers())


def teacher_uses(plans: Iterable[StagePlan]) -> tuple[tuple[str, str], ...]:
    """Teacher and subset of all soft labels that some stage learns from, each once, in order."""
    return tuple(dict.fromkeys((use.teacher, use.subset) for plan in plans for use in plan.teachers))


def _student_path(experiment: str, seed: int, plan: StagePlan) -> Path:
    return paths.student_path(experiment, seed, plan.number, plan.name)


def _teacher_record(dataset: str, use: TeacherUse) -> Path:
    return record_path(paths.teacher_path(dataset, use.teacher, use.subset))


def _stage_keys(knobs: ExperimentKnobs, experiment: str, stage: str) -> tuple[str, ...]:
    return (
        f"experiments.{experiment}.method",
        f"experiments.{experiment}.stages" + ("" if knobs.method.has_shared_schedule() else f".{stage}"),
        f"students.{knobs.student}",
        f"recipes.{_recipe(knobs, stage)}",
        f"soft_labels.{knobs.dataset}.space",
        # Without teachers every view is seen; as many keys are wanted in each entry of DVC's lists.
        f"soft_labels.{knobs.dataset}." + ("views" if has_teachers(knobs) else "space"),
    )


def evaluate(params: Params, experiment: str, seed: int) -> Job[NoKnobs]:
    """Measures every stage's student of one seed on the test split, the last one also against its teachers."""
    knobs: ExperimentKnobs = entry(params, "experiments", experiment)
    one_of(f"seeds of experiment '{experiment}'", seed, knobs.seeds)
    plans = curriculum(params, experiment)
    students = [_student_path(experiment, seed, plan) for plan in plans]
    return Job(
        step="evaluate",
        arguments={"experiment": experiment, "seed": seed},
        knobs=NoKnobs(),
        inputs={
            "dataset": (paths.dataset_path(knobs.dataset),),
            "partition": (paths.partition_path(knobs.dataset, knobs.partition),),
            "students": tuple(path for student in students for path in with_record(student)),
            "teacher_evaluations": tuple(
                paths.teacher_evaluation_path(knobs.dataset, *use) for use in teacher_uses(plans)
            ),
        },
        outputs=(paths.evaluation_path(experiment, seed),),
        choices=network_choice("evaluate", params.students[knobs.student].model),
    )


def result(params: Params, experiment: str) -> Job[ResultKnobs]:
    """Gathers the seeds of one experiment."""
    knobs: ExperimentKnobs = entry(params, "experiments", experiment)
    return Job(
        step="result",
        arguments={"experiment": experiment},
        knobs=ResultKnobs(knobs.seeds, knobs.method.name),
        inputs={"evaluations": tuple(paths.evaluation_path(experiment, seed) for seed in knobs.seeds)},
        outputs=(paths.result_path(experiment), paths.curve_path(experiment), paths.metrics_path(experiment)),
        keys=(f"experiments.{experiment}.seeds", f"experiments.{experiment}.method.name"),
    )


def report(params: Params, experiment: str) -> Job[NoKnobs]:
    """Draws the page of one experiment."""
    knobs: ExperimentKnobs = entry(params, "experiments", experiment)
    return Job(
        step="report",
        arguments={"experiment": experiment},
        knobs=NoKnobs(),
        inputs={
            "result": (paths.result_path(experiment),),
            "dataset": (paths.dataset_path(knobs.dataset),),
            "partition": (paths.partition_path(knobs.dataset, knobs.partition),),
            "evaluations": tuple(paths.evaluation_path(experiment, seed) for seed in knobs.seeds),
            "teacher_evaluations": tuple(
                paths.teacher_evaluation_path(knobs.dataset, *use)
                for use in teacher_uses(curriculum(params, experiment))
            ),
            "beside": tuple(paths.result_path(other) for other in knobs.beside),
        },
        outputs=(paths.report_path(experiment),),
    )


def study(params: Params, study: str) -> Job[StudyJobKnobs]:
    """Holds the results of several experiments against one of them."""
    knobs: StudyKnobs = entry(params, "studies", study)
    return Job(
        step="study",
        arguments={"study": study},
        knobs=StudyJobKnobs(knobs),
        inputs={"results": tuple(paths.result_path(experiment) for experiment in knobs.experiments)},
        outputs=(paths.study_path(study), paths.study_table_path(study), paths.study_figure_path(study)),
        keys=(f"studies.{study}",),
    )
