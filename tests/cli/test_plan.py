"""`edpipe plan`: on folders of hand-made records, and beside Snakemake on a real one."""

import argparse
import json
import os
import re
import subprocess
import sys

import pytest
from pretended import change, digest_of, edit_record, params_with, pretend, pretend_all
from project import ROOT, copy_of

from edpipe.cli.commands import plan, verify
from edpipe.errors import ParamsError, UsageError
from edpipe.params.base import canonical_json
from edpipe.params.yaml_file import load_raw
from edpipe.pipeline.jobs import graph, paths, students
from edpipe.pipeline.state import recorded
from edpipe.pipeline.state.checked_artifacts import CheckedArtifacts, look_at
from edpipe.pipeline.state.recorded import Records, present_origin, recorded_origin
from edpipe.pipeline.state.staleness import Verdict
from edpipe.results.measures.cost import duration
from edpipe.results.page.page_code import generator
from edpipe.storage.code.units import step_unit
from edpipe.storage.code.versions import token
from edpipe.storage.records import read_record, record_path, seal_of, write_record

EDITED = "1+0123456789abcdef"
WAS_EDITED = re.compile(rf"the code of steps.run_stage is another one now \(\S+ → {re.escape(EDITED)}\)")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in which digits_ed and digits_kd are made."""
    monkeypatch.chdir(tmp_path)
    pretend_all(tmp_path, ["digits_ed", "digits_kd"])
    return tmp_path


def plan_of(changes=(), experiments=("digits_ed",)):
    return plan.planned(params_with(changes), list(experiments))


def would_run(found):
    return {str(outcome.job.outputs[0]) for outcome in found if outcome.is_run}


def of_step(found, step):
    return [outcome for outcome in found if outcome.job.step == step]


STUDENT = paths.student_path("digits_ed", 0, 2, "middle")
TEACHER = paths.teacher_path("digits", "digits_specialists", "middle")
DATASET = paths.dataset_path("digits")


@pytest.mark.slow
def test_what_was_just_made_is_cached(folder):
    found = plan_of(experiments=["digits_ed", "digits_kd"])
    assert {outcome.verdict for outcome in found} == {Verdict.CACHED}
    assert plan.lines_of(found)[-1] == f"0 of {len(found)} jobs would run, {len(found)} come from the cache"


@pytest.mark.parametrize(
    "step", ["partition_dataset", "train_teacher", "dump_soft_labels", "verify_soft_labels", "evaluate_teacher"]
)
def test_every_input_with_a_digest_is_compared(folder, step):
    """The comparison is not empty: what a record says and what is known now are about the same roles."""
    for job in graph.jobs_of(params_with(), ["digits_ed"]):
        if job.step == step:
            recorded = recorded_origin(read_record(record_path(job.outputs[0])))
            present = present_origin(job, Records())
            assert set(present.inputs) == set(job.inputs)
            assert recorded.inputs == present.inputs


def test_stages_and_evaluations_compare_all_but_the_indexes(folder):
    for job in graph.jobs_of(params_with(), ["digits_ed"]):
        if job.step in ("run_stage", "evaluate", "result"):
            present = present_origin(job, Records())
            assert set(job.inputs) - set(present.inputs) <= {"indexes"}
            recorded = recorded_origin(read_record(record_path(job.outputs[0])))
            assert present.inputs.items() <= recorded.inputs.items()


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (("teachers.digits_specialists.fitting.epochs", 30), "knob fitting.epochs 20.0 → 30.0"),
        (("experiments.digits_ed.method.temperature", 2.0), "knob plan.temperature 4.0 → 2.0"),
        (("experiments.digits_ed.seeds", [0, 1]), "knob seeds [0, 1, 2] → [0, 1]"),
        (("datasets.digits.image_size", 10), "knob dataset.image_size 8 → 10"),
        (("students.resnet8.model", "resnet14"), 'knob student.model "resnet8" → "resnet14"'),
    ],
)
def test_a_knob_edit_is_told_with_both_values(folder, edit, reason):
    found = plan_of([edit])
    stale = [outcome for outcome in found if outcome.verdict is Verdict.STALE]
    assert {outcome.reasons[0] for outcome in stale} == {reason}
    lines = plan.lines_of(found)
    for outcome in stale:
        words = " ".join(str(v) if n != "seed" else f"seed {v}" for n, v in outcome.job.arguments.items())
        assert f"would run  {outcome.job.step} {words}: {'; '.join(outcome.reasons)}" in lines


def test_a_specialist_trained_longer_makes_its_students_wait_and_leaves_others_alone(folder):
    found = plan_of([("teachers.digits_specialists.fitting.epochs", 30)], ["digits_ed", "digits_kd"])
    assert {o.job.step for o in found if o.verdict is Verdict.WAITS} == {
        "dump_soft_labels",
        "verify_soft_labels",
        "evaluate_teacher",
        "run_stage",
        "evaluate",
        "result",
        "report",
    }
    assert not any("digits_kd" in path or "digits_teacher" in path for path in would_run(found))


def test_an_edit_of_one_stage_runs_this_stage_and_what_follows(folder):
    found = plan_of([("experiments.digits_ed.stages.university.learning_rate", 0.01)])
    assert {o.job.arguments["stage"] for o in of_step(found, "run_stage") if o.is_run} == {"university"}
    assert "pack_dataset            0 of     1 would run" in plan.lines_of(found)


def test_edited_code_runs_the_jobs_that_hang_on_it(folder, monkeypatch):
    told = recorded.tokens
    monkeypatch.setattr(
        recorded, "tokens", lambda units: told(units) | {u: EDITED for u in units if u == "steps.run_stage"}
    )
    found = plan_of()
    stages = of_step(found, "run_stage")
    assert all(o.verdict is Verdict.STALE and WAS_EDITED.fullmatch(*o.reasons) for o in stages)
    assert {o.job.step for o in found if o.verdict is Verdict.WAITS} == {"evaluate", "result", "report"}


def test_a_page_older_than_its_result_is_drawn_again(folder):
    page = paths.report_path("digits_ed")
    os.utime(page, ns=(0, 0))
    (outcome,) = of_step(plan_of(), "report")
    assert outcome.verdict is Verdict.STALE
    assert "results/digits_ed.json is newer" in outcome.reasons


@pytest.mark.parametrize(("before", "then"), [(r"0123456789abcdef", "0123456789abcdef"), ("", "nothing")])
def test_a_page_drawn_by_other_code_is_drawn_again(folder, before, then):
    page = paths.report_path("digits_ed")
    now = token(step_unit("report"))
    line = f'<meta name="generator" content="{generator(now)}">'
    earlier = line.replace(f"code {now}", f"code {before}") if before else ""
    page.write_text(page.read_text(encoding="utf-8").replace(line, earlier), encoding="utf-8")
    (outcome,) = of_step(plan_of(), "report")
    assert outcome.verdict is Verdict.STALE
    assert outcome.reasons == (f"the code of steps.report is another one now ({then} → {now})",)


def test_a_page_of_another_result_is_drawn_again(folder):
    page, seal = paths.report_path("digits_ed"), seal_of(read_record(paths.result_path("digits_ed")))
    page.write_text(page.read_text(encoding="utf-8").replace(seal, "f" * 16), encoding="utf-8")
    (outcome,) = of_step(plan_of(), "report")
    assert (outcome.verdict, outcome.reasons) == (
        Verdict.STALE,
        (f"result is another one now ({'f' * 16} → {seal})",),
    )


def test_a_page_is_stale_that_shows_another_result_beside_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = params_with([("experiments.digits_ed.beside", ["digits_kd"])])
    for job in graph.jobs_of(params, ["digits_ed"]):
        pretend(job)
    (page,) = of_step(plan.planned(params, ["digits_ed"]), "report")
    assert page.verdict is Verdict.CACHED
    alone = params_with()
    (page,) = of_step(plan.planned(alone, ["digits_ed"]), "report")
    assert page.reasons == ("results beside its own: it shows 1, asked for are 0",)
    other = paths.result_path("digits_kd")
    edit_record(other, lambda record: record.update(digest="f" * 16))
    (page,) = of_step(plan.planned(params, ["digits_ed"]), "report")
    assert any(reason.startswith(f"{other} is another one now (") for reason in page.reasons)


def test_a_page_waits_for_a_result_that_is_newly_asked_for(folder):
    paths.result_path("digits_kd").unlink()
    changed = params_with([("experiments.digits_ed.beside", ["digits_kd"])])
    (page,) = of_step(plan.planned(changed, ["digits_ed"]), "report")
    assert page.is_run
    assert "results beside its own: it shows 0, asked for are 1" in page.reasons
    assert str(paths.result_path("digits_kd")) in would_run(plan.planned(changed, ["digits_ed"]))


def test_another_teacher_in_place_is_told_where_it_is_read(folder):
    edit_record(TEACHER, lambda record: record.update(weights_digest="f" * 16))
    found = {o.job.outputs[0]: o for o in plan_of()}
    old = digest_of(TEACHER)
    index = paths.soft_labels_index_path("digits", "digits_specialists", "middle")
    assert found[index].reasons == (f"teacher is another one now ({old} → {'f' * 16})",)
    assert found[STUDENT].reasons == (f"teachers are another one now ({old} → {'f' * 16})",)
    assert found[paths.student_path("digits_ed", 0, 1, "primary")].verdict is Verdict.CACHED


def test_another_answer_of_a_teacher_in_place_is_told_where_it_is_read(folder):
    path = paths.teacher_evaluation_path("digits", "digits_specialists", "middle")
    edit_record(path, lambda record: record.update(digest="f" * 16))
    stale = [o for o in plan_of() if o.verdict is Verdict.STALE]
    assert {o.job.step for o in stale} == {"evaluate", "report"}
    old = digest_of(path)
    assert {o.reasons for o in stale if o.job.step == "evaluate"} == {
        (f"teacher evaluations are another one now ({old} → {'f' * 16})",)
    }


def test_another_file_of_soft_labels_in_place_is_told(folder):
    path = paths.soft_labels_path("digits", "digits_specialists", "middle", "4-7")
    edit_record(path, lambda record: record.update(digest="f" * 16))
    found = {o.job.outputs[0]: o for o in plan_of()}
    assert found[STUDENT].reasons == (f"soft labels are another one now ({digest_of(path)} → {'f' * 16})",)


def test_another_choice_of_views_leaves_dumps_alone(folder):
    """An edit of how students go through views is one of the index and of the students."""
    found = plan_of([("soft_labels.digits.views.choice", "cycle")])
    assert {o.job.step for o in found if o.verdict is Verdict.STALE} == {"verify_soft_labels", "run_stage"}
    assert not any(o.is_run for o in of_step(found, "dump_soft_labels"))


def test_another_evaluation_makes_the_result_stale(folder):
    path = paths.evaluation_path("digits_ed", 1)
    edit_record(path, lambda record: record["metrics"].update(top1=0.75))
    (outcome,) = of_step(plan_of(), "result")
    assert outcome.verdict is Verdict.STALE
    assert re.fullmatch(r"evaluations are another one now \([0-9a-f]{16} → [0-9a-f]{16}\)", *outcome.reasons)


def test_a_teacher_that_is_fetched_now_is_told(folder):
    network = {"source": "timm", "model": "timm:resnet18"}
    found = plan_of([("teachers.digits_specialists.network", network)])
    teachers = of_step(found, "fetch_teacher")
    assert len(teachers) == 3
    assert all(o.reasons[0] == "was made by train_teacher, now fetch_teacher makes it" for o in teachers)


def test_a_deleted_artifact_that_nobody_needs_is_let_be(folder):
    DATASET.unlink()
    STUDENT.unlink()
    found = plan_of()
    assert not would_run(found)
    assert plan.lines_of(found)[-1].endswith("come from the cache; absent and not needed: 2")


def test_a_deleted_artifact_is_made_again_for_a_job_that_reads_it(folder):
    DATASET.unlink()
    found = plan_of([("experiments.digits_ed.stages.university.learning_rate", 0.01)])
    lines = plan.lines_of(found)
    assert "would run  pack_dataset digits: absent" in lines
    assert len(would_run(found)) == len(found)
    assert any(line.startswith("would run  1 × partition_dataset, 3 × train_teacher") for line in lines)


def test_a_deleted_artifact_that_would_be_another_one_now_is_made_again(folder, monkeypatch):
    """As after an interruption: Snakemake has deleted the student of before, and its evaluation still lies here."""
    monkeypatch.setattr("edpipe.pipeline.state.checked_artifacts.CLOCK_TICK_NS", -1)
    checked, edit = CheckedArtifacts(), ("experiments.digits_kd.method.temperature", 2.0)
    (job,) = [o.job for o in of_step(plan_of(experiments=["digits_kd"]), "run_stage") if o.job.arguments["seed"] == 0]
    checked.note(look_at(job.outputs), None, recorded_origin(read_record(record_path(job.outputs[0]))))
    checked.save()
    for path in job.outputs:
        path.unlink()
    assert not would_run(plan_of(experiments=["digits_kd"]))
    found = plan_of([edit], ["digits_kd"])
    assert "would run  run_stage digits_kd seed 0 only: absent" in plan.lines_of(found)
    assert {o.verdict for o in of_step(found, "evaluate")} == {Verdict.WAITS}


def test_a_deleted_page_is_drawn_again(folder):
    paths.report_path("digits_ed").unlink()
    assert would_run(plan_of()) == {"results/digits_ed.html"}


def test_nothing_made_yet_is_told_step_by_step(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = plan_of()
    lines = plan.lines_of(found)
    assert lines[0] == "would run  pack_dataset digits: absent"
    student = "artifacts/students/digits_ed/seed0/1_primary.safetensors"
    assert f"would run  9 × run_stage: absent, the first is {student}" in lines
    assert lines[-1] == f"{len(found)} of {len(found)} jobs would run, 0 come from the cache"


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda path: path.unlink(), f"{record_path(STUDENT)}: not a readable record"),
        (lambda path: path.write_text("{"), f"{record_path(STUDENT)}: not a readable record"),
        (lambda path: path.write_text("[]"), "a record must be a JSON object, got list"),
        (lambda path: path.write_text("{}"), "holds no digest of its content ('file_digest'): altered, or written by"),
        (lambda path: write_record(path, {}), "the record lacks 'step'"),
        (
            lambda path: write_record(path, read_record(path) | {"versions": [1]}),
            f"{record_path(STUDENT)}: 'versions' must be dict, got list; make it again with `snakemake --force",
        ),
    ],
)
def test_a_damaged_record_is_told_and_its_artifact_made_again(folder, spoil, text):
    spoil(record_path(STUDENT))
    found = plan_of()
    (outcome,) = [o for o in found if o.job.outputs[0] == STUDENT]
    assert outcome.verdict is Verdict.DAMAGED
    assert text in outcome.reasons[0]
    assert outcome.is_run
    assert f"would run  run_stage digits_ed seed 0 middle: {outcome.reasons[0]}" in plan.lines_of(found)


def test_an_altered_partition_is_damaged(folder):
    path = paths.partition_path("digits", "thirds")
    path.write_text(path.read_text().replace(digest_of(DATASET), "f" * 16), encoding="utf-8")
    (outcome,) = of_step(plan_of(), "partition_dataset")
    assert outcome.reasons == (f"{path}: altered since written; make it again with `snakemake --force {path}`",)


def test_a_result_without_its_table_is_damaged(folder):
    paths.curve_path("digits_ed").unlink()
    (outcome,) = of_step(plan_of(), "result")
    assert outcome.reasons == (
        "results/digits_ed.csv is missing; make it again with `snakemake --force results/digits_ed.json`",
    )


def test_a_result_of_a_foreign_form_is_damaged(folder):
    edit_record(paths.result_path("digits_ed"), lambda record: record.update(seeds=[1]))
    (outcome,) = of_step(plan_of(), "result")
    assert outcome.verdict is Verdict.DAMAGED
    assert outcome.reasons[0].startswith("results/digits_ed.json: not a record of result (")


def test_inputs_in_a_form_of_another_version_are_not_compared(folder):
    edit_record(STUDENT, lambda record: record["inputs"].update(soft_labels=[{"name": "x"}]))
    assert not would_run(plan_of())


@pytest.mark.slow
def test_other_library_versions_are_a_note(folder):
    edit_record(STUDENT, lambda record: record["versions"].update(torch="1.0"))
    found = plan_of()
    assert not would_run(found)
    notes = [line for line in plan.lines_of(found) if line.startswith("note: torch 1.0 → ")]
    assert len(notes) == 1
    assert notes[0].endswith(" since 1 artifact was made; nothing is made again for that")


def test_canonical_knobs_are_those_of_the_record():
    """A knob that JSON writes otherwise than it is held would make every record look stale."""
    for job in graph.jobs_of(params_with(), ["digits_ed"]):
        assert canonical_json(json.loads(job.knobs_text)) == job.knobs_text


# Seconds


def note_seconds(job, seconds, **changes):
    path = paths.benchmark_path(job.step, job.outputs[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    figures = {"cpu_seconds": 1, "images": 0, "teacher_forwards": 0, "peak_memory_bytes": 1}
    whom = {"device": "cpu", "processes": 1, "threads": 1, "host": "a", "ended": "then", "version": "0"}
    entry = {
        "format": "edpipe-ledger",
        "format_version": 1,
        "job": "a",
        "record": None,
        "finished": True,
        "attempts": 1,
    }
    contents = entry | figures | whom | {"seconds": seconds, "peak_gpu_memory_bytes": None} | changes
    path.write_text(json.dumps(contents), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 12.5),
        ({"finished": False}, None),
        ({"seconds": "-"}, None),
        ({"seconds": -1}, None),
        ({"format_version": 2}, None),
        ({"surprise": 1}, None),
    ],
)
def test_seconds_are_those_of_the_last_whole_run(folder, changes, seconds):
    job = students.evaluate(params_with(), "digits_ed", 0)
    assert plan.seconds_taken(job) is None
    note_seconds(job, **{"seconds": 12.5} | changes)
    assert plan.seconds_taken(job) == seconds


def test_expected_time_is_that_of_the_jobs_that_ran_before(folder):
    changes = [("experiments.digits_ed.method.temperature", 2.0)]
    running = [outcome.job for outcome in plan_of(changes) if outcome.is_run]
    assert "about" not in plan.lines_of(plan_of(changes))[-1]
    for job in running[:4]:
        note_seconds(job, 30.0)
    line = plan.lines_of(plan_of(changes))[-1]
    assert line.endswith("; about 2 min 0 s for the 4 that ran before, one after the other")
    for job in running:
        note_seconds(job, 0.5)
    line = plan.lines_of(plan_of(changes))[-1]
    assert line.endswith(f"; about {duration(len(running) / 2)}, one after the other")


# The words


def parsed(add, words):
    command = argparse.ArgumentParser()
    add(command)
    options = vars(command.parse_args(words))
    return options.pop("run"), options


@pytest.mark.parametrize(("module", "add"), [(plan, plan.add_plan), (verify, verify.add_verify)])
def test_another_form_of_the_command_gets_the_words_that_follow(module, add, monkeypatch):
    got = []
    monkeypatch.setitem(module.FORMS, "soft-labels", got.append)
    run, options = parsed(add, ["soft-labels", "FILE", "--rows", "1000", "--seed", "0"])
    run(**options)
    assert got == [["FILE", "--rows", "1000", "--seed", "0"]]


@pytest.mark.parametrize("add", [plan.add_plan, verify.add_verify])
def test_an_unknown_experiment_is_named_with_the_nearest(add, folder):
    run, options = parsed(add, ["digits_ed", "digits_kf"])
    with pytest.raises(ParamsError, match=r"^experiments: no entry named 'digits_kf'; did you mean 'digits_kd'\?$"):
        run(**options)


def test_plan_without_a_name_is_about_what_is_tracked(folder, capsys):
    run, options = parsed(plan.add_plan, ["--no-estimate"])
    run(**options)
    tracked = plan_of(experiments=["digits_ce", "digits_kd", "digits_ed"])
    assert capsys.readouterr().out.splitlines() == plan.lines_of(tracked)


def test_an_unknown_option_of_plan_is_refused(folder):
    run, options = parsed(plan.add_plan, ["digits_ed", "--no-estimates"])
    with pytest.raises(UsageError, match=r"^plan: unknown option '--no-estimates'; did you mean '--no-estimate'\?$"):
        run(**options)


def test_plan_prints_its_lines(folder, capsys):
    run, options = parsed(plan.add_plan, ["digits_ed"])
    run(**options)
    assert capsys.readouterr().out.splitlines() == plan.lines_of(plan_of())


@pytest.mark.slow
def test_plan_needs_no_torch(folder):
    code = (
        "import sys; from edpipe.cli.commands.plan import run; run(['digits_ed']); "
        "assert not {'torch', 'timm'} & set(sys.modules), sorted(sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


# Beside Snakemake


def planned_by_snakemake(project):
    """Names of the jobs' outputs in a dry run for the page."""
    ran = project.snakemake("-n", "--", "results/ed.html")
    assert ran.rc == 0, ran.text
    blocks = re.split(r"\n(?=(?:local)?rule \w+:)", ran.text)[1:]
    return sorted(re.search(r"^ +output: ([^,\n]+)", block, re.MULTILINE)[1] for block in blocks)


def planned_by_edpipe(project):
    code = (
        "from edpipe.cli.commands.plan import planned; from edpipe.params.load import load_params; "
        "print(*[o.job.outputs[0] for o in planned(load_params(), ['ed']) if o.is_run], sep='\\n')"
    )
    ran = project.run("python", "-c", code)
    assert ran.rc == 0, ran.text
    return sorted(ran.out.split())


def edit_params(path, value):
    def edit(project):
        params = load_raw(project.root / "params.yaml")
        change(params, path, value)
        project.write_params(params)

    return edit


def edit_code(name, function):
    def edit(project):
        path = project.root / name
        text = path.read_text(encoding="utf-8")
        edited = text.replace(f"def {function}(", f"@(lambda same: same)\ndef {function}(")
        assert edited != text
        path.write_text(edited, encoding="utf-8")

    return edit


def delete(*paths):
    def edit(project):
        for path in paths:
            (project.root / path).unlink()

    return edit


def both(*edits):
    def edit(project):
        for one in edits:
            one(project)

    return edit


@pytest.mark.slow
def test_all_that_a_real_run_has_made_is_cached(finished_project):
    code = (
        "from edpipe.cli.commands.plan import planned; from edpipe.params.load import load_params; "
        "print(*[(str(o.job.outputs[0]), o.reasons) for o in planned(load_params(), ['ed']) if o.verdict != 'cached'])"
    )
    ran = finished_project.run("python", "-c", code)
    assert ran.out.strip() == "('results/ed.html', ('absent',))", ran.text
    code = "from edpipe.cli.commands.verify import run; run(['ed'])"
    ran = finished_project.run("python", "-c", code)
    assert ran.rc == 0, ran.text
    assert re.search(r"\d+ cached, 1 absent; ", ran.out), ran.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "number"),
    [
        (edit_params("teachers.specialists.fitting.epochs", 3), None),
        (edit_params("experiments.ed.method.temperature", 2.0), None),
        (edit_params("experiments.ed.stages.middle.images", 64), 4),
        (edit_params("soft_labels.digits.views.number", 3), None),
        (edit_code("edpipe/losses/kd.py", "kd_loss"), None),
        (edit_code("edpipe/steps/evaluate.py", "run"), 3),
        (delete("results/ed.html"), 1),
        (delete("artifacts/students/ed/seed0/1_primary.safetensors"), 0),
        (
            both(delete("artifacts/datasets/digits.h5"), edit_params("experiments.ed.method.temperature", 2.0)),
            None,
        ),
    ],
    ids=["teacher", "temperature", "one_stage", "more_views", "losses", "evaluate", "page", "unneeded", "needed"],
)
def test_plan_and_snakemake_say_the_same(tmp_path, project_with_page, edit, number):
    project = copy_of(project_with_page, tmp_path / "edited")
    edit(project)
    planned = planned_by_edpipe(project)
    assert planned == planned_by_snakemake(project)
    assert number is None or len(planned) == number


@pytest.fixture(scope="module")
def project_with_page(tmp_path_factory, finished_project):
    project = copy_of(finished_project, tmp_path_factory.mktemp("with_page") / "project")
    ran = project.snakemake("--", "results/ed.html")
    assert ran.rc == 0, ran.text
    assert planned_by_edpipe(project) == []
    return project
