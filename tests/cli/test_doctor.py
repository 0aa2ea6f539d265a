"""`edpipe doctor`: each check with a made fault, in the words that are shown."""

import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pretended
import psutil
import pytest
from project import ROOT

from edpipe.cli.commands import doctor
from edpipe.cli.doctor import machine, project, software
from edpipe.cli.doctor.findings import Level, fault, findings, ok, warning
from edpipe.cli.main import main
from edpipe.errors import BusyError, EdpipeError
from edpipe.pipeline.dvc import repo
from edpipe.runtime import device

VARIABLES = ("EDPIPE_THREADS", "OMP_NUM_THREADS", "EDPIPE_PROCESSES", "EDPIPE_DEVICE", "EDPIPE_DVC", "EDPIPE_LOGGER")
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with params.yaml, and an environment that says nothing."""
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    pretended.write_params(tmp_path)
    return tmp_path


def lines(check):
    """Level, word and text of what a check finds."""
    return [f"{one.level} {one.what}: {doctor.line_of(one)}" for one in findings([("check", check)])]


def only(check):
    [line] = lines(check)
    return line


def test_a_python_that_is_too_old_is_a_fault(monkeypatch):
    assert lines(software.check_python)[0].startswith("ok python: 3.")
    monkeypatch.setattr(software.platform, "python_version", lambda: "3.9.1")
    monkeypatch.setattr(software, "_python", lambda: ">=3.11")
    assert lines(software.check_python)[0] == (
        "fault python: 3.9.1, edpipe needs >=3.11; make a virtual environment with a newer Python"
    )


def test_a_logger_plugin_that_snakemake_does_not_find_is_a_fault(monkeypatch):
    assert only(software.check_plugin) == "ok view: snakemake finds the logger plugin edpipe"
    monkeypatch.setattr(sys, "path", [])
    assert only(software.check_plugin) == (
        "fault view: snakemake_logger_plugin_edpipe is not on Python's path: snakemake refuses `logger: [edpipe]` of "
        "workflow/profiles/default; install edpipe again, `pip install -e .` in its folder"
    )


def test_the_copy_that_runs_is_named():
    assert lines(software.check_python)[1].endswith(f"from {ROOT / 'edpipe'}")


def test_every_package_is_compared_with_its_bounds(monkeypatch):
    needs = ["torch>=2.11", "dvc>=3.60,<4", "h5py>=3.12", "pillow>=11", "rich", "gone>=1", "pytest>=9 ; extra == 'dev'"]
    have = {"torch": "2.10.1+cpu", "dvc": "4.0", "h5py": "3.12.0", "pillow": "11.1", "rich": "14"}
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: needs)

    def version(name):
        if name not in have:
            raise importlib.metadata.PackageNotFoundError(name)
        return have[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert lines(software.check_packages) == [
        "fault torch: 2.10.1+cpu, edpipe needs >=2.11; `pip install 'torch>=2.11'`",
        "fault dvc: 4.0, edpipe needs <4,>=3.60; `pip install 'dvc<4,>=3.60'`",
        "ok h5py: 3.12.0 (>=3.12)",
        "fault gone: not installed, edpipe needs >=1; `pip install 'gone>=1'`",
        "ok packages: 2 more as required",
    ]


def test_where_edpipe_is_not_installed_nobody_knows_its_needs(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    monkeypatch.setattr(importlib.metadata, "metadata", missing)
    assert only(software.check_packages).startswith("warning packages: edpipe is not installed, so that nobody knows")
    assert lines(software.check_python)[0].startswith("ok python")


def test_packages_of_this_environment_fit():
    assert {line.split()[0] for line in lines(software.check_packages)} == {"ok"}


def test_a_device_that_is_none_is_a_fault(monkeypatch):
    monkeypatch.setenv("EDPIPE_DEVICE", "cpu")
    assert lines(machine.check_device)[0].startswith("ok device: cpu")
    monkeypatch.setenv("EDPIPE_DEVICE", "gpu")
    assert only(machine.check_device).startswith("fault check: EDPIPE_DEVICE='gpu': no device of torch; use cpu, cuda")


def test_a_cpu_that_is_slow_in_bfloat16_is_a_warning(monkeypatch):
    monkeypatch.setattr(machine.bfloat16, "is_slow_here", lambda: True)
    assert only(machine.check_bfloat16) == (
        "warning bfloat16: this CPU has no instructions for bfloat16 (AVX-512), so that float32 is several times as "
        "fast; where a recipe says bfloat16, write `precision: float32` into the recipe"
    )
    monkeypatch.setattr(machine.bfloat16, "is_slow_here", lambda: False)
    assert not lines(machine.check_bfloat16)


def test_a_gpu_that_torch_does_not_see_is_a_warning(monkeypatch, tmp_path):
    import torch

    (tmp_path / "gpus" / "0").mkdir(parents=True)
    monkeypatch.setattr(machine, "GPU_FOLDER", tmp_path / "gpus")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert lines(machine.check_device)[1] == (
        f"warning device: this machine has an NVIDIA GPU that torch {torch.__version__} does not see; install a torch "
        "that is built for CUDA, or a driver that is new enough for it"
    )


def test_a_gpu_and_a_mac_are_named(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert lines(machine.check_device)[0] == "ok device: cpu; EDPIPE_DEVICE=mps would use this Mac's GPU"
    monkeypatch.setattr(device, "prepare_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 2 * 10**9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H200")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert only(machine.check_device) == "ok device: cuda:0: H200, 1.0 GB of 2.0 GB free; GPUs: 4"


def test_a_torch_that_cannot_be_imported_is_a_fault(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert only(machine.check_device).startswith("fault check: this check failed: ModuleNotFoundError: import of torch")


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setattr(machine, "CPU_QUOTA", Path("absent"))
    monkeypatch.setattr(machine, "GPU_FOLDER", Path("absent"))


def test_more_threads_than_cores_are_a_warning(two_cores, monkeypatch):
    assert only(machine.check_threads) == "ok threads: 2 threads a step, 2 cores may be used"
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert only(machine.check_threads) == (
        "warning threads: 8 threads a step, 2 cores may be used: they would wait for each other; set OMP_NUM_THREADS=2"
    )


def test_a_share_of_the_cores_counts(two_cores, monkeypatch, tmp_path):
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    monkeypatch.setattr(machine, "CPU_QUOTA", tmp_path / "cpu.max")
    assert only(machine.check_threads).startswith("warning threads: 2 threads a step, 1 cores may be used")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert only(machine.check_threads).startswith("ok")


def test_processes_that_share_too_few_cores_are_a_warning(two_cores, monkeypatch):
    monkeypatch.setenv("EDPIPE_PROCESSES", "2")
    assert only(machine.check_threads).endswith(
        "EDPIPE_PROCESSES=2: they would wait for each other; unset EDPIPE_PROCESSES"
    )


@pytest.mark.parametrize("name", ["EDPIPE_THREADS", "OMP_NUM_THREADS", "EDPIPE_PROCESSES"])
def test_a_number_of_threads_that_is_none_is_a_fault(two_cores, monkeypatch, name):
    monkeypatch.setenv(name, "many")
    assert only(machine.check_threads).startswith(f"fault check: {name}='many': must be a whole number")


def test_little_memory_is_a_warning(monkeypatch):
    assert " available" in only(machine.check_memory)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**9, total=8 * 10**9))
    assert only(machine.check_memory) == (
        "warning memory: 1.0 GB of 8.0 GB available; end what else runs, or run fewer jobs at once "
        "(`snakemake --cores`)"
    )


@pytest.mark.parametrize(("free", "level"), [(10**11, "ok"), (10**9, "warning"), (10**8, "fault")])
def test_little_room_is_a_warning_and_none_a_fault(monkeypatch, free, level):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda where: Usage(10**12, 0, free))
    monkeypatch.setattr(machine, "file_system", lambda path: "ext4")
    line = only(machine.check_disk)
    assert line.startswith(f"{level} disk: {machine.size(free)} of 1.0 TB free for artifacts, on ext4")
    assert level != "fault" or line.endswith(
        "make room (`edpipe cache --delete`), or let artifacts be a link to a larger disk"
    )


def test_a_disk_without_inodes_and_one_of_memory_are_found(monkeypatch):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda where: Usage(10**12, 0, 10**11))
    monkeypatch.setattr(machine.os, "statvfs", lambda where: SimpleNamespace(f_files=9, f_favail=0))
    monkeypatch.setattr(machine, "file_system", lambda path: "tmpfs")
    assert lines(machine.check_disk)[1:] == [
        "fault disk: no file can be added, whatever room there is: no inode is free; delete small files",
        "warning disk: tmpfs is memory: what lies there is gone after a restart; keep the project on a disk",
    ]


def test_the_file_system_is_that_of_the_deepest_mount(monkeypatch):
    Part = namedtuple("Part", "mountpoint fstype")
    parts = [Part("/", "ext4"), Part("/data", "nfs4"), Part("/data2", "xfs")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: parts)
    assert machine.file_system(Path("/data/project")) == "nfs4"
    assert machine.file_system(Path("/home")) == "ext4"
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: [])
    assert machine.file_system(Path("/home")) == "an unknown file system"


def test_links_and_locks_are_tried_beside_the_artifacts_and_leave_nothing(folder):
    (folder / "artifacts").mkdir()
    assert machine.place() == Path("artifacts")
    found = lines(machine.check_writing)
    assert found[0].startswith("ok links: hard links: ")
    assert found[1] == "ok locks: keep a second process out"
    assert list((folder / "artifacts").iterdir()) == []


def test_a_disk_without_links_is_told(monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(machine.os, "link", refuse)
    monkeypatch.setattr(machine.fcntl, "ioctl", refuse)
    assert lines(machine.check_writing)[0] == "ok links: hard links: no; shared blocks (reflinks): no"


def test_shared_blocks_are_told(monkeypatch):
    monkeypatch.setattr(machine.fcntl, "ioctl", lambda *_: 0)
    assert lines(machine.check_writing)[0].endswith("reflinks): yes")


@pytest.mark.parametrize(
    ("answers", "line"),
    [
        ([False], "a new file is locked already"),
        ([True, True], "two have one lock at once: two steps could write one file"),
        ([OSError(37, "No locks available")], "files cannot be locked here: No locks available"),
    ],
)
def test_locks_that_do_not_work_are_a_fault(monkeypatch, answers, line):
    def answer(descriptor, blocking):
        now = answers.pop(0)
        if isinstance(now, OSError):
            raise now
        return now

    monkeypatch.setattr(machine, "lock_descriptor", answer)
    assert lines(machine.check_writing)[1] == (
        f"fault locks: {line}; mount this file system with locks (NFS: version 4, or without nolock), or move the "
        "project to another"
    )


def test_a_folder_that_cannot_be_written_is_a_fault(folder, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine.tempfile, "mkdtemp", refuse)
    assert only(machine.check_writing) == (
        f"fault disk: nothing can be written to {folder}: Permission denied; give yourself the right to, or work in a "
        "folder of your own"
    )


def test_params_that_are_wrong_are_faults(folder):
    assert only(project.check_params).startswith("ok params: params.yaml: 9 experiments, ")
    pretended.write_params(folder, [("experiments.digits_ed.student", "resnet9")])
    assert only(project.check_params).startswith("fault check: experiments.digits_ed.student: ")
    (folder / "params.yaml").unlink()
    assert only(project.check_params).startswith("fault check: params.yaml")


def test_a_logger_that_is_not_installed_is_a_fault(folder, monkeypatch):
    monkeypatch.setenv("EDPIPE_LOGGER", "nothing")
    assert lines(project.check_params)[1].startswith("fault check: EDPIPE_LOGGER='nothing': no such logger")
    monkeypatch.setattr(project, "chosen_logger", lambda name: "wandb")
    assert lines(project.check_params)[1] == "ok logger: wandb is told the learning curves"


def test_edited_code_and_a_file_that_does_not_fit_are_warnings(monkeypatch):
    monkeypatch.setattr(project, "is_edited", lambda unit: False)
    monkeypatch.setattr(project, "changed_units", list)
    assert only(project.check_code) == "ok code: as confirmed"
    monkeypatch.setattr(project, "is_edited", lambda unit: unit in ("losses.kd", "losses.dkd"))
    monkeypatch.setattr(project, "changed_units", lambda: ["losses.kd", *"abc"])
    assert lines(project.check_code) == [
        "warning code: edited and not confirmed: losses.dkd, losses.kd; what hangs on it runs again; "
        "`edpipe code confirm`",
        "warning code: workflow/code.yaml does not fit the code of losses.kd, a, b and 1 more: `dvc repro` would stop; "
        "`edpipe code`",
    ]


def test_who_is_at_work_is_told(folder):
    assert lines(project.check_runs) == []
    told = {"host": socket.gethostname(), "pid": 1, "began_s": psutil.Process(1).create_time()}
    (folder / ".edpipe" / "runs").mkdir(parents=True)
    (folder / ".edpipe" / "runs" / "other.json").write_text(json.dumps(told | {"outputs": [], "knobs": {}}))
    (folder / ".snakemake" / "locks").mkdir(parents=True)
    (folder / ".snakemake" / "locks" / "0.input.lock").write_text("x")
    assert only(project.check_runs) == f"ok runs: snakemake is at work: process 1 on {socket.gethostname()}"


def test_a_lock_that_a_killed_snakemake_left_is_a_warning(folder):
    (folder / ".snakemake" / "locks").mkdir(parents=True)
    assert lines(project.check_runs) == []
    (folder / ".snakemake" / "locks" / "0.input.lock").write_text("x")
    assert only(project.check_runs) == (
        "warning runs: .snakemake/locks is not empty: a snakemake was killed, or one builds its graph just now; if "
        "none is at work, `snakemake --unlock`"
    )


def git(*words):
    names = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return subprocess.run(["git", *words], capture_output=True, env=os.environ | names, check=False)


@pytest.fixture
def git_repo(folder, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    git("init", "--initial-branch", "main")
    git("add", "params.yaml")
    git("commit", "-m", "first")


def test_the_state_of_git_is_told(git_repo, folder):
    assert only(project.check_git) == "ok git: everything is committed"
    (folder / "notes.txt").write_text("x")
    assert only(project.check_git) == "ok git: 1 files are not committed as they are"


def test_both_sides_of_a_merge_are_a_fault(git_repo, folder):
    for branch in ("one", "other"):
        git("checkout", "-b", branch, "main")
        (folder / "params.yaml").write_text(f"{branch}: 1\n")
        git("commit", "-a", "-m", branch)
    git("merge", "one")
    assert only(project.check_git) == (
        "fault git: both sides of a merge are in params.yaml; mend these files, then `git add` them"
    )


def test_a_folder_without_git_is_a_warning(folder, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))
    line = only(project.check_git)
    assert line.startswith("warning git: not a git repository")
    assert line.endswith("; `git init`, then commit params.yaml")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(), "warning git: not installed; install it: DVC and `edpipe code confirm` need it"),
        (subprocess.TimeoutExpired("git", 30), "warning git: does not answer within 30 s; look what `git status` does"),
    ],
)
def test_a_git_that_does_not_answer_is_a_warning(monkeypatch, error, line):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(project.subprocess, "run", fail)
    assert only(project.check_git) == line


def dvc_lines(asks_remote=False):
    return lines(lambda: project.check_dvc(asks_remote))


def test_a_folder_without_dvc_is_a_warning(folder, monkeypatch):
    assert dvc_lines() == [
        "warning dvc: does not look after this folder: artifacts are not shared with anybody; `dvc init` in a git "
        "repository, and dvc.yaml"
    ]
    monkeypatch.setenv("EDPIPE_DVC", "0")
    assert dvc_lines() == ["ok dvc: left out by EDPIPE_DVC=0"]


@pytest.fixture
def dvc_folder(folder):
    """A project that DVC looks after, without git, as DVC calls it."""
    (folder / ".dvc" / "tmp").mkdir(parents=True)
    configure("[core]\n    no_scm = True\n")
    shutil.copytree(ROOT / "workflow", folder / "workflow", ignore=shutil.ignore_patterns("rules", "profiles"))
    for name in ("dvc.yaml", ".dvcignore", "params.yaml"):
        shutil.copyfile(ROOT / name, folder / name)


def configure(text):
    Path(".dvc/config").write_text(text)


REMOTE = "[core]\n    no_scm = True\n    remote = there\n['remote \"there\"']\n    url = {}\n"


@pytest.mark.slow
def test_a_dvc_that_follows_is_told_and_a_missing_remote_is_a_warning(dvc_folder):
    assert dvc_lines() == [
        "ok dvc: follows what params.yaml lists as tracked",
        "warning remote: none: `dvc push` and `dvc pull` have no place to go to; "
        "`dvc remote add --default NAME ADDRESS`",
    ]


@pytest.mark.slow
def test_a_dvc_that_cannot_open_is_a_fault(dvc_folder):
    configure("[core]\n    nothing = True\n")
    found = dvc_lines()
    assert found[0].startswith("fault dvc: DVC cannot go on here: ")
    assert found[1].startswith("fault remote: DVC cannot read its configuration: ")
    assert found[1].endswith("; mend .dvc/config")
    Path("dvc.lock").write_text("<<<<<<< ours\n")
    assert dvc_lines()[0].startswith("fault dvc: DVC cannot go on here: dvc.lock holds both sides of a merge")


@pytest.mark.slow
def test_lists_that_do_not_fit_are_a_warning(dvc_folder):
    Path("workflow/tracked_jobs.yaml").write_text("jobs: {}\n")
    assert dvc_lines()[0].startswith("warning dvc: workflow/tracked_jobs.yaml: does not fit params.yaml any more; run")


def test_a_busy_dvc_is_no_fault(dvc_folder, monkeypatch):
    def busy(is_patient):
        raise BusyError(repo.BUSY)

    monkeypatch.setattr(repo, "open_repo", busy)
    assert dvc_lines()[0] == "ok dvc: is at work here just now"
    configure(REMOTE.format(Path.cwd()))
    assert dvc_lines(True)[1].startswith("warning remote: DVC is at work in this folder")


def remote_line(address, asks_remote=False):
    configure(REMOTE.format(address))
    return lines(lambda: project._remote_findings(asks_remote))[0]


def test_a_remote_without_an_address_a_plugin_or_a_folder_is_a_fault(dvc_folder, folder, monkeypatch):
    configure("[core]\n    no_scm = True\n    remote = there\n")
    [line] = lines(lambda: project._remote_findings(False))
    assert line == "fault remote: 'there' has no address; `dvc remote modify there url ADDRESS`"
    monkeypatch.setattr(project.importlib.util, "find_spec", lambda name: None)
    assert remote_line("s3://bucket/path") == (
        "fault remote: 'there' at s3://bucket/path: DVC needs a plugin for s3; `pip install dvc-s3`"
    )
    line = remote_line(folder / "nowhere")
    assert line.startswith("fault remote: 'there' at ")
    assert line.endswith("nowhere: there is no such folder; make it, or `dvc remote modify there url ADDRESS`")


@pytest.mark.slow
def test_a_remote_is_asked_only_where_that_is_wanted(dvc_folder, tmp_path_factory, monkeypatch):
    there = tmp_path_factory.mktemp("there")
    assert remote_line(there) == f"ok remote: 'there' at {there}; not asked (`edpipe doctor --remote` does)"
    assert remote_line(there, asks_remote=True) == f"ok remote: 'there' at {there}: answers"

    def fail(is_patient):
        raise OSError("no route\nto host")

    monkeypatch.setattr(repo, "open_repo", fail)
    assert remote_line(there, asks_remote=True) == (
        f"fault remote: 'there' at {there}: does not answer: no route to host; look at its address, your network and "
        "your rights"
    )


def test_a_remote_that_is_not_verified_is_a_warning(dvc_folder, tmp_path_factory):
    there = tmp_path_factory.mktemp("there")
    configure(REMOTE.format(there))
    assert lines(lambda: project._remote_findings(False))[1:] == [
        "warning remote: 'there': `dvc pull` takes over damaged files without a word; "
        "`dvc remote modify there verify true`"
    ]
    configure(REMOTE.format(there) + "    verify = true\n")
    assert len(lines(lambda: project._remote_findings(False))) == 1


def test_a_check_that_breaks_does_not_hide_the_others():
    def broken():
        raise RuntimeError("a\nb")

    def refused():
        raise EdpipeError("one", "two")

    found = findings([("x", broken), ("y", refused), ("z", lambda: [ok("z", "fine")])])
    assert [(one.level, one.what, doctor.line_of(one)) for one in found] == [
        (Level.FAULT, "x", "this check failed: RuntimeError: a b; mend that, and look again"),
        (Level.FAULT, "y", "one"),
        (Level.FAULT, "y", "two"),
        (Level.OK, "z", "fine"),
    ]


def pretend_checks(monkeypatch, *found):
    monkeypatch.setattr(doctor, "checks", lambda asks_remote: [("x", lambda: found)])


def test_without_a_fault_it_ends_well(monkeypatch, capsys):
    pretend_checks(monkeypatch, ok("disk", "fine"), warning("git", "old", "renew it"))
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok       disk         fine",
        "warning  git          old; renew it",
    ]


def test_a_fault_is_exit_code_2(monkeypatch, capsys):
    pretend_checks(monkeypatch, ok("disk", "fine"), fault("git", "broken", "mend it"))
    assert main(["doctor", "--json"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["findings"][1] == {
        "level": "fault", "what": "git", "text": "broken", "remedy": "mend it",
    }  # fmt: skip
    assert said.err == "edpipe: 1 fault; mend what is said there, then call this again\n"


def test_control_characters_are_not_obeyed(monkeypatch, capsys):
    pretend_checks(monkeypatch, warning("git", "\x1b[2Jred", "x"))
    assert main(["doctor"]) == 0
    assert "\x1b[2J" not in capsys.readouterr().out


def test_all_checks_have_a_test():
    """Each name of a check's function stands in this file."""
    text = Path(__file__).read_text(encoding="utf-8")
    for module in (software, machine, project):
        for name in vars(module):
            assert not name.startswith("check_") or f".{name}" in text or name.startswith("check_tracked"), name
