"""What other tools believe of an artifact counts for nothing: only its own record and its bytes do.

Steps are played by stand_in_command_line.py.
"""

import os
import shutil
import subprocess
import time
from contextlib import contextmanager

import pytest
import yaml
from dvc_stories import (
    ALL_STUDENT_STEPS,
    FROM_MIDDLE,
    MIDDLE,
    NUM_STEPS,
    Folder,
    clone_of,
    end_of,
    said,
    stages_of,
    wait_for,
)

pytest.importorskip("dvc")
pytest.importorskip("snakemake")
pytestmark = pytest.mark.slow

FASTER = MIDDLE.replace("0.1", "0.3")
PRIMARY = "primary: { images: 64, learning_rate: 0.1 }"
MIDDLE_STUDENT = "artifacts/students/ed/seed0/2_middle"
HOUR_S = 3600


def without_dvc(folder, *words):
    return folder.steps_of("env", "EDPIPE_DVC=0", "snakemake", "--cores", "2", *words)


def touch_all(folder):
    folder.call("snakemake", "--cores", "2", "--touch", "--forceall")


def remove_page_and_go_by_times(folder):
    (folder.root / "results/ed.html").unlink()
    (folder.root / "results/kd.html").unlink()
    folder.call("snakemake", "--cores", "2", "--rerun-triggers", "mtime", "--", "results/kd.html")


def forget_metadata(folder):
    folder.call("snakemake", "--cleanup-metadata", f"{MIDDLE_STUDENT}.safetensors", f"{MIDDLE_STUDENT}.json")


def commit_by_force(folder):
    folder.call("dvc", "commit", "--force")
    assert "up to date" in folder.call("dvc", "status")


MISLEADING = [touch_all, remove_page_and_go_by_times, forget_metadata, commit_by_force]


@pytest.mark.parametrize("mislead", MISLEADING)
def test_nothing_makes_old_students_pass_for_those_of_a_new_knob(repository, mislead):
    repository.edit(MIDDLE, FASTER)
    mislead(repository)
    assert repository.snakemake() == FROM_MIDDLE
    assert repository.dvc_repro() == []
    assert "up to date" in repository.call("dvc", "status")


@pytest.mark.parametrize("mislead", MISLEADING[:3])
def test_dvc_is_never_told_of_them(repository, tmp_path, mislead):
    repository.edit(MIDDLE, FASTER)
    mislead(repository)
    clone = clone_of(repository, tmp_path / "second")
    clone.call("dvc", "pull")
    assert clone.dvc_repro() == FROM_MIDDLE
    assert repository.dvc_repro() == FROM_MIDDLE


def test_what_was_committed_by_force_is_taken_out_again(repository):
    repository.edit(MIDDLE, FASTER)
    repository.call("edpipe", "tracked_jobs")  # else DVC compares the knobs of before
    commit_by_force(repository)
    lines = said(repository.call("edpipe", "dvc-record", is_refused=True))
    assert lines == [
        "edpipe: taken out of dvc.lock, since the artifacts do not fit params.yaml, the code or their inputs: "
        "run_stage@ed-0-middle",
        "edpipe: dvc-record: 1 of 32 tracked steps are out of date or missing and were not handed over (see "
        "`snakemake -n`); run `snakemake` first",
    ]
    assert "run_stage@ed-0-middle" not in yaml.safe_load((repository.root / "dvc.lock").read_text())["stages"]
    assert repository.dvc_repro() == FROM_MIDDLE, "nor is it in the run cache"
    assert repository.snakemake() == []


def test_without_dvc_and_without_metadata_records_decide_as_well(repository):
    shutil.rmtree(repository.root / ".snakemake")
    assert without_dvc(repository) == []
    repository.edit(MIDDLE, FASTER)
    assert without_dvc(repository) == FROM_MIDDLE
    shutil.rmtree(repository.root / ".snakemake")
    losses = repository.root / "edpipe/losses/kd.py"
    losses.write_text(losses.read_text().replace("temperature**2", "temperature**3", 1))
    steps = without_dvc(repository)
    assert steps
    assert set(steps) <= set(ALL_STUDENT_STEPS)


def test_a_sibling_that_was_copied_over_is_made_again(repository):
    teachers = repository.root / "artifacts/teachers/digits/specialists"
    for suffix in ("safetensors", "json"):
        shutil.copy2(teachers / f"middle.{suffix}", teachers / f"primary.{suffix}")
    primary = "--dataset digits --teacher specialists --subset primary"
    made = repository.snakemake()
    assert f"train_teacher {primary}" in made
    assert f"train_teacher {primary.replace('primary', 'middle')}" not in made
    assert repository.dvc_repro() == []


@pytest.mark.parametrize("is_new", [True, False])
def test_a_restored_backup_is_made_again(repository, tmp_path, is_new):
    student = repository.root / MIDDLE_STUDENT
    copy = shutil.copyfile if is_new else shutil.copy2
    for suffix in (".safetensors", ".json"):
        shutil.copy2(student.with_suffix(suffix), tmp_path / f"backup{suffix}")
    repository.edit(MIDDLE, FASTER)
    assert repository.snakemake() == FROM_MIDDLE
    for suffix in (".safetensors", ".json"):
        copy(tmp_path / f"backup{suffix}", student.with_suffix(suffix))
    assert repository.snakemake() == FROM_MIDDLE
    assert repository.dvc_repro() == []


def flip_a_bit(path):
    """Of its content; its modification time is kept."""
    before = os.stat(path)
    contents = bytearray(path.read_bytes())
    contents[20] ^= 1
    path.write_bytes(contents)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("tool", ["snakemake", "without_dvc"])
def test_bytes_that_changed_under_a_kept_time_are_found(repository, tool):
    flip_a_bit(repository.root / f"{MIDDLE_STUDENT}.safetensors")
    steps = without_dvc(repository) if tool == "without_dvc" else repository.snakemake()
    assert steps == FROM_MIDDLE
    assert repository.snakemake() == []


def test_a_damaged_dataset_is_packed_again(repository):
    flip_a_bit(repository.root / "artifacts/datasets/digits.h5")
    assert "pack_dataset" in repository.call("snakemake", "--dry-run")
    assert len(repository.snakemake()) == NUM_STEPS


@pytest.mark.parametrize("hours", [2, -24])
def test_files_of_another_clock_neither_run_nor_fail(repository, hours):
    """As after the clock was set back, or forth; a future date used to cost the step that reads the file."""
    for folder in ("artifacts", "results"):
        for path in (repository.root / folder).rglob("*.*"):
            os.utime(path, (time.time() + hours * HOUR_S,) * 2)
    os.utime(repository.root / "artifacts/datasets/digits.h5", (time.time() + 2 * HOUR_S,) * 2)
    assert repository.snakemake() == []
    repository.edit(MIDDLE, FASTER)
    assert repository.snakemake() == FROM_MIDDLE


@contextmanager
def waiting(folder, job, *words):
    """A tool that runs while the block does, and that waits in one of its steps."""
    (folder.root / "waiting").write_text(job)
    with (folder.root / "tool.out").open("w") as stream:
        tool = subprocess.Popen(words, cwd=folder.root, env=folder.environment, stdout=stream, stderr=stream)
    try:
        wait_for(folder.root / "started")
        yield tool
    finally:
        (folder.root / "go").touch()
        tool.wait()
        for name in ("waiting", "started", "go"):
            (folder.root / name).unlink(missing_ok=True)


def output_of(folder):
    return (folder.root / "tool.out").read_text()


def test_a_job_refuses_knobs_that_were_edited_since_the_run_began(repository):
    repository.edit(PRIMARY, PRIMARY.replace("0.1", "0.2"))
    with waiting(repository, "--stage primary", "snakemake", "--cores", "1") as tool:
        repository.edit(MIDDLE, FASTER)
    assert tool.returncode == 1
    line = (
        "edpipe: params.yaml was edited since this run began (knob plan.budget.learning_rate 0.1 → 0.3); "
        "call `snakemake` again"
    )
    assert line in output_of(repository)
    repository.edit(FASTER, MIDDLE)
    assert repository.snakemake() == FROM_MIDDLE, "the first stage was made with what it said"
    assert repository.dvc_repro() == []


def test_knobs_that_were_edited_and_set_back_reach_nobody(repository):
    repository.edit(PRIMARY, PRIMARY.replace("0.1", "0.2"))
    with waiting(repository, "--stage middle", "snakemake", "--cores", "1") as tool:
        repository.edit(MIDDLE, FASTER)
        time.sleep(0.1)
        repository.edit(FASTER, MIDDLE)
    assert tool.returncode == 0
    assert repository.dvc_repro() == []
    assert repository.snakemake() == []


def test_dvc_commits_nothing_that_was_made_while_its_knobs_were_edited(repository):
    repository.edit(PRIMARY, PRIMARY.replace("0.1", "0.2"))
    with waiting(repository, "--stage primary", "dvc", "repro") as tool:
        repository.edit(PRIMARY.replace("0.1", "0.2"), PRIMARY.replace("0.1", "0.4"))
    assert tool.returncode != 0
    assert "edpipe: params.yaml was edited while this step ran (knob plan.budget.learning_rate 0.2 → 0.4)" in output_of(
        repository
    )
    assert repository.dvc_repro() == sorted([*stages_of("ed", "primary", "middle", "university"), *end_of("ed")])
    assert repository.snakemake() == []


def test_dvc_stops_while_snakemake_runs_and_deletes_nothing(repository):
    repository.edit(PRIMARY, PRIMARY.replace("0.1", "0.2"))
    with waiting(repository, "--stage primary", "snakemake", "--cores", "1") as tool:
        before = sorted(str(path) for path in (repository.root / "artifacts").rglob("*"))
        for command in ("repro", "commit"):
            output = repository.call("dvc", command, is_refused=True)
            assert "snakemake, at work in this folder until it ends" in output
        assert "changed" in repository.call("dvc", "status")
        assert sorted(str(path) for path in (repository.root / "artifacts").rglob("*")) == before
        words = ["env", "DVC_STAGE=report@kd", "edpipe", "report", "--experiment", "kd"]
        [line] = said(repository.call(*words, is_refused=True))
        assert line.startswith("edpipe: snakemake is at work in this folder (process ")
        repository.call("snakemake", "--dry-run")
        assert not (repository.root / "artifacts/students/ed/seed0/1_primary.json").exists()
    assert tool.returncode == 0, output_of(repository)
    assert repository.dvc_repro() == []


def test_a_damaged_object_of_a_remote_is_found_on_pull(repository, tmp_path):
    repository.call("dvc", "remote", "modify", "shared", "url", str(tmp_path / "remote"))
    clone = clone_of(repository, tmp_path / "second")
    lock = yaml.safe_load((repository.root / "dvc.lock").read_text())
    md5 = lock["stages"]["run_stage@ed-0-middle"]["outs"][1]["md5"]
    [damaged] = (tmp_path / "remote").rglob(md5[2:])
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    damaged.chmod(0o444)  # DVC trusts what is protected
    shutil.copytree(clone.root, tmp_path / "third")
    clone.call("dvc", "pull")
    assert "2_middle" in clone.call("edpipe", "verify", is_refused=True)
    assert clone.snakemake() == FROM_MIDDLE
    other = Folder(tmp_path / "third")
    other.call("dvc", "remote", "modify", "shared", "verify", "true")
    assert "failed" in other.call("dvc", "pull", is_refused=True)
