"""`edpipe verify`: artifacts are read and compared with their records, params.yaml and the code."""

import json
import re
import sys
from types import SimpleNamespace

import pytest
from pretended import digest_of, edit_record, params_with, pretend, pretend_all, write_params

from edpipe.cli.commands import verify
from edpipe.datasets.dataset_file import open_dataset
from edpipe.errors import CorruptFileError, MismatchError, UsageError
from edpipe.pipeline.jobs import data, graph, paths, students, teachers
from edpipe.pipeline.state import artifact_checks, judgement
from edpipe.pipeline.state.checked_artifacts import CheckedArtifacts
from edpipe.pipeline.state.recorded import Records
from edpipe.pipeline.state.staleness import Outcome, Verdict, made_from
from edpipe.results.measures.teacher_evaluation import TeacherEvaluation, write_teacher_evaluation
from edpipe.results.page.files import PageFiles
from edpipe.steps.partition_dataset import partition_dataset
from edpipe.steps.report import report
from edpipe.steps.result import result
from edpipe.storage.records import made_by, make_record, read_record, record_path, write_record

DATASET = paths.dataset_path("digits")


def evaluation(job, params):
    """A whole evaluation of a student without teachers."""
    dataset, partition = (read_record(record_path(job.inputs[role][0])) for role in ("dataset", "partition"))
    stage = students.run_stage(params, job.arguments["experiment"], job.arguments["seed"], "only")
    knobs = json.loads(stage.knobs_text)
    subsets = [{"name": s["name"], "class_ids": s["class_ids"]} for s in partition["subsets"]]
    names = [subset["name"] for subset in subsets]
    digest = digest_of(stage.outputs[0])
    metrics = {"top1": 0.5, "top5": 0.5, "test_samples": 10, "ece": 0.0, "backward_transfer": None}
    metrics |= {"val_top1": None, "val_samples": 0, "agreement": {}}
    metrics |= {"top1_by_class": [0.5] * 10, "forgetting": dict.fromkeys(names)}
    counts = ("images_seen", "images_with_teacher", "taught_samples", "parameters", "macs", "training_macs")
    outcome = dict.fromkeys(counts, 10) | {"name": "only", "number": 1, "final_loss": 1.0, "soft_labels": []}
    outcome |= {"top1_by_subset": dict.fromkeys(names, 0.5), "weights_digest": digest}
    outcome |= {"code": {"steps.run_stage": "1"}, "versions": {"torch": "2"}}
    facts = {"seed": job.arguments["seed"], "metrics": metrics, "stages": [outcome], "teachers": {}}
    facts["setup"] = {name: knobs[name] for name in ("student", "recipe", "views")} | {"stages": [knobs["plan"]]}
    facts["data"] = {
        "dataset": "digits",
        "class_names": dataset["class_names"],
        "test_samples_by_class": [1] * 10,
        "subsets": subsets,
    }
    images = len(open_dataset(job.input("dataset")).sample_ids("test"))
    facts["predictions"] = {"class_ids": [0] * images, "confidences": [0.5] * images}
    inputs = {"dataset": dataset["digest"], "partition": partition["digest"], "students": [digest]}
    inputs["teacher_evaluations"] = []
    return make_record("evaluate", {}, inputs, **facts)


def make(job, params):
    """Makes the artifact of a job; students are pretended, all else is real."""
    if job.step == "pack_dataset":
        from edpipe.datasets.raw import raw_folder
        from edpipe.steps.pack_dataset import pack_dataset

        pack_dataset("digits", job.knobs.dataset, raw_folder("digits", None), job.outputs[0])
    elif job.step == "partition_dataset":
        partition_dataset(job.inputs["dataset"][0], job.knobs.partition, job.outputs[0])
    elif job.step == "run_stage":
        pretend(job)
        digests = {role: read_record(record_path(job.inputs[role][0]))["digest"] for role in ("dataset", "partition")}
        edit_record(job.outputs[0], lambda record: record["inputs"].update(digests))
    elif job.step == "evaluate":
        write_record(job.outputs[0], evaluation(job, params))
    elif job.step == "result":
        result("digits_ce", "ce", job.inputs["evaluations"], [], *job.outputs)
    else:
        report(PageFiles.of_job(job), job.outputs[0])


@pytest.fixture
def real(tmp_path, monkeypatch):
    """A folder in which digits_ce is made."""
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path)
    params = params_with()
    for job in graph.jobs_of(params, ["digits_ce"]):
        with made_by(job.units):
            make(job, params)
    return tmp_path


def verified(capsys, *experiments):
    """The lines that were printed, and the error that ended the command, if one did."""
    capsys.readouterr()
    try:
        verify.run(list(experiments))
    except MismatchError as error:
        return capsys.readouterr().out.splitlines(), str(error)
    return capsys.readouterr().out.splitlines(), ""


PAGE, RESULT = paths.report_path("digits_ce"), paths.result_path("digits_ce")
CE_STUDENT = paths.student_path("digits_ce", 0, 1, "only")
EVALUATION = paths.evaluation_path("digits_ce", 0)
PARTITION = paths.partition_path("digits", "thirds")


@pytest.mark.slow
def test_what_fits_is_told_with_counts(real, capsys):
    lines, error = verified(capsys)
    assert not error
    assert lines[0] == f"cached   {DATASET}"
    assert lines[-2].startswith("note: raw files are not compared")
    assert re.fullmatch(r"10 cached, \d+ absent; 0\.\d MB read in \d+\.\d s", lines[-1])
    assert len(lines) == 12


@pytest.mark.slow
def test_absent_artifacts_are_listed_only_when_asked_for(real, capsys):
    lines, error = verified(capsys, "digits_ce", "digits_kd")
    assert not error
    assert f"absent   {paths.result_path('digits_kd')}" in lines
    assert not any(line.startswith("absent") for line in verified(capsys)[0])


@pytest.mark.slow
def test_an_empty_folder_is_no_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path)
    lines, error = verified(capsys)
    assert not error
    assert re.fullmatch(r"\d+ absent; 0\.0 MB read in \d+\.\d s", *lines)


@pytest.mark.slow
def test_what_does_not_fit_ends_in_one_line(real, capsys):
    write_params(real, [("experiments.digits_ce.stages.only.learning_rate", 0.05)])
    lines, error = verified(capsys)
    assert lines[2].startswith(f"stale    {CE_STUDENT}: knob plan.budget.learning_rate ")
    assert f"waits    {PAGE}: after run_stage digits_ce seed 0 only" in lines
    assert re.match(r"2 cached, 3 stale, 5 waits, \d+ absent; ", lines[-1])
    assert error == (
        "8 of 10 artifacts do not fit params.yaml and the code; run `snakemake` to make them again "
        "(`edpipe plan` says what it would do)"
    )
    write_params(real)
    assert not verified(capsys)[1]


def flip(path):
    """Changes one byte in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def set_seed_metric(record):
    record["metrics"]["top1"] = 2.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "spoil", "text"),
    [
        (DATASET, lambda p: p.write_bytes(p.read_bytes()[:5000]), f"{DATASET}: not a whole dataset file"),
        (DATASET, lambda p: edit_record(p, lambda r: r.update(digest="f" * 16)), "its record says ffffffffffffffff"),
        (PARTITION, lambda p: p.write_text(p.read_text().replace("0", "1", 1)), f"{PARTITION}: altered since written"),
        (CE_STUDENT, flip, f"{CE_STUDENT}: content has digest "),
        (EVALUATION, lambda p: edit_record(p, set_seed_metric), f"{EVALUATION}: metrics.top1: Input should be less"),
        (RESULT, lambda p: edit_record(p, lambda r: r.pop("budget")), f"{RESULT}: budget: Field required"),
        (PAGE, lambda p: p.write_bytes(b"\xff"), f"{PAGE}: cannot be read ("),
    ],
)
def test_a_damaged_artifact_is_named_with_its_remedy(real, capsys, path, spoil, text):
    spoil(path)
    lines, error = verified(capsys, "digits_ce")
    (line,) = [line for line in lines if line.startswith(f"damaged  {path}")]
    assert text in line
    assert f"`snakemake --force {path}`" in line
    assert "do not fit params.yaml" in error


@pytest.mark.slow
def test_a_page_that_would_be_drawn_otherwise_is_stale(real, capsys):
    PAGE.write_text(PAGE.read_text(encoding="utf-8") + " ", encoding="utf-8")
    lines, error = verified(capsys)
    assert f"stale    {PAGE}: from {RESULT} another page would be drawn now" in lines
    assert error.startswith("1 of 10 artifacts do not fit")


@pytest.mark.slow
def test_a_page_whose_dataset_is_gone_is_let_be(real, capsys):
    paths.dataset_path("digits").unlink()
    lines, _ = verified(capsys)
    assert not any(line.startswith(("stale", "damaged")) and str(PAGE) in line for line in lines)


@pytest.mark.slow
def test_a_page_whose_result_is_gone_is_let_be(real, capsys):
    RESULT.unlink()
    lines, error = verified(capsys)
    assert f"cached   {PAGE}" in lines
    assert not error


@pytest.mark.slow
def test_a_partition_of_another_dataset_is_stale_and_not_damaged(real, capsys):
    params = params_with([("datasets.digits.max_per_class", 20)])
    make(data.pack_dataset(params, "digits"), params)
    lines, _ = verified(capsys)
    (line,) = [line for line in lines if str(PARTITION) in line]
    assert re.match(rf"stale    {PARTITION}: dataset is another one now \([0-9a-f]+ → [0-9a-f]+\)", line)


@pytest.mark.slow
def test_a_partition_without_dataset_is_still_read(real, capsys):
    DATASET.unlink()
    lines, error = verified(capsys)
    assert f"cached   {PARTITION}" in lines
    assert not error


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in which digits_ed and digits_kd are made."""
    monkeypatch.chdir(tmp_path)
    pretend_all(tmp_path, ["digits_ed", "digits_kd"])
    return tmp_path


def stand_in_reader(monkeypatch, open_soft_labels):
    """Plays the reader of soft labels, whose files are not pretended."""
    module = SimpleNamespace(open_soft_labels=open_soft_labels)
    monkeypatch.setitem(sys.modules, "edpipe.soft_labels.file.reader", module)


def test_soft_labels_are_opened_and_their_digest_is_known_to_what_reads_them(folder, monkeypatch):
    path = next(j for j in graph.jobs_of(params_with(), ["digits_kd"]) if j.step == "dump_soft_labels").outputs[0]
    job = teachers.dump_soft_labels(params_with(), "digits", "digits_teacher", "all", path.stem.removeprefix("views_"))
    stand_in_reader(monkeypatch, lambda _: SimpleNamespace(digest="f" * 16))
    with pytest.raises(CorruptFileError, match=f"content has digest {'f' * 16}, its record says {digest_of(path)}"):
        artifact_checks.check_artifact(job, Records())
    edit_record(path, lambda record: record.pop("digest"))
    records = Records()
    artifact_checks.check_artifact(job, records)
    assert records.digest(path) == "f" * 16


def teacher_evaluation(**changes):
    facts = {"teacher": "digits_teacher", "subset": "all", "class_ids": (0, 1), "predicted_class_ids": (1, 0)}
    inputs = dict.fromkeys(("dataset", "partition", "teacher"), "f" * 16)
    return TeacherEvaluation(**facts | {"top1": 0.5, "ece": 0.1, "inputs": inputs} | changes)


def test_a_teacher_evaluation_is_read_and_its_digest_is_known_to_what_reads_it(folder):
    job = teachers.evaluate_teacher(params_with(), "digits", "digits_teacher", "all")
    path = job.outputs[0]
    assert (
        "not a teacher evaluation of version 1"
        in judgement.inspect(job, Records(), CheckedArtifacts(reads_all=True)).damage
    )
    evaluation = teacher_evaluation()
    write_teacher_evaluation(path, evaluation, make_record("evaluate_teacher", {}, evaluation.inputs))
    records = Records()
    assert not judgement.inspect(job, records, CheckedArtifacts(reads_all=True)).damage
    assert records.digest(path) == evaluation.digest != teacher_evaluation(top1=0.4).digest
    path.write_text(path.read_text(encoding="utf-8").replace('"top1": 0.5', '"top1": 1.0'), encoding="utf-8")
    assert judgement.inspect(job, Records(), CheckedArtifacts(reads_all=True)).damage == (
        f"{path}: altered since written; make it again with `snakemake --force {path}`"
    )


@pytest.mark.parametrize("error", [CorruptFileError, MismatchError])
def test_what_a_reader_refuses_is_damaged(folder, monkeypatch, error):
    def refuse(_):
        raise error("rows are altered")

    stand_in_reader(monkeypatch, refuse)
    job = next(j for j in graph.jobs_of(params_with(), ["digits_kd"]) if j.step == "dump_soft_labels")
    assert judgement.inspect(job, Records(), CheckedArtifacts(reads_all=True)).damage == "rows are altered"


def test_a_table_is_shown_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    job = students.evaluate(params_with(), "digits_ed", 0)
    verify._print_rows([Outcome(job, Verdict.STALE, True, ("knob [bold] 1 → 2",))])
    shown = capsys.readouterr().out
    assert "verdict" in shown
    assert "knob [bold] 1 → 2" in shown


def test_long_reading_is_told_in_a_log(monkeypatch, capsys):
    monkeypatch.setattr(verify, "LINE_EVERY_S", 0.0)
    with verify._show_bytes(3_000_000) as show:
        show(1_000_000)
        show(2_000_000)
    assert capsys.readouterr().err.splitlines() == ["verify: 1 of 3 MB read", "verify: 3 of 3 MB read"]


def test_quick_and_soft_labels_do_not_go_together():
    with pytest.raises(UsageError, match="verify: --quick and soft-labels do not go together; leave one out"):
        verify.run(["soft-labels", "x.h5"], quick=True)


def test_ten_names_are_shown_and_the_others_counted():
    assert verify._first(list("abc")) == "a, b, c"
    assert verify._first([str(number) for number in range(1500)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 1,490 more"


def test_what_was_made_from_a_damaged_artifact_is_named_once(folder):
    jobs = graph.jobs_of(params_with(), ["digits_ed", "digits_kd"])
    teacher = next(job for job in jobs if job.step == "train_teacher" and "digits_teacher" in job.command)
    found = [Outcome(job, Verdict.DAMAGED if job is teacher else Verdict.CACHED, False) for job in jobs]
    (line,) = verify.damage_lines(found)
    path = teacher.outputs[0]
    assert line.startswith(f"damaged: {path}: ")
    assert "digits_ed" not in line
    assert line.endswith(f"; make it again with `snakemake --force {path}`")
    reached = made_from(path, jobs)
    assert f" {len(reached)} artifacts were made from it: {reached[0]}, " in line
    assert paths.report_path("digits_kd") in reached
    assert len(set(reached)) == len(reached)
    absent = [
        Outcome(job, Verdict.ABSENT if o.job is not teacher else o.verdict, False)
        for o, job in zip(found, jobs, strict=True)
    ]
    assert verify.damage_lines(absent) == []


def test_a_quick_look_reads_no_content(folder, monkeypatch, capsys):
    monkeypatch.setattr(verify, "inspect", lambda *_: pytest.fail("content is read"))
    lines, _ = verified(capsys, "digits_ed", "--quick")
    assert any("no proof; `edpipe verify` reads every byte" in line for line in lines)
    assert not paths.CHECKED.exists()
