"""The ledger: what jobs took is noted whoever ran them and however they ended, and harms nobody."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import types
from dataclasses import fields, replace

import pytest
from pretended import edit_record, params_with, pretend, write_params
from project import make_project, tiny_params
from watching import TIMEOUT_S

from edpipe import __version__
from edpipe.cli.main import EXIT_MENDABLE, main
from edpipe.errors import TrainingError
from edpipe.pipeline.jobs import graph, paths, students, teachers
from edpipe.pipeline.jobs.step_table import STEP
from edpipe.pipeline.state import cost_ledger
from edpipe.pipeline.state.cost_ledger import costs_recorded, parts_of, read_entry
from edpipe.results.measures.cost import Figures
from edpipe.runtime.signals import Interrupted, interruptible

MIB = 2**20


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty project folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "EDPIPE_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EDPIPE_THREADS", "3")
    write_params(tmp_path)
    return tmp_path


@pytest.fixture
def job(folder):
    """A job that trains."""
    return stage_job()


def stage_job(**changes):
    return students.run_stage(params_with([*changes.items()]), "digits_ed", 0, "primary")


def path_of(job):
    return paths.benchmark_path(job.step, job.outputs[0])


def make(job, **facts):
    """Runs a job in play; its record has these facts."""
    with costs_recorded(job):
        pretend(job)
        edit_record(job.outputs[0], lambda record: record.update(facts))


class Clock:
    """Stands in for the module time: time passes when the test says so."""

    def __init__(self):
        self.now_s = 1000.0

    def monotonic(self):
        return self.now_s


@pytest.fixture
def clock(monkeypatch):
    """The ledger's clock."""
    clock = Clock()
    monkeypatch.setattr(cost_ledger, "time", clock)
    return clock


def end_badly(error, clock, seconds):
    if clock:
        clock.now_s += seconds
    raise error


def fail(job, error=TrainingError("no"), clock=None, seconds=0.0):  # noqa: B008  (never changed)
    with pytest.raises(type(error)), costs_recorded(job):
        end_badly(error, clock, seconds)


def test_a_finished_job_is_noted_with_all_that_is_known(job):
    make(job, images_seen=400)
    entry = read_entry(job)
    assert (entry.finished, entry.attempts, entry.images, entry.teacher_forwards) == (True, 1, 400, 0)
    assert (entry.device, entry.threads, entry.processes, entry.version) == ("cpu", 3, 1, __version__)
    assert entry.host
    assert entry.ended.endswith("+00:00")
    assert entry.peak_gpu_memory_bytes is None


def test_the_file_has_the_name_of_the_log(job):
    make(job)
    assert str(path_of(job)) == "benchmarks/run_stage/digits_ed-seed0-1_primary.json"
    assert path_of(job).is_file()


def test_seconds_are_by_the_clock_and_cpu_seconds_are_not(job):
    began_s = time.monotonic()
    with costs_recorded(job):
        time.sleep(0.2)
    entry = read_entry(job)
    assert 0.2 <= entry.seconds <= time.monotonic() - began_s
    assert entry.cpu_seconds < entry.seconds


def test_cpu_seconds_of_started_processes_count(job):
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    with costs_recorded(job):
        subprocess.run([sys.executable, "-c", burn], check=True)
    assert read_entry(job).cpu_seconds >= 0.3


@pytest.mark.slow
def test_peak_memory_is_that_of_this_process_and_not_of_the_one_that_started_it(tmp_path):
    """Linux hands a parent's peak down to the processes that it starts, in what getrusage tells."""
    measure = (
        "from edpipe.pipeline.state.cost_ledger import _peak_memory_bytes as peak; a = bytearray({}); print(peak())"
    )
    parent = f"import subprocess, sys; a = bytearray({600 * MIB}); subprocess.run([sys.executable, '-c', sys.argv[1]])"

    def peak(num_bytes):
        words = [sys.executable, "-c", parent, measure.format(num_bytes)]
        return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    small, large = peak(0), peak(300 * MIB)
    assert 10 * MIB < small < 500 * MIB
    assert 300 * MIB <= large - small + MIB < 400 * MIB


@pytest.mark.slow
def test_peak_memory_is_that_of_the_largest_process():
    start = f"subprocess.run([sys.executable, '-c', 'bytearray({300 * MIB})'])"
    take = "from edpipe.pipeline.state.cost_ledger import _peak_memory_bytes as peak"
    code = f"import subprocess, sys; {take}; {start}; print(peak())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 300 * MIB


@pytest.mark.parametrize(("unit", "expected"), [(1, 5000), (1024, 5000 * 1024)])
def test_without_proc_the_peak_is_getrusages_in_the_units_of_the_system(monkeypatch, tmp_path, unit, expected):
    monkeypatch.setattr(cost_ledger, "Path", lambda _: tmp_path / "none")
    monkeypatch.setattr(cost_ledger, "MAXRSS_UNIT_BYTES", unit)
    usage = types.SimpleNamespace(ru_maxrss=5000)
    monkeypatch.setattr(cost_ledger.resource, "getrusage", lambda who: usage)
    assert cost_ledger._peak_memory_bytes() == expected


def test_units_fit_this_system():
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * cost_ledger.MAXRSS_UNIT_BYTES
    assert 10 * MIB < own < 2**35


def stand_in_torch(is_used):
    cuda = types.SimpleNamespace(
        is_initialized=lambda: is_used,
        device_count=lambda: 2,
        max_memory_allocated=lambda device: (10, 70)[device],
        get_device_name=lambda: "Card",
    )
    return types.SimpleNamespace(cuda=cuda)


@pytest.mark.parametrize(("is_used", "peak", "device"), [(True, 70, "cuda: Card"), (False, None, "cpu")])
def test_a_gpu_is_noted_if_torch_computed_there(job, monkeypatch, is_used, peak, device):
    monkeypatch.setitem(sys.modules, "torch", stand_in_torch(is_used))
    make(job)
    entry = read_entry(job)
    assert (entry.peak_gpu_memory_bytes, entry.device) == (peak, device)


def test_the_named_device_is_that_of_steps_with_networks_only(job, monkeypatch):
    monkeypatch.setenv("EDPIPE_DEVICE", "mps")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    make(job)
    assert read_entry(job).device == "cpu"
    monkeypatch.setitem(sys.modules, "torch", stand_in_torch(False))
    make(job)
    assert read_entry(job).device == "mps"


@pytest.mark.slow
def test_torch_is_not_loaded_for_the_ledger():
    calls = "l._device(); l._peak_gpu_memory_bytes()"
    code = f"import sys, edpipe.pipeline.state.cost_ledger as l; {calls}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=TIMEOUT_S)


# Attempts


@pytest.mark.parametrize("error", [TrainingError("no"), Interrupted(signal.SIGTERM), KeyboardInterrupt(), ValueError()])
def test_an_attempt_that_ends_badly_is_noted_and_its_error_goes_on(job, error):
    fail(job, error)
    entry = read_entry(job)
    assert (entry.finished, entry.attempts, entry.images, entry.record) == (False, 1, 0, None)


def test_attempts_add_up_until_one_is_finished(job, clock):
    fail(job, clock=clock, seconds=50)
    fail(job, Interrupted(signal.SIGTERM), clock, 30)
    make(job, images_seen=400)
    entry = read_entry(job)
    assert (entry.finished, entry.attempts, entry.images, entry.seconds) == (True, 3, 400, 80)
    make(job, images_seen=400)
    again = read_entry(job)
    assert (again.attempts, again.images, again.seconds) == (1, 400, 0)


def test_the_peak_of_attempts_is_the_highest(job, monkeypatch):
    for number, (peak, gpu_peak) in enumerate([(300, None), (900, 50), (500, 20)]):
        monkeypatch.setattr(cost_ledger, "_peak_memory_bytes", lambda peak=peak: peak)
        monkeypatch.setattr(cost_ledger, "_peak_gpu_memory_bytes", lambda gpu_peak=gpu_peak: gpu_peak)
        make(job) if number == 2 else fail(job)
    assert (read_entry(job).peak_memory_bytes, read_entry(job).peak_gpu_memory_bytes) == (900, 50)


def test_attempts_with_other_knobs_do_not_count(folder, clock):
    fail(stage_job(), clock=clock, seconds=50)
    other = stage_job(**{"experiments.digits_ed.method.temperature": 2.0})
    make(other)
    entry = read_entry(other)
    assert (entry.attempts, entry.seconds) == (1, 0)


def test_a_real_signal_is_noted(job):
    with pytest.raises(Interrupted), interruptible(), costs_recorded(job):
        os.kill(os.getpid(), signal.SIGTERM)
    assert not read_entry(job).finished


def test_an_attempt_that_is_killed_leaves_nothing(job):
    fail(job)
    before = path_of(job).read_bytes()
    child = os.fork()
    if child == 0:
        with costs_recorded(job):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert path_of(job).read_bytes() == before


@pytest.mark.parametrize("text", ["", "{}", "[1]", "\xff", '{"finished": false}'])
def test_a_damaged_file_counts_as_none(job, text):
    path_of(job).parent.mkdir(parents=True)
    path_of(job).write_text(text, encoding="latin-1")
    assert read_entry(job) is None
    make(job)
    assert read_entry(job).attempts == 1


def test_a_ledger_that_cannot_be_written_is_one_line_and_no_error(job, folder, capsys):
    (folder / "benchmarks").write_text("a file where the folder should be")
    make(job)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("warning: benchmarks/run_stage/digits_ed-seed0-1_primary.json: what this step took could not")
    assert job.outputs[0].is_file()


def test_a_ledger_that_cannot_be_written_hides_no_error(job, folder, capsys):
    (folder / "benchmarks").write_text("a file where the folder should be")
    fail(job)
    assert "warning: " in capsys.readouterr().err


def test_of_processes_that_train_together_the_first_writes(job, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    make(job)
    assert read_entry(job) is None
    monkeypatch.setenv("RANK", "0")
    make(job)
    assert read_entry(job).processes == 2


# What counts


def test_forwards_of_a_dump_are_its_rows_and_those_of_a_verification_the_rows_asked_anew(folder):
    params = params_with()
    words = ("digits", "digits_specialists", "primary")
    dump, verify = teachers.dump_soft_labels(params, *words, "0-3"), teachers.verify_soft_labels(params, *words)
    make(dump, teacher_forwards=9_000)
    make(verify, teacher_forwards=18_000, verified_rows=1_000)
    assert (read_entry(dump).teacher_forwards, read_entry(verify).teacher_forwards) == (9_000, 1_000)


def test_forwards_of_a_teachers_evaluation_are_its_test_images(folder):
    job = teachers.evaluate_teacher(params_with(), "digits", "digits_specialists", "primary")
    make(job, teacher_forwards=107)
    assert read_entry(job).teacher_forwards == 107


def test_only_figures_of_the_very_artifact_that_lies_there_count(job):
    def known():
        return [part.figures is not None for part in parts_of([job])]

    assert known() == [False]
    make(job, images_seen=400)
    assert known() == [True]
    edit_record(job.outputs[0], lambda record: record.update(weights_digest="of a colleague"))
    assert known() == [False], "as after `dvc pull` of another one"
    make(job)
    for path in job.outputs:
        path.unlink()
    assert known() == [False], "nothing lies there"


def test_an_artifact_is_shared_if_its_job_names_no_experiment(folder):
    every = graph.jobs_of(params_with(), ["digits_ed", "digits_kd", "digits_ce"])
    assert all(STEP[job.step].is_shared == ("experiment" not in job.arguments) for job in every)
    shared = {part.step for part in parts_of(every) if part.is_shared}
    assert shared == {job.step for job in every if "experiment" not in job.arguments}


def test_an_unfinished_attempt_is_in_no_sum(job):
    make(job)
    fail(job)
    assert parts_of([job])[0].figures is None


def test_parts_name_their_step_and_hold_the_figures(job):
    make(job, images_seen=400)
    (part,) = parts_of([job])
    entry = read_entry(job)
    assert part.step == "run_stage"
    assert part.figures == Figures(**{field.name: getattr(entry, field.name) for field in fields(Figures)})
    assert replace(part.figures, images=0) != part.figures


# Commands


def test_a_step_that_refuses_its_input_is_an_unfinished_attempt(folder, capsys):
    words = ["evaluate", "--experiment", "digits_ed", "--seed", "0"]
    assert main(words) == EXIT_MENDABLE
    assert main(words) == EXIT_MENDABLE
    entry = read_entry(students.evaluate(params_with(), "digits_ed", 0))
    assert (entry.finished, entry.attempts) == (False, 2)


def test_words_that_name_no_job_are_not_noted(folder, capsys):
    assert main(["evaluate", "--experiment", "nobody", "--seed", "0"]) == EXIT_MENDABLE
    assert not (folder / "benchmarks").exists()


def test_a_teacher_is_made_by_its_own_command_only(folder, capsys):
    words = ["--dataset", "digits", "--teacher", "digits_specialists", "--subset", "primary"]
    assert main(["fetch_teacher", *words]) == EXIT_MENDABLE
    assert "this teacher is made by `edpipe train_teacher`, not fetch_teacher" in capsys.readouterr().err
    assert not (folder / "benchmarks").exists()


@pytest.mark.slow
def test_the_result_sums_what_every_job_of_the_experiment_took(finished_project, tmp_path):
    cost = finished_project.read_json("results/ed.json")["cost"]
    noted = {
        path.relative_to(finished_project.root / "benchmarks").parts[0]: 0
        for path in (finished_project.root / "benchmarks").rglob("*.json")
    }
    entries = [
        (path.parent.name, json.loads(path.read_text(encoding="utf-8")))
        for path in (finished_project.root / "benchmarks").rglob("*.json")
    ]
    before = [entry for step, entry in entries if step != "result"]
    assert set(noted) == {*cost["steps"], "result"}
    assert cost["artifacts"] == cost["with_figures"] == len(before) == 15
    assert cost["seconds"] == pytest.approx(sum(entry["seconds"] for entry in before))
    assert cost["seconds"] == pytest.approx(cost["own_seconds"] + cost["shared_seconds"])
    assert cost["steps"]["run_stage"]["images"] == 2 * 96
    assert cost["steps"]["train_teacher"]["images"] > 0
    assert cost["teacher_forwards"] > cost["steps"]["dump_soft_labels"]["teacher_forwards"] > 0
    assert all(entry["finished"] and entry["attempts"] == 1 for _, entry in entries)


@pytest.mark.slow
def test_a_step_that_is_terminated_is_noted_and_goes_on_adding(tmp_path):
    params = tiny_params()
    params["teachers"]["general"]["fitting"]["epochs"] = 20000
    project = make_project(tmp_path / "project", params)
    assert project.edpipe("pack_dataset", "--dataset", "digits").rc == 0
    words = ("train_teacher", "--dataset", "digits", "--teacher", "general", "--subset", "all")
    path = project.root / "benchmarks/train_teacher/digits-general-all.json"
    seconds = [0]
    for attempts in (1, 2):
        process = project.start("edpipe", *words, EDPIPE_CHECKPOINT_SECONDS="0.2")
        wait_for_a_new_checkpoint(project, process)
        process.terminate()
        assert process.wait(TIMEOUT_S) == 143
        entry = json.loads(path.read_text(encoding="utf-8"))
        assert (entry["finished"], entry["attempts"]) == (False, attempts)
        seconds.append(entry["seconds"])
    assert seconds == sorted(set(seconds))


def wait_for_a_new_checkpoint(project, process):
    known, deadline = checkpoints(project), time.monotonic() + TIMEOUT_S
    while checkpoints(project) <= known:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def checkpoints(project):
    return set(project.root.glob("artifacts/teachers/**/.resume/*/*/*.safetensors"))
