"""workflow/tracked_jobs.yaml: the lists that dvc.yaml runs over, written from params.yaml; and the end of .dvcignore.

DVC cannot compute which stages a curriculum has or which file a stage grows from, so these lists are written down.
Lists that no longer fit params.yaml are never used in silence: every step that DVC runs, and DVC's own stage
check_params, stop with one line.

An entry leaves out what another input already vouches for: the record of a student holds the digests of everything
before it, so a stage names the soft labels that the stage before did not have, in so many slots, and the student it
grows from; evaluate names the last student, and in so many slots the evaluations of its teachers.
Soft labels are named by their index, which vouches for every file. Where a stage has no such input, the entry repeats
the dataset, since DVC wants as many inputs in each.

verify_soft_labels depends on a folder, since deps cannot hold lists of different lengths. Soft labels of an earlier
setting may lie in it; the end of .dvcignore hides them, or a clone, which has none, would find the folder modified.
"""

import os
from pathlib import Path
from typing import Any

import yaml

from edpipe.errors import ParamsError
from edpipe.params.plans.curriculum import curriculum
from edpipe.params.schema import Params
from edpipe.pipeline.dvc.code_file import check_code
from edpipe.pipeline.jobs import paths, step_table
from edpipe.pipeline.jobs.data import partition_teachers
from edpipe.pipeline.jobs.graph import jobs_of
from edpipe.pipeline.jobs.teachers import soft_label_files
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.job import Job

STEPS = tuple(step.name for step in step_table.STEPS if step.is_tracked)
TEACHER_SLOTS = 5
"""New sets of soft labels that a stage may take under DVC, whose deps cannot hold lists of different lengths."""
EVALUATION_SLOTS = 8
"""Teachers that one experiment's students may be compared with, for the same reason."""
BESIDE_SLOTS = 4
"""Results that a page may show beside its own, likewise."""
_HEADER = "# Written by `edpipe tracked_jobs` from params.yaml; do not edit.\n"
_REMEDY = "run `edpipe tracked_jobs`"
_IGNORE_HEADER = """\
# From here on written by `edpipe tracked_jobs`: of all files of soft labels, DVC sees those in use.
"""


def tracked_jobs_text(params: Params) -> str:
    """What workflow/tracked_jobs.yaml must hold: for each step, its jobs by name."""
    lists: dict[str, dict[str, Any]] = {step: {} for step in STEPS}
    for job in jobs_of(params, params.tracked):
        lists[job.step]["-".join(str(value) for value in job.arguments.values())] = _entry(params, job)
    return _HEADER + yaml.safe_dump({"jobs": lists}, sort_keys=True, width=1000, allow_unicode=True)


def _entry(params: Params, job: Job) -> dict[str, Any]:
    entry: dict[str, Any] = dict(job.arguments) | {f"{what}_code": unit for what, unit in job.choices.items()}
    if job.step == "partition_by_confusion":
        entry["teacher"] = partition_teachers(params.partitions[str(job.arguments["partition"])])[0][0]
    if job.step in ("train_teacher", "fetch_teacher", "record_trajectory"):
        entry["recipe"] = params.teachers[str(job.arguments["teacher"])].fitting.recipe
    if job.step in ("train_teacher", "fetch_teacher", "dump_soft_labels", "verify_soft_labels", "evaluate_teacher"):
        entry["classes"] = str((job.inputs["partition"] or job.inputs["dataset"])[0])
    if job.step == "fetch_teacher":
        student = job.inputs.get("student") or job.inputs["dataset"] * 2
        entry["student"], entry["student_record"] = map(str, student)
    if job.step in ("run_stage", "evaluate", "report"):
        entry |= {role: str(job.inputs[role][0]) for role in ("dataset", "partition")}
    if job.step == "run_stage":
        entry |= _stage_entry(params, job)
    if job.step == "evaluate":
        entry |= _evaluation_entry(job)
    if job.step == "report":
        padded = [*job.inputs["beside"], *job.inputs["result"] * BESIDE_SLOTS][:BESIDE_SLOTS]
        entry |= {f"beside_{slot}": str(path) for slot, path in enumerate(padded, start=1)}
        # DVC does not see that a dependency is gone, or that the order is another.
        entry["beside"] = " ".join(path.stem for path in job.inputs["beside"])
    return entry


def _evaluation_entry(job: Job) -> dict[str, str]:
    nothing, teachers = job.inputs["dataset"][0], job.inputs["teacher_evaluations"]
    if len(teachers) > EVALUATION_SLOTS:
        raise ParamsError(
            f"tracked: experiment '{job.arguments['experiment']}' has {len(teachers)} teachers in all, DVC's lists "
            f"hold {EVALUATION_SLOTS}; leave the experiment out of tracked"
        )
    paths = dict(zip(("student", "student_record"), job.inputs["students"][-2:], strict=True))
    padded = [*teachers, *(nothing for _ in range(EVALUATION_SLOTS - len(teachers)))]
    paths |= {f"teacher_evaluation_{slot}": path for slot, path in enumerate(padded, start=1)}
    return {name: str(path) for name, path in paths.items()}


def _stage_entry(params: Params, job: Job) -> dict[str, str]:
    nothing = job.inputs["dataset"][0]
    before, before_record = job.inputs["previous"] or (nothing, nothing)
    paths = {"out": job.outputs[0], "record": job.outputs[1]}
    paths |= {"before": before, "before_record": before_record}
    trajectory, trajectory_record = job.inputs["trajectory"] or (nothing, nothing)
    paths |= {"trajectory": trajectory, "trajectory_record": trajectory_record}
    new = _new_teachers(params, job)
    if len(new) > TEACHER_SLOTS:
        raise ParamsError(
            f"tracked: experiment '{job.arguments['experiment']}' takes {len(new)} new sets of soft labels in stage "
            f"'{job.arguments['stage']}', DVC's lists hold {TEACHER_SLOTS}; leave the experiment out of tracked"
        )
    for slot in range(TEACHER_SLOTS):
        index, teacher_record = new[slot] if slot < len(new) else (nothing, nothing)
        paths |= {f"soft_labels_{slot + 1}": index, f"teacher_record_{slot + 1}": teacher_record}
    names = ("method_key", "stage_key", "student_key", "recipe_key", "space_key", "views_key")
    return {name: str(path) for name, path in paths.items()} | dict(zip(names, job.keys, strict=True))


def _new_teachers(params: Params, job: Job) -> list[tuple[Path, Path]]:
    """Index and teacher's record of all soft labels that the stage before does not vouch for."""
    plans = {plan.name: plan for plan in curriculum(params, str(job.arguments["experiment"]))}
    plan = plans[str(job.arguments["stage"])]
    known = [use for other in plans.values() if other.number == plan.number - 1 for use in other.teachers]
    pairs = zip(plan.teachers, job.inputs["indexes"], job.inputs["teachers"], strict=True)
    return [(index, record) for use, index, record in pairs if use not in known]


def own_part(ignored: str) -> str:
    """Of the text of .dvcignore, the user's own lines.

    >>> own_part("logs\\n" + _IGNORE_HEADER + "/artifacts/x\\n")
    'logs\\n'
    """
    return ignored.partition(_IGNORE_HEADER)[0]


def _ignore_text(params: Params) -> str:
    """What .dvcignore must hold: the user's own lines as they are, then those written here."""
    own = own_part(_on_disk(paths.DVC_IGNORE))
    lines = [
        f"{sign}/{paths.soft_labels_path(dataset, '*', '*', views).with_suffix('.*')}"
        for dataset in dict.fromkeys(params.experiments[name].dataset for name in params.tracked)
        for sign, views in [("", "*"), *(("!", str(part)) for part in soft_label_files(params, dataset))]
    ]
    return own + _IGNORE_HEADER + "".join(f"{line}\n" for line in lines)


def stale_files(params: Params) -> dict[Path, str]:
    """Files that do not fit params.yaml, and what they must hold."""
    wanted = {paths.TRACKED_JOBS: tracked_jobs_text(params), paths.DVC_IGNORE: _ignore_text(params)}
    return {path: text for path, text in wanted.items() if _on_disk(path) != text}


def write_tracked_jobs(params: Params) -> bool:
    """Writes the lists if they differ from those on disk; says whether they did."""
    stale = stale_files(params)
    for path, text in stale.items():
        write_text_atomically(path, text)
    return bool(stale)


def check_tracked_jobs(params: Params) -> None:
    """That the lists on disk fit params.yaml.

    Raises:
        ParamsError: they do not.
    """
    for path in stale_files(params):
        raise ParamsError(f"{path}: does not fit params.yaml any more; {_REMEDY}, then call dvc again")


def check_when_under_dvc(params: Params) -> None:
    """That lists and digests of code fit, but only inside a stage that DVC runs; DVC names it in the environment.

    Raises:
        ParamsError: the lists do not fit params.yaml.
        MismatchError: the digests do not fit the source files.
    """
    if "DVC_STAGE" in os.environ:
        check_tracked_jobs(params)
        check_code()


def _on_disk(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
