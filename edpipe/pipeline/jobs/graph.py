"""Every job that some experiments need, each once, inputs before what reads them.

Snakemake's rules, dvc.yaml's lists and the command line all ask this package, so that no two of them can disagree.
"""

from collections.abc import Collection, Iterable
from pathlib import Path

from edpipe.params.experiment import (
    ExperimentKnobs,
)
from edpipe.params.plans.curriculum import curriculum
from edpipe.params.schema import Params, entry
from edpipe.params.teacher import TeacherKnobs
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.jobs.data import pack_dataset, partition_dataset, partition_teachers
from edpipe.pipeline.jobs.searches import search
from edpipe.pipeline.jobs.students import evaluate, report, result, run_stage, study, teacher_uses
from edpipe.pipeline.jobs.teachers import (
    dump_soft_labels,
    evaluate_teacher,
    make_teacher,
    record_trajectory,
    soft_label_files,
    verify_soft_labels,
)
from edpipe.storage.job import Job


def experiments_named(params: Params, words: Iterable[str]) -> list[str]:
    """These experiments, and those of each study that is named as its result is: `study_<study>`; each once."""
    studies = {f"{paths.STUDY_PREFIX}{name}": study.experiments for name, study in params.studies.items()}
    return list(dict.fromkeys(name for word in words for name in studies.get(word, (word,))))


def searches_named(params: Params, words: Iterable[str]) -> list[str]:
    """The searches that are named as their results are: `search_<search>`; each once."""
    names = {f"{paths.SEARCH_PREFIX}{name}": name for name in params.searches}
    return list(dict.fromkeys(names[word] for word in words if word in names))


def jobs_named(params: Params, words: Iterable[str]) -> list[Job]:
    """Every job of these experiments, studies and searches, as `jobs_of` and `jobs_of_searches` give them, each once.

    Raises:
        ParamsError: there is nothing of such a name.
    """
    searches = searches_named(params, words := list(words))
    others = [word for word in words if not searches_named(params, [word])]
    return _each_once([*jobs_of(params, experiments_named(params, others)), *jobs_of_searches(params, searches)])


def studies_named(params: Params, words: Iterable[str]) -> list[Job]:
    """The jobs of the studies that are named as their results are; without words, of all studies."""
    names = {f"{paths.STUDY_PREFIX}{name}": name for name in params.studies}
    return [study(params, names[word]) for word in (list(words) or names) if word in names]


def jobs_of(params: Params, experiments: Iterable[str]) -> list[Job]:
    """Every job that these experiments need, each once, inputs before what reads them."""
    return _each_once(job for experiment in experiments for job in _jobs_of_one(params, experiment))


def jobs_of_searches(params: Params, searches: Iterable[str]) -> list[Job]:
    """Every job that these searches need, each once, inputs before what reads them."""
    return _each_once(job for name in searches for job in _jobs_of_search(params, name))


def _each_once(jobs: Iterable[Job]) -> list[Job]:
    found: dict[Path, Job] = {}
    for job in jobs:
        found.setdefault(job.outputs[0], job)
    return list(found.values())


def _jobs_of_search(params: Params, name: str) -> list[Job]:
    seeds = entry(params, "searches", name).seeds
    trained = [job for trial in params.trials[name] for job in _jobs_of_students(params.with_trials, trial.name, seeds)]
    return [*trained, search(params, name)]


def _jobs_of_one(params: Params, experiment: str) -> list[Job]:
    knobs: ExperimentKnobs = entry(params, "experiments", experiment)
    beside = [job for other in knobs.beside for job in jobs_of_result(params, other)]
    return [*beside, *jobs_of_result(params, experiment), report(params, experiment)]


def jobs_of_result(params: Params, experiment: str) -> list[Job]:
    """What makes one result, itself last; a job may be in it twice."""
    knobs: ExperimentKnobs = entry(params, "experiments", experiment)
    return [
        *_jobs_of_students(params, experiment, knobs.seeds),
        *(evaluate_teacher(params, knobs.dataset, *use) for use in teacher_uses(curriculum(params, experiment))),
        *(evaluate(params, experiment, seed) for seed in knobs.seeds),
        result(params, experiment),
    ]


def _jobs_of_students(params: Params, experiment: str, seeds: Collection[int]) -> list[Job]:
    """What makes the students of these seeds; a job may be in it twice."""
    knobs: ExperimentKnobs = entry(params, "experiments", experiment)
    plans = curriculum(params, experiment)
    uses = teacher_uses(plans)
    partitions = dict.fromkeys([knobs.partition, *(p for t, _ in uses if (p := params.teachers[t].partition))])
    confusion_teachers = [use for partition in partitions for use in partition_teachers(params.partitions[partition])]
    return [
        pack_dataset(params, knobs.dataset),
        *_jobs_of_teachers(params, knobs.dataset, confusion_teachers),
        *(partition_dataset(params, knobs.dataset, partition) for partition in partitions),
        *_jobs_of_teachers(params, knobs.dataset, uses),
        *(
            record_trajectory(params, knobs.dataset, plan.trajectory.teacher, seed)
            for seed in seeds
            for plan in plans
            if plan.trajectory
        ),
        *(run_stage(params, experiment, seed, plan.name) for seed in seeds for plan in plans),
    ]


def _jobs_of_teachers(params: Params, dataset: str, uses: Collection[tuple[str, str]]) -> list[Job]:
    """What makes these teachers and their verified soft labels; a use is a teacher and a subset."""
    return [
        *(job for teacher, _ in uses for job in _jobs_of_student(params, teacher)),
        *(make_teacher(params, dataset, *use) for use in uses),
        *(
            dump_soft_labels(params, dataset, *use, str(part))
            for use in uses
            for part in soft_label_files(params, dataset)
        ),
        *(verify_soft_labels(params, dataset, *use) for use in uses),
    ]


def _jobs_of_student(params: Params, teacher: str) -> list[Job]:
    """What makes the student that a teacher was, if it was one."""
    knobs: TeacherKnobs = params.teachers[teacher]
    experiment = knobs.network.experiment
    return [] if experiment is None else _jobs_of_students(params, experiment, (knobs.fitting.seed,))
