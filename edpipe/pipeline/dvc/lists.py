"""workflow/tracked_jobs.yaml: the lists that dvc.yaml runs over, written from params.yaml; and the end of .dvcignore.

DVC cannot compute which stages a curriculum has or which file a stage grows from, so these lists are written down.
Lists that no longer fit params.yaml are never used in silence: every step that DVC runs, and DVC's own stage
check_params, stop with one line.

A stage of DVC leaves out what another input already vouches for: a record holds the digests of everything before it.
So run_stage names the soft labels that the stage before did not have, in so many slots, and the student it grows from;
evaluate names the last student, and in so many slots the evaluations of its teachers. Soft labels are named by their
index, which vouches for every file and for the teacher. Where a stage has no such input, the entry repeats another,
since DVC wants as many inputs in each.

verify_soft_labels depends on a folder, since deps cannot hold lists of different lengths. Soft labels of an earlier
setting may lie in it; the end of .dvcignore hides them, or a clone, which has none, would find the folder modified.
"""

import os
import re
import textwrap
from pathlib import Path
from typing import Any

import yaml

from edpipe.errors import ParamsError
from edpipe.params.plans.curriculum import curriculum
from edpipe.params.schema import Params
from edpipe.pipeline.dvc.code_file import check_code
from edpipe.pipeline.dvc.knob_files import is_entry_as_wanted, place_of, write_knob_files
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
        lists[job.step][_entry_name(job)] = _entry(params, job)
    return _HEADER + _as_yaml({"jobs": lists})


def _entry_name(job: Job) -> str:
    return "-".join(str(value) for value in job.arguments.values())


def _as_yaml(contents: dict[str, Any]) -> str:
    return yaml.safe_dump(contents, sort_keys=True, width=1000, allow_unicode=True)


def _entry(params: Params, job: Job) -> dict[str, Any]:
    entry: dict[str, Any] = dict(job.arguments)
    if job.step == "partition_by_confusion":
        entry["teacher"] = partition_teachers(params.partitions[str(job.arguments["partition"])])[0][0]
    if job.step in ("train_teacher", "fetch_teacher"):
        entry["classes"] = str((job.inputs["partition"] or job.inputs["dataset"])[0])
    if job.step == "fetch_teacher":
        student = job.inputs.get("student") or job.inputs["dataset"] * 2
        entry["student"], entry["student_record"] = map(str, student)
    if job.step == "run_stage":
        entry |= _stage_entry(params, job)
    if job.step == "evaluate":
        entry |= _evaluation_entry(job)
    if job.step == "report":
        padded = [*job.inputs["beside"], *job.inputs["result"] * BESIDE_SLOTS][:BESIDE_SLOTS]
        entry |= {f"beside_{slot}": str(path) for slot, path in enumerate(padded, start=1)}
    return entry


def _evaluation_entry(job: Job) -> dict[str, str]:
    teachers = job.inputs["teacher_evaluations"]
    if len(teachers) > EVALUATION_SLOTS:
        raise ParamsError(
            f"tracked: experiment '{job.arguments['experiment']}' has {len(teachers)} teachers in all, DVC's lists "
            f"hold {EVALUATION_SLOTS}; leave the experiment out of tracked"
        )
    student, student_record = job.inputs["students"][-2:]
    padded = [*teachers, *(student_record for _ in range(EVALUATION_SLOTS - len(teachers)))]
    named = {f"teacher_evaluation_{slot}": path for slot, path in enumerate(padded, start=1)}
    return {name: str(path) for name, path in (named | {"student": student, "student_record": student_record}).items()}


def _stage_entry(params: Params, job: Job) -> dict[str, str]:
    nothing = job.inputs["dataset"][0]
    before, before_record = job.inputs["previous"] or (nothing, nothing)
    trajectory, trajectory_record = job.inputs["trajectory"] or (nothing, nothing)
    named = {"out": job.outputs[0], "record": job.outputs[1], "before": before, "before_record": before_record}
    named |= {"trajectory": trajectory, "trajectory_record": trajectory_record}
    named |= {role: job.inputs[role][0] for role in ("dataset", "partition")}
    new = _new_indexes(params, job)
    if len(new) > TEACHER_SLOTS:
        raise ParamsError(
            f"tracked: experiment '{job.arguments['experiment']}' takes {len(new)} new sets of soft labels in stage "
            f"'{job.arguments['stage']}', DVC's lists hold {TEACHER_SLOTS}; leave the experiment out of tracked"
        )
    padded = [*new, *(nothing for _ in range(TEACHER_SLOTS - len(new)))]
    named |= {f"soft_labels_{slot}": index for slot, index in enumerate(padded, start=1)}
    return {name: str(path) for name, path in named.items()}


def _new_indexes(params: Params, job: Job) -> list[Path]:
    """Index of all soft labels that the stage before does not vouch for; it vouches for the teacher itself."""
    plans = {plan.name: plan for plan in curriculum(params, str(job.arguments["experiment"]))}
    plan = plans[str(job.arguments["stage"])]
    known = [use for other in plans.values() if other.number == plan.number - 1 for use in other.teachers]
    return [index for use, index in zip(plan.teachers, job.inputs["indexes"], strict=True) if use not in known]


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
    """Writes the lists and the files of knobs that differ from those on disk; says whether any did."""
    stale = stale_files(params)
    for path, text in stale.items():
        write_text_atomically(path, text)
    is_changed = write_knob_files(jobs_of(params, params.tracked))
    return bool(stale) or is_changed


def check_tracked_jobs(params: Params) -> None:
    """That the lists on disk fit params.yaml.

    Raises:
        ParamsError: they do not.
    """
    for path in stale_files(params):
        raise _unfit(path)


def check_when_under_dvc(params: Params, job: Job) -> None:
    """That all DVC knows of a job fits, but only inside a stage that DVC runs; DVC names it in the environment.

    Of the other jobs nothing is read, so that this takes as long among a thousand jobs as among ten.

    Raises:
        ParamsError: the job's entry in the lists or in the files of knobs does not fit params.yaml.
        MismatchError: workflow/code.yaml does not fit the code.
    """
    if "DVC_STAGE" not in os.environ:
        return
    check_code()
    if not _is_listed(params, job):
        raise _unfit(paths.TRACKED_JOBS)
    if _on_disk(paths.DVC_IGNORE) != _ignore_text(params):
        raise _unfit(paths.DVC_IGNORE)
    if not is_entry_as_wanted(job):
        raise _unfit(place_of(job)[0])


def _is_listed(params: Params, job: Job) -> bool:
    """Whether the lists on disk have the entry of a job, found as text: to parse all of them would take a second."""
    of_step = re.search(rf"^  {job.step}:\n((?:    .*\n)*)", _on_disk(paths.TRACKED_JOBS), re.MULTILINE)
    entry = textwrap.indent(_as_yaml({_entry_name(job): _entry(params, job)}), "    ")
    return of_step is not None and f"\n{entry}    " in f"\n{of_step[1]}    "


def _unfit(path: Path) -> ParamsError:
    return ParamsError(f"{path}: does not fit params.yaml any more; {_REMEDY}, then call dvc again")


def _on_disk(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
