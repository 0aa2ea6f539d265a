"""Estimates of jobs that never ran: hand-computed from stand-in speeds, and a network that is really tried."""

import heapq
import json
import re
from collections import Counter
from dataclasses import astuple, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import make_image_folder
from pretended import params_with, pretend_all
from project import ROOT

from edpipe.cli.commands import plan
from edpipe.datasets.readers.by_name import read_raw
from edpipe.datasets.readers.published_counts import PUBLISHED
from edpipe.datasets.splits import assign_splits
from edpipe.errors import NetworkError
from edpipe.params.dataset import FETCHED
from edpipe.params.soft_labels import StorageKnobs
from edpipe.params.stage import StageKnobs
from edpipe.pipeline.estimates import makespan as makespan_module
from edpipe.pipeline.estimates import network_speed, summary, untried
from edpipe.pipeline.estimates.expected import Expected
from edpipe.pipeline.estimates.image_counts import ImageCounts, image_counts
from edpipe.pipeline.estimates.job_costs import START_S, TRAINING_SHARE_OF_VIEWS, JobCosts, feature_bytes
from edpipe.pipeline.estimates.makespan import makespan
from edpipe.pipeline.estimates.network_speed import NetworkSpeed, NetworkSpeeds, NetworkUse, measured
from edpipe.pipeline.estimates.summary import estimated
from edpipe.pipeline.estimates.untried import expected
from edpipe.pipeline.jobs import data, paths, students, teachers
from edpipe.pipeline.jobs.graph import jobs_of
from edpipe.soft_labels.encoding.precisions import make_precision, row_bytes
from edpipe.storage.job import Job, NoKnobs

SPEED = NetworkSpeed(1000.0, 4000.0, 5000, "cpu", ((16, 8, 8), (32, 4, 4)))
USE = NetworkUse("resnet8", 10, 1, 8, 16, "float32")
COUNTS = ImageCounts(10, 900, 100, 200)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def costs(params, counts=COUNTS):
    return JobCosts(params, NetworkSpeeds(lambda _: SPEED), lambda *_: counts)


# without trying networks


def seconds_of(found, job):
    return found[job.outputs[0]].seconds


def test_what_was_measured_before_is_used_and_nothing_is_tried(folder):
    params = params_with()
    counts = image_counts(params, "digits")
    teacher = teachers.make_teacher(params, "digits", "digits_teacher", "all")
    equal = expected(params, [teacher])[teacher.outputs[0]]
    training = 20 * counts.train * TRAINING_SHARE_OF_VIEWS / untried.ANY_NETWORK.training
    assert equal.seconds == pytest.approx(START_S + training + counts.val / untried.ANY_NETWORK.forward)
    assert not equal.is_measured
    assert not Path(".edpipe").exists(), "a pretended speed is not remembered"
    known = replace(SPEED, training=500.0)
    JobCosts(params, NetworkSpeeds(lambda _: known), image_counts).of(teacher)
    assert seconds_of(expected(params, [teacher]), teacher) == pytest.approx(
        START_S + 20 * counts.train * TRAINING_SHARE_OF_VIEWS / 500 + counts.val / 4000
    )


def test_one_network_that_was_not_measured_makes_all_of_them_equal(folder):
    params = params_with()
    jobs = jobs_of(params, ["digits_ed"])
    teacher = next(job for job in jobs if job.step == "train_teacher")
    JobCosts(params, NetworkSpeeds(lambda _: SPEED), image_counts).of(teacher)
    alone, among = expected(params, [teacher]), expected(params, jobs)
    assert seconds_of(alone, teacher) != seconds_of(among, teacher)
    assert among.keys() == {job.outputs[0] for job in jobs}


def test_a_job_that_ran_before_takes_what_it_took(folder, monkeypatch):
    params = params_with()
    teacher = teachers.make_teacher(params, "digits", "digits_teacher", "all")
    monkeypatch.setattr(untried, "seconds_taken", lambda job: 7.0 if job == teacher else None)
    assert expected(params, [teacher])[teacher.outputs[0]] == Expected(7.0, True)


def test_no_folder_is_listed_for_an_expectation(folder):
    make_image_folder(folder / "raw", per_class=4)
    params = params_with([("datasets.digits.reader", "folder"), ("datasets.digits.root", str(folder / "raw"))])
    teacher = teachers.make_teacher(params, "digits", "digits_teacher", "all")
    assert expected(params, [teacher]) == {}
    assert image_counts(params, "digits") is not None


# one job


def test_a_teacher_takes_its_epochs_and_its_validation(folder):
    params = params_with()
    cost = costs(params).of(teachers.make_teacher(params, "digits", "digits_teacher", "all"))
    assert cost.seconds == pytest.approx(START_S + 20 * 900 * TRAINING_SHARE_OF_VIEWS / 1000 + 100 / 4000)
    assert cost.num_bytes == 4 * 5000


def test_a_specialist_takes_its_share_of_the_classes(folder):
    params = params_with()
    cost = costs(params).of(teachers.make_teacher(params, "digits", "digits_specialists", "middle"))
    assert cost.seconds == pytest.approx(START_S + (20 * 900 * TRAINING_SHARE_OF_VIEWS / 1000 + 100 / 4000) / 3)


def test_a_probe_takes_forward_passes_alone(folder):
    network = {"model": "timm:resnet18", "source": "timm"}
    fitting = {"recipe": "tiny_images", "epochs": 20, "layers": "classifier"}
    changes = [("teachers.digits_teacher.network", network), ("teachers.digits_teacher.fitting", fitting)]
    params = params_with(changes)
    cost = costs(params).of(teachers.make_teacher(params, "digits", "digits_teacher", "all"))
    assert cost.seconds == pytest.approx(START_S + 20 * 900 * TRAINING_SHARE_OF_VIEWS / 4000 + 100 / 4000)


def test_soft_labels_are_as_large_as_their_precision_says(folder):
    params = params_with()
    cost = costs(params).of(teachers.dump_soft_labels(params, "digits", "digits_teacher", "all", "0-3"))
    precision = make_precision(params.soft_labels["digits"].storage, 10)
    assert cost.num_bytes == 4 * 900 * row_bytes(precision)
    assert cost.seconds == pytest.approx(START_S + 4 * 900 * TRAINING_SHARE_OF_VIEWS / 4000)


@pytest.mark.parametrize(("hint", "numbers"), [({"side": 2}, 2 * 2), ({"side": 9}, 4 * 4), ({}, 4 * 4)])
def test_maps_and_hints_are_counted(folder, hint, numbers):
    storage = {"precision": "uint8", "attention": True, "hint": {"feature_stage": 2, **hint}}
    params, plain = params_with([("soft_labels.digits.storage", storage)]), params_with()
    with_features, without = (
        costs(p).of(teachers.dump_soft_labels(p, "digits", "digits_teacher", "all", "0-3")).num_bytes
        for p in (params, plain)
    )
    assert with_features - without == 4 * 900 * 2 * (8 * 8 + 4 * 4 + 32 * numbers)


@pytest.mark.parametrize(("model", "numbers"), [("vgg8", 4 + 4 + 1 + 1), ("resnet14", 16 + 4 + 4 + 1 + 1)])
def test_the_first_stage_of_vgg_has_no_attention_map(model, numbers):
    stages = tuple((8, side, side) for side in (4, 2, 2, 1, 1))
    speed = NetworkSpeed(1.0, 1.0, 1, "cpu", stages)
    assert feature_bytes(StorageKnobs(attention=True), speed, model) == 2 * numbers
    assert feature_bytes(StorageKnobs(attention=True), replace(speed, feature_stages=()), model) == 0


def test_an_early_level_takes_its_part_of_the_network(folder):
    params = params_with()
    cost = costs(params).of(students.run_stage(params, "digits_ed", 0, "middle"))
    assert cost.seconds == pytest.approx(START_S + 8000 * TRAINING_SHARE_OF_VIEWS * 2 / 3 / 1000)
    assert cost.num_bytes == pytest.approx(4 * 5000 * 2 / 3, abs=1)


def test_frozen_blocks_have_no_backward_pass_and_some_samples_make_shorter_epochs(folder):
    params = params_with()
    job = students.run_stage(params, "digits_ed", 0, "middle")
    knobs = {"frozen": 1, "hardest": 0.5, "budget": StageKnobs(epochs=1)}
    job = replace(job, knobs=replace(job.knobs, plan=job.knobs.plan.model_copy(update=knobs)))
    images = costs(params).of(job).seconds - START_S
    whole = replace(job, knobs=replace(job.knobs, plan=job.knobs.plan.model_copy(update={"frozen": 0, "hardest": 1.0})))
    assert images == pytest.approx((costs(params).of(whole).seconds - START_S) / 2 * (1 + 1 / 3) / 2)


def test_packing_stores_every_pixel(folder):
    params = params_with()
    assert costs(params).of(data.pack_dataset(params, "digits")).num_bytes == 1200 * 64


def test_every_job_of_the_shipped_experiments_has_an_estimate(folder):
    params = params_with()
    found = costs(params)
    assert all(found.of(job) is not None for job in jobs_of(params, params.experiments))


def test_without_a_number_of_images_or_a_speed_there_is_none(folder):
    params = params_with()
    job = students.run_stage(params, "digits_ed", 0, "middle")
    assert costs(params, counts=None).of(job) is None

    def refuse(_use):
        raise NetworkError("cannot")

    assert JobCosts(params, NetworkSpeeds(refuse), lambda *_: COUNTS).of(job) is None


# how many images


def test_published_numbers_are_those_of_the_docs():
    table = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\d,]+) \| ([\d,]+)(?: \(.*?\))?( in all| / ([\d,]+)) \|$", table, re.M)
    number = {name: (classes, train, test) for name, classes, train, _, test in rows}
    assert set(FETCHED) <= set(number)
    for name, counts in PUBLISHED.items():
        assert astuple(counts) == tuple(int(text.replace(",", "") or 0) for text in number[name]), name


def test_drawn_splits_are_near_those_of_packing(folder):
    params = params_with()
    raw = assign_splits(read_raw(Path("none"), params.datasets["digits"]), params.datasets["digits"])
    found = image_counts(params, "digits")
    for split in ("train", "val", "test"):
        assert abs(getattr(found, split) - sum(s.split == split for s in raw.samples)) <= 10


def test_a_folder_is_listed_and_a_packed_file_is_believed(folder):
    make_image_folder(folder / "raw")
    dataset = {"reader": "folder", "root": "raw", "image_size": 8}
    params = params_with([("datasets.digits", dataset)])
    assert image_counts(params, "digits") == ImageCounts(3, 21, 3, 6)
    assert image_counts(params_with([("datasets.digits", dataset | {"root": "none"})]), "digits") is None


# speeds


def test_a_network_is_measured_once(folder):
    asked = []
    for _ in range(2):
        assert NetworkSpeeds(lambda use: asked.append(use) or SPEED).of(USE) == SPEED
    assert asked == [USE]


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": {"training": 1}}', '{"a": 1}'])
def test_a_damaged_memory_is_measured_again(folder, text):
    paths.SPEEDS.parent.mkdir()
    paths.SPEEDS.write_text(text, encoding="utf-8")
    assert NetworkSpeeds(lambda _: SPEED).of(USE) == SPEED
    assert len(json.loads(paths.SPEEDS.read_text())) == 1


@pytest.mark.slow
def test_a_network_is_really_tried(folder, capsys):
    found = measured(USE)
    assert 0 < found.training < found.forward
    assert found.feature_stages == ((16, 8, 8), (32, 4, 4), (64, 2, 2))
    assert capsys.readouterr().err == "measuring resnet8 at 1×8×8\n"
    with pytest.raises(NetworkError, match="resnet9999x"):
        measured(NetworkUse("resnet9999x", 10, 1, 8, 16, "float32"))


# several jobs


def job_of(name, *inputs):
    return Job("s", {}, NoKnobs(), {"a": tuple(map(Path, inputs))}, (Path(name),))


def test_jobs_wait_for_their_inputs_and_for_cores():
    jobs = [job_of("a"), job_of("b", "a"), job_of("c", "a"), job_of("d", "b", "c")]
    seconds, threads = (
        {Path(n): s for n, s in zip("abcd", (1.0, 2.0, 4.0, 8.0), strict=True)},
        dict.fromkeys(map(Path, "abcd"), 1),
    )
    assert makespan(jobs, seconds, threads, 2) == 1 + 4 + 8
    assert makespan(jobs, seconds, threads, 1) == 15
    assert makespan(jobs, seconds, threads | {Path("c"): 4}, 2) == 15
    assert makespan([], {}, {}, 2) == 0


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=20), st.integers(1, 8))
def test_cores_share_independent_jobs_within_grahams_bound(durations, cores):
    jobs = [job_of(str(number)) for number in range(len(durations))]
    seconds = {job.outputs[0]: taken for job, taken in zip(jobs, durations, strict=True)}
    found = makespan(jobs, seconds, dict.fromkeys(seconds, 1), cores)
    least = max(max(durations), sum(durations) / cores)
    assert least - 1e-6 <= found <= 2 * least + 1e-6


def plain_makespan(jobs, seconds, threads, cores):
    """The same by going through all jobs at each event."""
    makes = {path: job.outputs[0] for job in jobs for path in job.outputs}
    waits = {job.outputs[0]: {makes[path] for path in job.all_inputs if path in makes} for job in jobs}
    waiting, running = list(waits), []
    now, free = 0.0, cores
    while waiting or running:
        for name in [name for name in waiting if not waits[name]]:
            needed = min(threads[name], cores)
            if needed <= free:
                waiting.remove(name)
                heapq.heappush(running, (now + seconds[name], name, needed))
                free -= needed
        now, done, used = heapq.heappop(running)
        free += used
        for inputs in waits.values():
            inputs.discard(done)
    return now


JOBS = st.lists(st.tuples(st.sets(st.integers(0, 24), max_size=3), st.integers(1, 4), st.integers(1, 5)), min_size=1)
"""Of each job: what it may read of earlier ones, its seconds (many tie), its threads."""


@given(JOBS, st.integers(1, 6))
def test_jobs_in_any_order_end_when_the_plain_way_says(drawn, cores):
    jobs = [job_of(str(k), *(str(n) for n in sorted(inputs) if n < k)) for k, (inputs, _, _) in enumerate(drawn)]
    seconds = {job.outputs[0]: float(taken) for job, (_, taken, _) in zip(jobs, drawn, strict=True)}
    threads = {job.outputs[0]: wanted for job, (_, _, wanted) in zip(jobs, drawn, strict=True)}
    assert makespan(jobs, seconds, threads, cores) == plain_makespan(jobs, seconds, threads, cores)


def test_what_is_looked_at_grows_with_the_jobs(monkeypatch):
    def looked_at(count):
        calls = Counter()
        original = makespan_module._Ready.pop
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(makespan_module._Ready, "pop", lambda self, free: calls.update(pop=1) or original(self, free))
            jobs = [job_of("0"), *(job_of(str(number), "0") for number in range(1, count))]
            seconds = {job.outputs[0]: 1.0 for job in jobs}
            assert makespan(jobs, seconds, dict.fromkeys(seconds, 1), 4) == 1 + -(-(count - 1) // 4)
        return calls["pop"]

    assert looked_at(400) <= 2.1 * looked_at(200)


# the command


def test_plan_estimates_what_never_ran(folder, capsys, monkeypatch):
    monkeypatch.setattr(network_speed, "measured", lambda _: SPEED)
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    plan.plan([])
    said = capsys.readouterr().out.splitlines()
    assert "48 of 48 jobs would run, 0 come from the cache" in said
    assert "never ran  1 × partition_dataset: ~2 s" in said
    assert re.fullmatch(
        r"all 48 jobs: ~[\dhmins ]+ one after the other, ~[\dmins ]+ on \d+ cores?; ~[\d.]+ [kM]B of new files",
        said[-3],
    )
    assert said[-2].startswith("measured here: resnet8 at 1×8×8: 1,000 images/s in training, 4,000 forward (cpu, 1 ")
    plan.plan(["digits_kd"], is_estimated=False)
    assert "never ran" not in capsys.readouterr().out


def test_time_of_what_ran_is_that_of_the_ledger(folder, monkeypatch):
    pretend_all(folder, ["digits_ed", "digits_kd"])
    params = params_with()
    jobs = jobs_of(params, ["digits_kd"])
    monkeypatch.setattr(summary, "seconds_taken", lambda _: 10.0)
    found = estimated(params, jobs, NetworkSpeeds(lambda _: pytest.fail("measured")))
    assert (found.total_s, found.num_bytes, found.new, found.unknown) == (10.0 * len(jobs), 0, {}, ())


def test_what_cannot_be_estimated_is_counted(folder):
    params = params_with([("datasets.digits", {"reader": "huggingface", "image_size": 8})])
    speeds = NetworkSpeeds(lambda _: SPEED)
    jobs = jobs_of(params, ["digits_ce"])
    (line, *_) = [line for line in summary.lines_of(estimated(params, jobs, speeds), jobs, speeds) if "no est" in line]
    assert line.startswith("no estimate for 7 jobs (pack_dataset, run_stage, evaluate): the number of images is known")
