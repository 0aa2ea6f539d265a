"""Snakemake and DVC in one folder and its clones: soft labels of other settings, interruptions, shared caches.

In all but the last test, steps are played by stand_in_command_line.py.
"""

import json
import re
import subprocess

import pytest
import yaml
from dvc_stories import (
    ALL_STUDENT_STEPS,
    CACHE_TYPES,
    EVERY_STEP,
    FROM_MIDDLE,
    MIDDLE,
    SECOND_ED,
    SHARED_GROUPS,
    STUDENT_RULES,
    TAUGHT_STEPS,
    clone_of,
    end_of,
    said,
    start,
    teacher_steps,
    wait_for,
)
from fault_table import count
from project import without_cost

pytest.importorskip("dvc")
pytest.importorskip("snakemake")
pytestmark = pytest.mark.slow


def soft_labels_of(folder):
    """Which file is which, and when it was written."""
    files = sorted((folder.root / "artifacts/soft_labels").rglob("views_*"))
    return {path.relative_to(folder.root).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("tool", ["snakemake", "dvc_repro"])
def test_more_views_add_files_and_leave_finished_ones_alone(repository, tool):
    run = getattr(repository, tool)
    other = repository.dvc_repro if tool == "snakemake" else repository.snakemake
    before = soft_labels_of(repository)
    assert len(before) == 8
    repository.edit("number: 2", "number: 3")
    if tool == "dvc_repro":
        repository.call("edpipe", "tracked_jobs")
    assert run() == sorted(
        [*teacher_steps("dump_soft_labels", "2-2"), *teacher_steps("verify_soft_labels"), *TAUGHT_STEPS]
    )
    after = soft_labels_of(repository)
    assert len(after) == 16
    assert {path: after[path] for path in before} == before
    assert other() == [], "the other tool agrees"
    assert run() == []


@pytest.mark.parametrize(
    ("before", "after", "views"),
    [("per_file: 2", "per_file: 1", ["0-0", "1-1"]), ("precision: uint8", "precision: float16", ["0-1"])],
)
def test_other_files_or_another_precision_are_dumped_again(repository, before, after, views):
    repository.edit(before, after)
    expected = [*teacher_steps("dump_soft_labels", *views), *teacher_steps("verify_soft_labels"), *TAUGHT_STEPS]
    assert repository.snakemake() == sorted(expected)
    assert repository.dvc_repro() == []
    assert repository.snakemake() == []


@pytest.mark.parametrize("tool", ["snakemake", "dvc_repro"])
def test_soft_labels_of_an_earlier_setting_disturb_nobody(repository, tmp_path, tool):
    """They lie in the folder that verify_soft_labels depends on, but not in a clone's."""
    earlier = set(soft_labels_of(repository))
    repository.edit("per_file: 2", "per_file: 1")
    repository.snakemake()
    assert earlier < set(soft_labels_of(repository)), "nothing is deleted"
    assert repository.dvc_repro() == []
    clone = clone_of(repository, tmp_path / "second")
    clone.call("dvc", "pull")
    assert earlier.isdisjoint(soft_labels_of(clone))
    assert getattr(clone, tool)() == []
    for path in earlier:
        (repository.root / path).unlink()
    assert getattr(repository, tool)() == []


def test_a_touched_module_re_runs_nothing(repository):
    for path in (repository.root / "edpipe").rglob("*.py"):
        path.touch()
    assert repository.snakemake() == []
    assert repository.dvc_repro() == []


def test_a_queue_of_two_values_runs(repository):
    key = "experiments.ed.stages.middle.learning_rate"
    repository.call("dvc", "exp", "run", "--queue", "--set-param", f"{key}=0.01,0.02")
    assert repository.steps_of("dvc", "exp", "run", "--run-all") == sorted(2 * FROM_MIDDLE)
    assert repository.snakemake() == [], "this folder was left alone"


@pytest.mark.faults
def test_snakemake_stops_with_one_line_while_dvc_is_busy(repository):
    repository.edit("temperature: 4", "temperature: 5")
    (repository.root / "waiting").write_text("run_stage")
    dvc = subprocess.Popen(
        ["dvc", "repro"],
        cwd=repository.root,
        env=repository.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(repository.root / "started")
        output = repository.call("snakemake", "--cores", "1", is_refused=True)
        assert said(output) == [
            "edpipe: DVC is at work in this folder; wait for it or, if you know better, leave it out with EDPIPE_DVC=0"
        ]
        assert "Traceback" not in output
        assert "run_stage" in repository.call("snakemake", "--dry-run"), "a dry run goes on"
    finally:
        (repository.root / "go").touch()
        assert dvc.wait() == 0
    assert count("snakemake beside dvc", repository.snakemake() == [])


def test_lists_that_do_not_fit_stop_dvc_with_one_line(repository):
    repository.edit("tracked: [ce, kd, ed]\n", SECOND_ED)
    output = repository.call("dvc", "repro", is_refused=True)
    assert said(output) == [
        "edpipe: workflow/tracked_jobs.yaml: does not fit params.yaml any more; "
        "run `edpipe tracked_jobs`, then call dvc again"
    ]
    lists = (repository.root / "workflow/tracked_jobs.yaml").read_bytes()
    assert re.search(r"total +7\n", repository.call("snakemake", "--dry-run")), "six steps and rule all"
    assert (repository.root / "workflow/tracked_jobs.yaml").read_bytes() == lists, "a dry run writes nothing"
    repository.call("edpipe", "tracked_jobs")
    assert len(repository.dvc_repro()) == 6
    assert repository.snakemake() == []


def test_code_that_was_edited_stops_dvc_with_one_line(repository):
    repository.edit_code("losses/kd.py")
    digests = (repository.root / "workflow/code.yaml").read_bytes()
    line = (
        "edpipe: workflow/code.yaml: does not fit the code of losses.dkd, losses.kd, methods.ctkd any more; "
        "run `edpipe code`, then"
    )
    for command in (
        ["dvc", "repro"],
        ["dvc", "repro", "--force", "--single-item", "report@ed"],
        ["edpipe", "code", "--check"],
    ):
        assert {f"{line} call dvc again"} == set(said(repository.call(*command, is_refused=True))), command
    assert re.search(r"total +11\n", repository.call("snakemake", "--dry-run")), "10 steps of students and rule all"
    assert (repository.root / "workflow/code.yaml").read_bytes() == digests, "a dry run writes nothing"
    repository.call("edpipe", "code")
    assert repository.dvc_repro() == TAUGHT_STEPS
    assert repository.snakemake() == []


@pytest.mark.parametrize("cache_type", CACHE_TYPES[1:])
def test_a_harmless_edit_is_made_up_for_once_by_either_tool(repository, cache_type):
    """Weights come out with the same bytes: from DVC's cache a link comes back that looks as old as before.

    Copies: test_a_change_re_runs_exactly_what_depends_on_it.
    """
    repository.link_by(cache_type)
    repository.edit_code("losses/kd.py")
    repository.call("edpipe", "code")
    assert repository.dvc_repro() == TAUGHT_STEPS
    assert repository.snakemake() == []
    repository.edit_code("datasets/packing.py")
    assert repository.snakemake() == EVERY_STEP, "a dataset has no input that could be newer"
    assert repository.dvc_repro() == []
    assert repository.snakemake() == []


def test_an_edit_of_what_packs_images_reaches_files_that_dvc_made(tmp_path):
    folder = start(tmp_path / "project", "copy")
    assert folder.dvc_repro() == EVERY_STEP
    folder.edit_code("datasets/packing.py")
    assert "rule pack_dataset" in folder.call("snakemake", "--dry-run")
    assert folder.snakemake() == EVERY_STEP, "although Snakemake has no record of them"
    assert folder.dvc_repro() == []


@pytest.fixture
def clone(repository, tmp_path):
    return clone_of(repository, tmp_path / "second")


def test_a_clone_with_other_comments_that_pulls_computes_nothing(clone):
    for name in ("errors.py", "losses/kd.py", "datasets/packing.py", "storage/atomic.py", "training/loop.py"):
        clone.comment(name)
    clone.call("dvc", "pull")
    assert clone.snakemake() == []
    assert clone.dvc_repro() == []
    clone.call("edpipe", "code")
    assert "up to date" in clone.call("dvc", "status")


@pytest.mark.parametrize("cache_type", CACHE_TYPES)
def test_a_clone_that_pulls_everything_computes_nothing(clone, cache_type):
    clone.call("dvc", "config", "--local", "cache.type", cache_type)
    clone.call("dvc", "pull")
    assert clone.snakemake() == []
    assert clone.dvc_repro() == []
    clone.edit(MIDDLE, MIDDLE.replace("0.1", "5e-2"))
    assert clone.snakemake() == FROM_MIDDLE
    assert clone.dvc_repro() == []


def test_a_clone_that_pulls_soft_labels_runs_only_student_steps(clone):
    clone.call("dvc", "pull", *SHARED_GROUPS)
    assert clone.snakemake() == ALL_STUDENT_STEPS
    assert clone.dvc_repro() == []


def test_steps_that_dvc_does_not_know_yet_are_not_made_again(clone):
    clone.call("dvc", "pull", *SHARED_GROUPS)
    clone.call("git", "rm", "--quiet", "--cached", "dvc.lock")
    lock = yaml.safe_load((clone.root / "dvc.lock").read_text())
    lock["stages"] = {name: stage for name, stage in lock["stages"].items() if name.split("@")[0] not in STUDENT_RULES}
    (clone.root / "dvc.lock").write_text(yaml.safe_dump(lock))
    clone.call("snakemake", "--dry-run")
    assert clone.steps_of("env", "EDPIPE_DVC=0", "snakemake", "--cores", "2") == ALL_STUDENT_STEPS
    assert clone.snakemake() == [], "as after a run that was killed before it could hand over"
    assert "14 steps handed over to DVC" in clone.call("edpipe", "dvc-record")
    assert clone.dvc_repro() == []


def test_what_was_made_without_dvc_can_be_handed_over(tmp_path):
    folder = start(tmp_path / "project", "copy")
    assert "steps are out of date or missing" in folder.call("edpipe", "dvc-record", is_refused=True)
    folder.steps_of("env", "EDPIPE_DVC=0", "snakemake", "--cores", "2")
    assert not (folder.root / "dvc.lock").exists()
    assert "33 steps handed over to DVC" in folder.call("edpipe", "dvc-record")
    assert folder.dvc_repro() == []
    assert folder.snakemake() == []


def test_steps_finished_before_a_failure_are_handed_over(tmp_path):
    folder = start(tmp_path / "project", "copy")
    (folder.root / "failing").write_text("evaluate --experiment ed")
    folder.call("snakemake", "--cores", "2", "--keep-going", is_refused=True)
    (folder.root / "failing").unlink()
    assert folder.dvc_repro() == sorted(end_of("ed"))
    assert folder.snakemake() == []


def rules_of(output):
    """The rules and stages that a tool says it has run."""
    return sorted(re.findall(r"(?:\d done    |Running stage ')(?!check_params)(\w+)", output))


def test_real_steps_agree_as_well(tmp_path):
    folder = start(tmp_path / "project", "copy", has_stand_in=False)
    folder.edit("tracked: [ce, kd, ed]", "tracked: [ed]")
    from_middle = ["evaluate", "report", "result", "run_stage", "run_stage"]

    made = rules_of(folder.call("snakemake", "--cores", "2"))
    assert len(made) == 20, made
    assert rules_of(folder.call("dvc", "repro")) == []
    assert "Nothing to be done" in folder.call("snakemake", "--cores", "2")

    folder.edit(MIDDLE, MIDDLE.replace("0.1", "5e-2"))
    assert rules_of(folder.call("dvc", "repro")) == from_middle
    cost = json.loads((folder.root / "results/ed.json").read_text())["cost"]
    assert cost["with_figures"] == cost["artifacts"] == 18, "both tools' steps note what they took"
    assert folder.call("git", "status", "--short", "benchmarks") == "", "and git does not see it"
    assert "Nothing to be done" in folder.call("snakemake", "--cores", "2")
    metrics = without_cost(folder.root / "results/ed.json")

    folder.edit(MIDDLE.replace("0.1", "5e-2"), MIDDLE)
    assert rules_of(folder.call("dvc", "repro")) == []
    assert without_cost(folder.root / "results/ed.json") != metrics
    folder.edit(MIDDLE, MIDDLE.replace("0.1", "5e-2"))
    folder.call("snakemake", "--cores", "2")
    assert without_cost(folder.root / "results/ed.json") == metrics, "made again by the other tool: the same"
    assert rules_of(folder.call("dvc", "repro")) == []
