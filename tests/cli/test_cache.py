"""`edpipe cache`: what it finds, what it counts, and that it deletes what nobody needs and nothing else."""

import io
import json
import os
import re
import socket
import subprocess
from pathlib import Path

import pretended
import psutil
import pytest

from edpipe.cli.commands import cache
from edpipe.cli.main import main
from edpipe.errors import EXIT_LATER, OverwriteError
from edpipe.pipeline.cache.deletion import delete
from edpipe.pipeline.cache.inventory import inventory
from edpipe.pipeline.cache.places import Kind, place_of, targets_of
from edpipe.pipeline.cache.savings import groups_of
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.jobs.graph import jobs_of
from edpipe.pipeline.state.artifact_lock import only_maker
from edpipe.pipeline.state.judgement import all_jobs
from edpipe.storage.records import read_record, record_path, write_record

EXPERIMENTS = ["digits_ed", "digits_kd"]
TEACHER = paths.teacher_path("digits", "digits_teacher", "all")
DIGITS = {name: knobs for name, knobs in pretended.raw_params()["experiments"].items() if name.startswith("digits_")}
"""The experiments of params.yaml here: the others would only cost time."""
STUDENT = paths.student_path("digits_kd", 0, 1, "only")


def params_with(changes=()):
    return pretended.params_with([("experiments", DIGITS), *changes])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in which digits_ed and digits_kd are made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDPIPE_DVC", "0")
    pretended.pretend_all(tmp_path, EXPERIMENTS)
    pretended.write_params(tmp_path, [("experiments", DIGITS)])
    return tmp_path


def make(path, text="x" * 100):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def reasons(changes=()):
    return {str(entry.path): entry.reason for entry in inventory(params_with(changes)) if entry.reason}


def test_the_page_of_all_results_is_edpipes_and_stays(folder):
    make("results/index.html")
    (entry,) = [entry for entry in inventory(params_with()) if entry.path == Path("results/index.html")]
    assert (entry.place.kind, entry.reason) == (Kind.INDEX, "")


def files():
    return {path for root in ("artifacts", "results") for path in Path(root).rglob("*") if path.is_file()}


def run(*words):
    return main(["cache", *words])


def as_json(capsys, *words):
    assert run("--json", *words) == 0
    return json.loads(capsys.readouterr().out)


def test_every_output_of_every_job_has_its_place():
    params = params_with()
    for job in all_jobs(params):
        for path in job.outputs:
            place = place_of(path)
            assert path in place.job(params).outputs
            assert place.kind not in (Kind.UNKNOWN, Kind.UNFINISHED)


def test_what_jobs_need_stays(folder):
    assert reasons() == {}
    before = files()
    assert run("--delete", "--yes") == 0
    assert files() == before


def test_users_are_the_experiments_whose_jobs_make_it(folder):
    found = {entry.path: entry.used_by for entry in inventory(params_with())}
    assert set(found[paths.dataset_path("digits")]) >= {"digits_ce", *EXPERIMENTS}
    assert found[TEACHER] == ("digits_kd",)
    assert found[STUDENT] == ("digits_kd",)


GONE = {
    "artifacts/datasets/mnist.h5": "params.yaml has no dataset 'mnist'",
    "artifacts/partitions/digits/fifths.json": "params.yaml has no partition 'fifths'",
    "artifacts/teachers/digits/old/all.safetensors": "params.yaml has no teacher 'old'",
    "artifacts/teachers/digits/digits_teacher/primary.json": "digits/digits_teacher has no subset primary any more",
    "artifacts/soft_labels/digits/old/all/views_0-3.h5": "params.yaml has no teacher 'old'",
    "artifacts/soft_labels/digits/digits_teacher/all/views_0-8.h5": "views 0-8 are of an earlier setting of "
    "soft_labels.digits.views",
    "artifacts/teacher_evaluations/mnist/digits_teacher/all.json": "params.yaml has no dataset 'mnist'",
    "artifacts/trajectories/digits/old/seed0.h5": "params.yaml has no teacher 'old'",
    "artifacts/students/digits_old/seed0/1_only.safetensors": "params.yaml has no experiment 'digits_old'",
    "artifacts/students/digits_kd/seed7/1_only.json": "digits_kd has no seed 7, stage only any more",
    "artifacts/students/digits_kd/seed0/2_only.safetensors": "digits_kd has no seed 0, stage only any more",
    "artifacts/evaluations/digits_kd/seed7.json": "digits_kd has no seed 7 any more",
    "results/digits_old.json": "params.yaml has no experiment 'digits_old'",
    "results/digits_old.html": "params.yaml has no experiment 'digits_old'",
    "results/study_old.md": "params.yaml has no study 'old'",
    "results/study_old.svg": "params.yaml has no study 'old'",
    "artifacts/students/digits_old/seed0/.resume/1_only": "unfinished, and params.yaml has no job that would go on "
    "from it",
    "artifacts/.resume/datasets-mnist-0a1b": "unfinished, and params.yaml has no job that would go on from it",
    "artifacts/students/digits_kd/seed0/.resume/1_only": f"unfinished, but {STUDENT} is finished",
    "artifacts/soft_labels/digits/digits_teacher/.resume/all-views_0-8-0a1b": "unfinished, and params.yaml has no job "
    "that would go on from it",
}


def make_gone():
    for path in GONE:
        make(f"{path}/0a1b/lock" if ".resume" in path else path)


def test_what_no_job_makes_may_go_and_why(folder):
    make_gone()
    assert reasons() == GONE


def test_what_may_go_is_deleted_and_nothing_else(folder, capsys):
    before = files()
    make_gone()
    others = {make("artifacts/notes.txt"), make("results/my_plot.png"), make("artifacts/students/digits_kd/seed0/x.pt")}
    assert run("--delete", "--yes") == 0
    assert files() == before | others
    assert not Path("artifacts/students/digits_old").exists(), "empty folders go too"
    said = capsys.readouterr()
    assert "params.yaml has no teacher 'old':" in said.out
    assert said.err == f"deleted {len(GONE)} files; {len(GONE) / 10} kB ({len(GONE) * 100:,} bytes) are free\n"
    assert reasons() == {}


def test_what_a_job_would_go_on_from_stays(folder):
    STUDENT.unlink()
    make("artifacts/students/digits_kd/seed0/.resume/1_only/0a1b/0000000001-0.safetensors")
    make("artifacts/soft_labels/digits/digits_teacher/.resume/all-views_0-3-0a1b/lock")
    paths.soft_labels_path("digits", "digits_teacher", "all", "0-3").unlink()
    assert reasons() == {}


def test_a_stale_artifact_keeps_what_is_unfinished_beside_it(folder):
    make("artifacts/students/digits_kd/seed0/.resume/1_only/0a1b/0000000001-0.safetensors")
    assert reasons([("recipes.tiny_images.batch_size", 32)]) == {}


def test_files_of_dead_processes_may_go(folder):
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    host = "".join(c if c.isalnum() else "_" for c in socket.gethostname())
    gone = make(f"artifacts/datasets/.digits.h5.{host}-{dead.pid}.partial")
    make(f"artifacts/datasets/.digits.h5.{host}-{os.getpid()}.partial")
    make(f"artifacts/datasets/.digits.h5.elsewhere-{dead.pid}.partial")
    assert reasons() == {str(gone): "left by a process that is gone"}


def test_links_are_not_followed(folder, tmp_path_factory, capsys):
    outside = tmp_path_factory.mktemp("outside")
    kept = make(outside / "seed0" / "1_only.safetensors")
    Path("artifacts/students/digits_old").symlink_to(outside)
    link = Path("artifacts/students/digits_older/seed0/1_only.safetensors")
    link.parent.mkdir(parents=True)
    link.symlink_to(kept)
    make("artifacts/students/digits_oldest/seed0/.resume/1_only/lock")
    Path("artifacts/students/digits_oldest/seed0/.resume/1_only/away").symlink_to(outside)
    assert set(reasons()) == {str(link), "artifacts/students/digits_oldest/seed0/.resume/1_only"}
    assert run("--delete", "--yes") == 0
    assert kept.read_text(encoding="utf-8") == "x" * 100
    assert not link.is_symlink()
    assert Path("artifacts/students/digits_old").is_symlink()


def test_a_folder_that_became_a_link_meanwhile_is_refused(folder, tmp_path_factory):
    make("artifacts/students/digits_old/seed0/1_only.safetensors")
    [entry] = [entry for entry in inventory(params_with()) if entry.reason]
    outside = tmp_path_factory.mktemp("outside")
    Path("artifacts/students/digits_old").rename(outside / "digits_old")
    Path("artifacts/students/digits_old").symlink_to(outside / "digits_old")
    with pytest.raises(OverwriteError, match=r"1_only.safetensors: cannot be deleted: leads out of artifacts and"):
        delete([entry])
    assert (outside / "digits_old" / "seed0" / "1_only.safetensors").exists()


@pytest.mark.parametrize("name", ["artifacts", "results"])
def test_nothing_is_deleted_where_the_whole_folder_is_a_link(folder, tmp_path_factory, capsys, name):
    make("results/digits_old.json")
    there = tmp_path_factory.mktemp("there") / name
    Path(name).rename(there)
    Path(name).symlink_to(there)
    assert run("--delete", "--yes") == 2
    assert f"{name}: is a link to {there}; nothing outside this folder is deleted" in capsys.readouterr().err
    assert Path("results/digits_old.json").exists()


def test_hard_links_free_nothing(folder, capsys):
    one = make("artifacts/students/digits_old/seed0/1_only.safetensors")
    os.link(one, "in_the_cache")
    assert run() == 0
    said = capsys.readouterr().out
    assert "may be deleted: 1 files, which frees 0 bytes" in said
    assert "the rest of their bytes is held by a second name of the file, as in DVC's cache (`dvc gc`)" in said
    assert run("--delete", "--yes") == 0
    assert "(0 bytes) are free" in capsys.readouterr().err
    assert not one.exists()


def write_run():
    told = {"host": socket.gethostname(), "pid": 1, "began_s": psutil.Process(1).create_time()}
    make(paths.RUNS / "other.json", json.dumps(told | {"outputs": [], "knobs": {}}))


def test_nothing_is_deleted_while_snakemake_is_at_work(folder, capsys):
    old = make("results/digits_old.json")
    write_run()
    assert run() == 0, "looking is always allowed"
    capsys.readouterr()
    assert run("--delete", "--yes") == EXIT_LATER
    assert capsys.readouterr().err == (
        f"edpipe: cache: snakemake is at work in this folder (process 1 on {socket.gethostname()}); wait for its end; "
        "if there is no such process, delete .edpipe/runs/other.json\n"
    )
    assert old.exists()


def test_nothing_is_deleted_while_dvc_is_at_work(folder, capsys, monkeypatch):
    old = make("results/digits_old.json")
    monkeypatch.setattr("edpipe.pipeline.cache.deletion.repo.is_set_up", lambda: True)
    monkeypatch.setattr("edpipe.pipeline.cache.deletion.repo.is_busy", lambda: True)
    assert run("--delete", "--yes") == EXIT_LATER
    assert capsys.readouterr().err.startswith("edpipe: cache: DVC is at work in this folder; wait for it")
    assert old.exists()


def test_nothing_is_deleted_while_a_step_is_at_work_that_nobody_announced(folder, capsys):
    old = make("results/digits_old.json")
    with only_maker(STUDENT):
        assert run("--delete", "--yes") == EXIT_LATER
    words = (
        rf"edpipe: cache: process {os.getpid()} on \S+ has been making an artifact in this folder since .+; wait for"
    )
    assert re.fullmatch(words + " its end\n", capsys.readouterr().err)
    assert old.exists()


class Answering(io.StringIO):
    """A terminal at which somebody answers; meanwhile something may happen."""

    def __init__(self, answer, meanwhile=lambda: None):
        super().__init__(answer)
        self._meanwhile = meanwhile

    def isatty(self):
        return True

    def readline(self, *sizes):
        self._meanwhile()
        return super().readline(*sizes)


@pytest.mark.parametrize(
    ("answer", "is_kept"), [("y\n", False), ("Yes\n", False), ("n\n", True), ("\n", True), ("", True)]
)
def test_it_asks_first(folder, capsys, monkeypatch, answer, is_kept):
    old = make("results/digits_old.json")
    monkeypatch.setattr("sys.stdin", Answering(answer))
    assert run("--delete") == 0
    assert "delete these 1 files? [y/N] " in capsys.readouterr().err
    assert old.exists() == is_kept


def test_what_begins_or_is_needed_while_it_asks_counts(folder, capsys, monkeypatch):
    old = make("results/digits_old.json")
    monkeypatch.setattr("sys.stdin", Answering("y\n", write_run))
    assert run("--delete") == EXIT_LATER
    assert old.exists()
    (paths.RUNS / "other.json").unlink()

    def need():
        raw = pretended.raw_params()
        raw["experiments"]["digits_old"] = raw["experiments"]["digits_kd"]
        Path("params.yaml").write_text(json.dumps(raw), encoding="utf-8")

    monkeypatch.setattr("sys.stdin", Answering("y\n", need))
    assert run("--delete") == 0
    assert old.exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--yes"], "cache: --yes answers the question of --delete; give both, or none"),
        (
            ["--delete"],
            "cache: --delete asks first, and nobody can answer here; look at `edpipe cache`, then add --yes",
        ),
        (["--delete", "--json"], "cache: --delete asks first, and nobody can answer here"),
    ],
)
def test_words_that_do_not_go_together_are_one_line(folder, capsys, monkeypatch, words, line):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert run(*words) == 2
    assert capsys.readouterr().err.startswith(f"edpipe: {line}")


def test_what_cannot_be_deleted_is_one_line_and_the_others_go(folder, capsys, monkeypatch):
    first, second = make("results/digits_old.html"), make("results/digits_old.json")
    unlink = Path.unlink

    def refuse(path, **options):
        if path.name == first.name:
            raise PermissionError(13, "Permission denied")
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert run("--delete", "--yes") == 2
    assert capsys.readouterr().err.splitlines() == [
        "edpipe: results/digits_old.html: cannot be deleted: Permission denied",
        "edpipe: 1 others are deleted, 100 bytes are free",
    ]
    assert not second.exists()


def test_forwards_are_counted_as_a_budget_counts_them(folder):
    """By hand: the store of digits_teacher has three files; each of three students sees 24,000 images."""
    for job in jobs_of(params_with(), ["digits_kd"]):
        if job.step in ("dump_soft_labels", "run_stage"):
            path = record_path(job.outputs[0])
            number = {"teacher_forwards": 5000} if job.step == "dump_soft_labels" else {"images_seen": 24_000}
            write_record(path, read_record(path) | number)
    groups = {(group.kind, group.label): group for group in groups_of(inventory(params_with()), params_with())}
    store = groups[Kind.SOFT_LABELS, "digits/digits_teacher"]
    assert (store.forwards_spent, store.forwards_saved) == (3 * 5000, 3 * 24_000 - 3 * 5000)
    assert groups[Kind.STUDENT, "digits_kd"].forwards_spent is None


def test_json_holds_what_the_table_shows(folder, capsys):
    make("results/digits_old.json")
    found = as_json(capsys)
    assert found["format"] == "edpipe-cache"
    assert found["deleted"] is None
    assert found["num_files"] == len(files())
    assert found["num_bytes"] == sum(path.stat().st_size for path in files())
    assert [one["path"] for one in found["may_be_deleted"]] == ["results/digits_old.json"]
    kinds = [group["kind"] for group in found["groups"]]
    assert kinds[:2] == ["data set", "partition"]
    done = as_json(capsys, "--delete", "--yes")
    assert done["deleted"] == {"num_files": 1, "freed_bytes": 100}


def test_the_table_names_some_users_and_counts_the_others(folder, capsys):
    assert run() == 0
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if line.split()[:3] == ["data", "set", "digits"])
    assert "digits_ce, digits_kd, digits_ed" in row
    assert "nothing may be deleted" in said
    assert cache.NAMED == 3


def test_an_empty_folder_has_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pretended.write_params(tmp_path)
    assert run("--delete", "--yes") == 0
    assert "0 files, 0 bytes in artifacts and results" in capsys.readouterr().out


def test_targets_of_blocks_and_of_checkpoints():
    blocks = targets_of(Path("artifacts/soft_labels/d/t/.resume/all-views_0-8-0a"))
    assert Path("artifacts/soft_labels/d/t/all/views_0-8.h5") in blocks
    assert Path("artifacts/students/e/seed0/1_only.safetensors") in targets_of(
        Path("artifacts/students/e/seed0/.resume/1_only")
    )
