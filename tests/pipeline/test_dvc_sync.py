"""When the bridge stays out of the way, and what it says; what it does is in test_dvc_scenarios.py."""

import json
import os
import shutil
import subprocess
import types
from pathlib import Path

import pytest

from edpipe.errors import BusyError, CorruptFileError, MismatchError, OverwriteError
from edpipe.params.load import load_params
from edpipe.pipeline.dvc import reconcile, record, repo
from edpipe.pipeline.dvc import snakemake_metadata as records
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.jobs.graph import jobs_of
from edpipe.pipeline.state.judgement import Judgement
from edpipe.pipeline.state.staleness import Assessment, Verdict

MAIN_PROCESS = types.SimpleNamespace(is_main_process=True)
SUB_PROCESS = types.SimpleNamespace(is_main_process=False)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that looks as if DVC looked after it."""
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    for name in ("DVC_STAGE", "EDPIPE_DVC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(repo.importlib.util, "find_spec", lambda name: name)
    return tmp_path


def test_it_is_enabled_in_a_folder_of_dvc(folder):
    assert repo.is_enabled(MAIN_PROCESS)


@pytest.mark.parametrize("name", ["{x}", "a{", "}"])
def test_a_path_with_braces_is_refused_before_the_first_job(folder, monkeypatch, name):
    (folder / name).mkdir()
    monkeypatch.chdir(folder / name)
    shutil.copy(ROOT / "params.yaml", ".")
    line = (
        r": DVC cannot work in a folder whose path has '{' or '}'; move the project, or leave DVC out with EDPIPE_DVC="
    )
    with pytest.raises(MismatchError, match=line):
        reconcile.reconcile(load_params(), is_dry_run=False, has_dvc=True)
    with pytest.raises(MismatchError, match=line), repo.open_repo(is_patient=False):
        pytest.fail("DVC was opened")
    assert not Path("workflow").exists(), "nothing was written"


def test_it_stays_out_of_snakemakes_sub_processes(folder):
    assert not repo.is_enabled(SUB_PROCESS)


def test_it_stays_out_of_steps_that_dvc_runs(folder, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "result@digits_ed")
    assert not repo.is_enabled(MAIN_PROCESS)


def test_it_can_be_switched_off(folder, monkeypatch):
    monkeypatch.setenv("EDPIPE_DVC", "0")
    assert not repo.is_enabled(MAIN_PROCESS)


@pytest.mark.parametrize("missing", [".dvc", "dvc.yaml"])
def test_it_is_off_where_dvc_is_not_set_up(folder, missing):
    (folder / missing).rename(folder / "away")
    assert not repo.is_enabled(MAIN_PROCESS)


def test_it_is_off_where_dvc_is_not_installed(folder, monkeypatch):
    monkeypatch.setattr(repo.importlib.util, "find_spec", lambda name: None)
    assert not repo.is_enabled(MAIN_PROCESS)


def test_handing_over_without_dvc_says_what_is_missing(folder, monkeypatch):
    monkeypatch.setenv("EDPIPE_DVC", "0")
    with pytest.raises(MismatchError, match="dvc-record: there is no DVC here; install it, run `dvc init`"):
        record.record_made()


@pytest.fixture
def another_process():
    """The number of a living process that is not ours."""
    process = subprocess.Popen(["sleep", "60"])
    yield process.pid
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_real_run_stops_while_dvc_runs_a_step(folder, another_process, kind):
    entry = {"pid": another_process, "cmd": "dvc repro"}
    (folder / repo.READERS_AND_WRITERS).write_text(json.dumps({kind: {"x": [entry] if kind == "read" else entry}}))
    params = load_params()
    with pytest.raises(BusyError, match=r"^DVC is at work in this folder; wait for it or"):
        reconcile.reconcile(params, is_dry_run=False, has_dvc=True)
    reconcile.reconcile(params, is_dry_run=True, has_dvc=True)


def test_an_entry_of_a_dead_process_stops_nobody(folder):
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    (folder / repo.READERS_AND_WRITERS).write_text(json.dumps({"write": {"x": {"pid": dead.pid, "cmd": "dvc repro"}}}))
    reconcile.reconcile(load_params(), is_dry_run=False, has_dvc=True)


def test_a_real_run_brings_the_lists_in_step_and_a_dry_run_does_not(folder):
    params = load_params()
    written = (folder / paths.TRACKED_JOBS, folder / paths.CODE, folder / paths.DVC_IGNORE)
    reconcile.reconcile(params, is_dry_run=True, has_dvc=True)
    assert not any(path.exists() for path in written)
    reconcile.reconcile(params, is_dry_run=False, has_dvc=True)
    assert all(path.exists() for path in written)


def test_a_merge_conflict_is_one_line(folder):
    (folder / "dvc.lock").write_text("<<<<<<< HEAD\n")
    (folder / "dvc.yaml").write_text("stages:\n  a:\n    cmd: a\n    outs: [b]\n")
    with pytest.raises(
        CorruptFileError, match=r"^DVC cannot go on here: .*; mend that, or leave DVC out with EDPIPE_DVC=0$"
    ):
        reconcile.reconcile(load_params(), is_dry_run=False, has_dvc=True)


def test_a_full_disk_is_one_line(folder, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record, "upstream_first", refuse)
    monkeypatch.setattr(record, "changed_units", list)
    with pytest.raises(OverwriteError, match=r"^DVC cannot go on here: .*No space left.*; mend that, then call"):
        record.record()


def test_code_edited_during_a_run_is_not_recorded(folder, monkeypatch):
    monkeypatch.setattr(record, "changed_units", lambda: ["losses.kd"])
    line = (
        "^the code of losses.kd was edited while Snakemake ran; what it made is not handed over to DVC; "
        "call `snakemake` again, then `edpipe dvc-record`$"
    )
    with pytest.raises(MismatchError, match=line):
        record.record()


def test_handing_over_says_how_much_is_missing(folder, capsys):
    with pytest.raises(
        MismatchError, match=r"^dvc-record: (\d+) of \1 tracked steps are out of date or missing and were"
    ):
        record.record_made()
    assert capsys.readouterr().out == "0 steps handed over to DVC\n"


def test_a_lock_that_cannot_be_read_is_one_line(folder, monkeypatch):
    (folder / "dvc.lock").write_text("stages: [")
    job = jobs_of(load_params(), load_params().tracked)[0]
    unfit = Judgement(job, Assessment(Verdict.STALE, ("knob",)), frozenset(), True)
    with pytest.raises(
        CorruptFileError, match=r"^dvc.lock: cannot be read \(.*\); mend it, or leave DVC out with EDPIPE_DVC=0$"
    ):
        record.withdraw(load_params(), [unfit])


def test_only_copies_that_are_missing_leave_a_stage_clean():
    assert record._is_clean([])
    assert record._is_clean([{"changed outs": {"artifacts/a.h5": "not in cache"}}])
    assert not record._is_clean([{"changed deps": {"artifacts/a.h5": "modified"}}])
    assert not record._is_clean([{"changed deps": {"params.yaml": {"recipes.a": "modified"}}}])
    assert not record._is_clean([{"changed deps": {"artifacts/a.h5": "deleted"}}])
    assert not record._is_clean(["changed command"])


def test_dvc_is_busy_while_it_holds_its_lock(folder):
    import zc.lockfile

    assert not repo.is_busy()
    lock = zc.lockfile.LockFile(str(folder / repo.MAIN_LOCK))
    assert repo.is_busy()
    lock.close()
    assert not repo.is_busy()


def test_what_snakemake_holds_is_not_taken_for_a_step_of_dvc(folder, another_process):
    entry = {"pid": another_process, "cmd": repo.SNAKEMAKE}
    (folder / repo.READERS_AND_WRITERS).write_text(json.dumps({"read": {"x": [entry]}}))
    assert not repo.is_busy()


def test_outputs_are_held_until_they_are_let_go(folder):
    repo.hold_outputs()
    held = json.loads((folder / repo.READERS_AND_WRITERS).read_text())["read"]
    assert set(held) == {str(folder / "artifacts"), str(folder / "results")}
    repo.let_go()
    assert json.loads((folder / repo.READERS_AND_WRITERS).read_text()).get("read", {}) == {}
    repo.let_go()


def test_outputs_cannot_be_held_while_dvc_runs_a_step(folder, another_process):
    entry = {"pid": another_process, "cmd": "dvc repro"}
    (folder / repo.READERS_AND_WRITERS).write_text(json.dumps({"write": {str(folder / "artifacts/a"): entry}}))
    with pytest.raises(BusyError, match=r"^DVC is at work in this folder"):
        repo.hold_outputs()


@pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # of pygtrie, which DVC uses
def test_stages_and_data_that_a_user_added_are_left_alone(folder):
    (folder / "own.txt").write_text("own")
    (folder / "dvc.yaml").write_text("stages:\n  own:\n    cmd: a\n    outs: [own.txt]\n")
    before_ns = os.stat("own.txt").st_mtime_ns
    reconcile.reconcile(load_params(), is_dry_run=False, has_dvc=True)
    assert os.stat("own.txt").st_mtime_ns == before_ns


# snakemake_metadata


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A file that Snakemake has made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made.h5").write_text("content")
    records.record_file("made.h5").parent.mkdir(parents=True)
    contents = {"endtime": 1.0, "rule": "a", "params": ["'b'"], "code": "c", "input": ["d"]}
    records.record_file("made.h5").write_text(json.dumps(contents))
    return "made.h5"


def test_when_a_file_was_made_is_kept_and_from_what_is_not(made):
    records.forget_origin(made)
    assert json.loads(records.record_file(made).read_text()) == {"endtime": 1.0, "rule": "a"}
    records.forget_origin("absent.h5")


@pytest.mark.parametrize("contents", ["{", "[]", '{"params": []}'])
def test_metadata_that_tell_nothing_are_removed(made, contents):
    records.record_file(made).write_text(contents)
    records.forget_origin(made)
    assert not records.record_file(made).exists()


def test_a_record_of_unknown_params_makes_a_file_stale_for_snakemake(made):
    records.record_unknown_params(made, "a")
    record = pytest.importorskip("snakemake.persistence").MetadataRecord(
        **json.loads(records.record_file(made).read_text())
    )
    assert record.params == []
    assert (record.rule, record.endtime, record.code, record.input) == ("a", 1.0, None, None)
    assert record.record_format_version == pytest.importorskip("snakemake.persistence").RECORD_FORMAT_VERSION


def test_a_stale_file_that_snakemake_did_not_make_has_all_that_its_report_wants(made):
    Path("new.h5").write_text("content")
    os.utime("new.h5", (5, 5))
    records.record_unknown_params("new.h5", "a")
    known = json.loads(records.record_file("new.h5").read_text())
    assert (known["rule"], known["starttime"], known["endtime"]) == ("a", 5, 5)


def test_metadata_can_be_forgotten_twice(made):
    records.forget(made)
    records.forget(made)
    assert not records.record_file(made).exists()


def test_long_paths_have_records_in_folders():
    record = records.record_file("a" * 400)
    assert len(record.parts) == 5
    assert all(len(part) <= 255 for part in record.parts)
    assert record.parts[2].startswith("@")


def test_records_lie_where_snakemake_looks_for_them(tmp_path, monkeypatch):
    persistence = pytest.importorskip("snakemake.persistence.file")
    monkeypatch.chdir(tmp_path)
    records.FOLDER.mkdir()
    theirs = persistence.FilePersistence._record_path
    for path in ("a/b.h5", "é" * 200):
        owner = types.SimpleNamespace(_fetch_max_len=lambda _: 255)
        assert theirs(owner, ".snakemake/metadata", path) == str(records.record_file(path))


def test_the_time_of_a_link_is_its_own_as_output_and_the_newer_as_input(made):
    os.symlink(made, "link")
    target_ns = os.stat(made).st_mtime_ns
    records.set_output_time("link", 10**9)
    assert records.output_time_ns("link") == 10**9
    assert records.input_time_ns("link") == target_ns == os.stat(made).st_mtime_ns
    assert records.input_time_ns("missing") == 0
    assert records.input_time_ns(".") >= target_ns


def test_a_hard_link_can_be_made_to_stand_alone(made):
    os.link(made, "fellow")
    before_ns = os.stat("fellow").st_mtime_ns
    records.stand_alone(made)
    records.set_output_time(made, 10**9)
    assert os.stat("fellow").st_mtime_ns == before_ns
    assert Path(made).read_text() == "content"


def test_a_file_of_somebody_else_is_told_with_its_remedy(made, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr(records.os, "utime", refuse)
    with pytest.raises(
        OverwriteError, match=r"made.h5: its modification time \(.*\) cannot be set.*touch.*cache.type symlink"
    ):
        records.set_output_time(made, 1)
