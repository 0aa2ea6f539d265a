"""`edpipe adopt`: what other code made is taken over where evidence shows that it fits, and refused elsewhere."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from made_project import (
    LATE_STEPS,
    OLD_DIGEST,
    age,
    edit_record,
    find,
    jobs,
    make_folder,
    params_with_ctkd,
    read,
    run_job,
    write_params,
)

from edpipe.cli.adoption import adopt as adopting
from edpipe.cli.adoption import students, trajectories
from edpipe.cli.adoption.claim import Claim
from edpipe.cli.adoption.datasets import _drawn
from edpipe.cli.commands import adopt
from edpipe.datasets.dataset_file import SPLITS, DatasetHeader, open_dataset
from edpipe.datasets.dataset_writer import StoredImage, write_dataset
from edpipe.errors import EdpipeError, MismatchError, ParamsError
from edpipe.pipeline.jobs.paths import benchmark_path
from edpipe.pipeline.state.cost_ledger import costs_recorded, parts_of
from edpipe.pipeline.state.recorded import Records, present_origin, recorded_state
from edpipe.pipeline.state.staleness import Verdict, assess
from edpipe.results.result_file import StageOutcome
from edpipe.steps import dump_soft_labels
from edpipe.storage.code.versions import tokens
from edpipe.storage.digests import digest_file
from edpipe.storage.job import Job, NoKnobs
from edpipe.storage.records import SEAL, library_versions, record_path

OTHER_TOKENS = {"steps.of_then": "1", "losses.kd": "7+0123456789abcdef"}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A folder in which everything up to the students is made by the present code."""
    monkeypatch.setenv("EDPIPE_THREADS", "1")
    monkeypatch.setenv("EDPIPE_DEVICE", "cpu")
    make_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def adopted(capsys):
    """Calls the command: its lines, and the error that ended it, if one did."""

    def call(*names, dry_run=False, other_machine=False):
        capsys.readouterr()
        try:
            adopt.run(list(names), dry_run=dry_run, other_machine=other_machine)
        except EdpipeError as error:
            return capsys.readouterr().out.splitlines(), str(error)
        return capsys.readouterr().out.splitlines(), ""

    return call


def early():
    """Jobs whose artifacts can be adopted."""
    return [job for job in jobs() if job.step not in LATE_STEPS]


def verdict(job):
    records = Records()
    return assess(job, recorded_state(job, records), present_origin(job, records)).verdict


def snapshot():
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in Path("artifacts").rglob("*") if p.is_file()}


def refusal(lines, job):
    """Why an artifact was refused; nothing else is said of it."""
    own = [line for line in lines if str(job.outputs[0]) in line.split(": ")[0]]
    assert len(own) == 1, lines
    assert own[0].startswith("refused "), own[0]
    return own[0].removeprefix("refused").strip()


# What is taken over


@pytest.mark.slow
@pytest.mark.parametrize("code", [OLD_DIGEST, OTHER_TOKENS], ids=["digest of files", "versions"])
def test_what_other_code_made_is_taken_over(made, adopted, code):
    age(code=code)
    before = snapshot()
    lines, error = adopted("ed", "kd", "ctkd")
    assert not error
    assert lines[-1] == f"{len(early())} adopted, 12 absent"
    for job in early():
        record, artifact = read(job), job.outputs[0]
        assert verdict(job) is Verdict.CACHED, job
        assert record["code"] == tokens(job.units)
        expected = {f"steps.{job.step}": f"0+{OLD_DIGEST}"} if code == OLD_DIGEST else code
        assert record["adopted"]["code"] == expected
        assert record["versions"] == record["adopted"]["versions_then"] == record["adopted"]["versions_when_shown"]
        if artifact.suffix != ".json":
            assert (artifact.read_bytes(), artifact.stat().st_mtime_ns) == before[artifact]
        assert record_path(artifact).stat().st_mtime_ns == before[record_path(artifact)][1]
    assert adopted("ed", "kd", "ctkd")[0] == [f"{len(early())} fitted before, 12 absent"]


@pytest.mark.slow
def test_records_of_an_edpipe_that_wrote_neither_seal_nor_code_nor_libraries(made, adopted):
    for job in early():
        record = read(job)
        for name in ("file_digest", "code", "versions", "equal_images", "top1_samples", "verified_rows"):
            record.pop(name, None)
        record_path(job.outputs[0]).write_text(json.dumps(record), encoding="utf-8")
    lines, error = adopted("ed", "kd", "ctkd")
    assert not error
    assert lines[-1].startswith(f"{len(early())} adopted")
    for job in early():
        record = read(job)
        assert verdict(job) is Verdict.CACHED
        assert record["adopted"]["code"] == record["adopted"]["versions_then"] == {}
    assert "equal_images" in read(find("pack_dataset"))
    assert read(find("train_teacher"))["top1_samples"]


@pytest.mark.slow
def test_a_dry_run_gathers_the_same_evidence_and_writes_nothing(made, adopted):
    age()
    before = snapshot()
    lines, error = adopted("ed", "kd", "ctkd", dry_run=True)
    assert not error
    assert snapshot() == before
    assert lines[-1] == f"{len(early())} would be adopted, 12 absent"
    assert [line.removeprefix("would adopt").strip() for line in lines[:-1]] == [
        line.removeprefix("adopted").strip() for line in adopted("ed", "kd", "ctkd")[0][:-1]
    ]


@pytest.mark.slow
def test_one_artifact_by_its_path_or_that_of_its_record(made, adopted):
    dataset, partition = find("pack_dataset"), find("partition_dataset")
    age(dataset, partition)
    lines, _ = adopted(str(partition.outputs[0]))
    assert refusal(lines, partition) == f"{partition.outputs[0]}: its input {dataset.outputs[0]} does not fit"
    assert not adopted(f"./{record_path(dataset.outputs[0])}")[1]
    lines, error = adopted(str((made / partition.outputs[0]).resolve()))
    assert not error
    assert lines[-1] == "1 adopted"


@pytest.mark.slow
def test_who_made_it_first_stays_known(made, adopted):
    job = find("partition_dataset")
    age(job)
    assert not adopted(str(job.outputs[0]))[1]
    edit_record(job, lambda record: record.update(code=OTHER_TOKENS))
    assert not adopted(str(job.outputs[0]))[1]
    assert read(job)["adopted"]["code"] == {"steps.partition_dataset": f"0+{OLD_DIGEST}"}


@pytest.mark.slow
@pytest.mark.parametrize("dry_run", [False, True])
def test_what_making_it_took_stays_known(made, adopted, dry_run):
    job = find("partition_dataset")
    age(job)
    with costs_recorded(job):
        pass
    (before,) = parts_of([job])
    text = benchmark_path(job.step, job.outputs[0]).read_text()
    assert not adopted(str(job.outputs[0]), dry_run=dry_run)[1]
    assert before.figures is not None
    assert parts_of([job]) == [before]
    assert (benchmark_path(job.step, job.outputs[0]).read_text() == text) == dry_run


@pytest.mark.slow
def test_what_is_cheap_is_left_to_snakemake(made, adopted):
    job = find("evaluate_teacher")
    run_job(job)
    edit_record(job, lambda record: record.update(code=OTHER_TOKENS))
    assert adopted(str(job.outputs[0])) == (["1 left to `snakemake`, cheap to make again"], "")


@pytest.mark.slow
def test_an_evaluation_names_the_code_that_trained_an_adopted_student(made, adopted):
    for job in jobs("kd"):
        if job.step in ("evaluate_teacher", "evaluate"):
            run_job(job)
    student, evaluation = find("run_stage", experiment="kd"), find("evaluate", experiment="kd")
    edit_record(student, lambda record: record.update(code=OTHER_TOKENS))
    assert not adopted("kd")[1]
    assert verdict(evaluation) is Verdict.CACHED, "the weights are the same"
    run_job(evaluation)
    stage = StageOutcome.model_validate_json(json.dumps(read(evaluation)["stages"][0]))
    assert stage.code == OTHER_TOKENS
    assert stage.adopted == read(student)["adopted"]


@pytest.mark.slow
def test_teachers_that_were_students_and_partitions_by_confusion(made, adopted):
    raw = params_with_ctkd()
    network = {"model": "resnet8", "source": "student", "experiment": "kd"}
    raw["teachers"]["assistant"] = raw["teachers"]["general"] | {"network": network}
    raw["partitions"]["confused"] = {"subsets": ["first", "second"], "confusion": {"teacher": "general"}}
    method = {"name": "kd", "teacher": "assistant"}
    raw["experiments"]["second"] = raw["experiments"]["kd"] | {"partition": "confused", "method": method}
    write_params(raw)
    new = [job for job in jobs("second") if job.step not in LATE_STEPS and not job.outputs[0].exists()]
    for job in new:
        run_job(job)
    age(*new)
    assert {"fetch_teacher", "partition_by_confusion", "run_stage"} <= {job.step for job in new}
    lines, error = adopted("second")
    assert not error, lines
    assert lines[-1].startswith(f"{len(new)} adopted, ")
    assert all(verdict(job) is Verdict.CACHED for job in new)


# What is never taken over


@pytest.mark.slow
def test_other_knobs(made, adopted):
    age()
    raw = params_with_ctkd()
    raw["experiments"]["kd"]["stages"]["only"]["learning_rate"] = 0.25
    write_params(raw)
    student = find("run_stage", experiment="kd")
    before = record_path(student.outputs[0]).read_bytes()
    lines, error = adopted("kd")
    assert refusal(lines, student) == (
        f"{student.outputs[0]}: knob plan.budget.learning_rate 0.1 → 0.25; "
        "other code is taken over, other knobs or inputs are not"
    )
    assert error == (
        "1 of 7 artifacts cannot be adopted; `snakemake` makes them again (`edpipe plan` says what it would do)"
    )
    assert record_path(student.outputs[0]).read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "edit", "words"),
    [
        ("partition_dataset", lambda r: r["inputs"].update(dataset=OLD_DIGEST), "dataset is another one now ("),
        ("run_stage", lambda r: r["inputs"].update(partition=OLD_DIGEST), "partition is another one now ("),
        ("run_stage", lambda r: r["inputs"].pop("soft_labels"), "its record does not say of which soft labels"),
        ("dump_soft_labels", lambda r: r["inputs"]["teacher"].update(digest=OLD_DIGEST), "teacher is another one"),
        ("run_stage", lambda r: r.update(step="train_teacher"), "was made by train_teacher, now run_stage makes it"),
    ],
)
def test_other_inputs(made, adopted, step, edit, words):
    job = find(step)
    age(job)
    edit_record(job, edit)
    assert words in refusal(adopted(str(job.outputs[0]))[0], job)


@pytest.mark.slow
def test_nothing_is_taken_over_from_what_was_refused(made, adopted):
    age()
    dataset = find("pack_dataset")
    edit_record(dataset, lambda record: record.update(digest=OLD_DIGEST))
    lines, error = adopted("kd")
    assert error.startswith("7 of 7 artifacts")
    assert "they do not belong together" in refusal(lines, dataset)
    for job in jobs("kd"):
        if job.step not in (*LATE_STEPS, "pack_dataset"):
            assert " does not fit" in refusal(lines, job)


@pytest.mark.slow
def test_an_absent_input(made, adopted):
    dump, student = find("dump_soft_labels", teacher="general"), find("run_stage", experiment="kd")
    age(student)
    dump.outputs[0].unlink()
    lines, _ = adopted(str(student.outputs[0]))
    assert refusal(lines, student) == f"{student.outputs[0]}: its input {dump.outputs[0]} is absent"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "no such file, and nothing else says what its artifact was made from"),
        (lambda path: path.write_bytes(b"{"), "not a readable record ("),
        (lambda path: path.write_text("{}"), "not a record of edpipe: has no 'step'"),
        (lambda path: path.write_text("[]"), "not a record of edpipe: has no 'step'"),
        (lambda path: path.write_text(path.read_text().replace("halves", "thirds")), "altered since written"),
    ],
)
def test_records_that_say_nothing(made, adopted, damage, words):
    job = find("partition_dataset") if "altered" in words else find("train_teacher")
    age(job)
    if "altered" in words:
        damage = lambda path: path.write_text(path.read_text().replace('"digest": "', '"digest": "0'))  # noqa: E731
    damage(record_path(job.outputs[0]))
    assert words in refusal_of_record(adopted(str(job.outputs[0]))[0], job)


def refusal_of_record(lines, job):
    (line,) = [line for line in lines if line.startswith("refused ")]
    assert str(record_path(job.outputs[0])) in line
    return line


@pytest.mark.slow
def test_a_record_that_is_rewritten_meanwhile_stays(made, adopted, monkeypatch):
    job = find("partition_dataset")
    age(job)
    path, gather = made / record_path(job.outputs[0]), adopting._Adoption._gather

    def meanwhile(self, claim):
        evidence = gather(self, claim)
        path.write_text(path.read_text() + " ")
        return evidence

    monkeypatch.setattr(adopting._Adoption, "_gather", meanwhile)
    lines, _ = adopted(str(job.outputs[0]))
    assert "was rewritten meanwhile; call again when nothing else is running here" in refusal(lines, job)
    assert "adopted" not in json.loads(path.read_text())


# Datasets


def unsealed(record):
    return {name: value for name, value in record.items() if name != SEAL}


def write_again(job, change):
    """A whole and consistent dataset file with other labels or pixels, and a record that says so."""
    dataset = open_dataset(job.outputs[0])
    pixels = [dataset.decode(i) for i in range(dataset.num_samples)]
    labels, splits = dataset.labels.tolist(), [SPLITS[s] for s in dataset.splits]
    change(dataset, pixels, labels)
    header = DatasetHeader(**{name: getattr(dataset, name) for name in DatasetHeader.__dataclass_fields__})
    sources = [bytes(source).decode() for source in dataset.sources]
    write_dataset(job.outputs[0], header, labels, splits, sources, map(StoredImage, pixels))
    forged = open_dataset(job.outputs[0])
    facts = {"digest": forged.digest, "mean": list(forged.mean), "std": list(forged.std)}
    facts["frame_digest"] = forged.frame_digest()
    edit_record(job, lambda record: record.update(facts))


def one_pixel(dataset, pixels, _labels):
    pixels[_drawn(dataset)[0]][0, 0, 0] ^= 1


def one_label(_dataset, _pixels, labels):
    labels[5] = (labels[5] + 1) % 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [(one_pixel, " is packed otherwise now: its raw file, the code that packs it, or Pillow"), (one_label, "its ")],
)
def test_a_dataset_with_another_pixel_or_label(made, adopted, change, words):
    job = find("pack_dataset")
    age(job)
    write_again(job, change)
    assert words in refusal(adopted(str(job.outputs[0]))[0], job)


@pytest.mark.slow
def test_a_dataset_with_a_flipped_bit(made, adopted):
    job = find("pack_dataset")
    age(job)
    dataset = open_dataset(job.outputs[0])
    data = bytearray(job.outputs[0].read_bytes())
    data[data.index(dataset.decode(100).tobytes()) + 20] ^= 1
    job.outputs[0].write_bytes(data)
    assert "sample 100" in refusal(adopted(str(job.outputs[0]))[0], job)


# Partitions and indexes


@pytest.mark.slow
def test_a_partition_with_a_class_in_another_subset(made, adopted):
    job = find("partition_dataset")
    age(job)

    def move(record):
        record["subsets"][1]["class_ids"].append(record["subsets"][0]["class_ids"].pop())

    edit_record(job, move)
    assert "content has digest " in refusal(adopted(str(job.outputs[0]))[0], job)


@pytest.mark.slow
def test_an_index_that_says_something_else(made, adopted):
    job = find("verify_soft_labels")
    age(job)
    edit_record(job, lambda record: record.update(teacher_forwards=1))
    text = refusal(adopted(str(job.outputs[0]))[0], job)
    assert text == f"{job.outputs[0]}: its teacher_forwards is 1, made again it is 120"


# Teachers


def change_weights(job, change):
    """Other weights, of whose file the record has the digest."""
    weights = safetensors.torch.load_file(job.outputs[0])
    changed = {name: change(tensor).contiguous() for name, tensor in weights.items()}
    job.outputs[0].write_bytes(safetensors.torch.save(changed))
    edit_record(job, lambda record: record.update(weights_digest=digest_file(job.outputs[0])))


@pytest.mark.slow
def test_teachers_with_other_weights(made, adopted):
    job = find("train_teacher", teacher="general")
    age(job)
    text = job.outputs[0].read_bytes()
    job.outputs[0].write_bytes(text[:-1] + bytes([text[-1] ^ 1]))
    assert "they do not belong together" in refusal(adopted(str(job.outputs[0]))[0], job)
    job.outputs[0].write_bytes(text)
    change_weights(job, lambda tensor: -tensor)
    assert refusal(adopted(str(job.outputs[0]))[0], job) == (
        f"{job.outputs[0]}: cannot be measured again: logits must be numbers, got NaN"
    )
    job.outputs[0].write_bytes(text)
    change_weights(job, lambda tensor: tensor.roll(1, 0) if tensor.ndim > 1 else tensor)
    assert " val images rightly when it was made, now " in refusal(adopted(str(job.outputs[0]))[0], job)
    change_weights(job, lambda tensor: tensor.flatten() if tensor.ndim > 1 else tensor)
    text = refusal(adopted(str(job.outputs[0]))[0], job)
    assert "its weights do not fit the network that the present code builds (Error(s) in loading" in text


@pytest.mark.slow
@pytest.mark.parametrize(("images", "is_adopted"), [(1, True), (-1, True), (2, False)])
def test_a_teacher_may_differ_on_one_image(made, adopted, images, is_adopted):
    job = find("train_teacher", teacher="general")
    age(job)
    total, top1 = read(job)["top1_samples"], read(job)["top1"]
    edit_record(job, lambda record: record.update(top1=top1 + images / total))
    lines, error = adopted(str(job.outputs[0]))
    assert bool(error) != is_adopted
    if is_adopted:
        found = read(job)
        assert (found["top1"], found["adopted"]["top1"]) == (top1 + images / total, top1)
        assert found["adopted"]["difference_images"] == 1
    else:
        assert "named 34 of 120 val images rightly when it was made, now 32" in refusal(lines, job)


@pytest.mark.slow
def test_a_teacher_whose_record_lacks_what_it_was_gated_on(made, adopted):
    job = find("train_teacher")
    age(job)
    edit_record(job, lambda record: record.pop("top1"))
    (line,) = [line for line in adopted(str(job.outputs[0]))[0] if line.startswith("refused")]
    assert line.endswith(f"{record_path(job.outputs[0])}: has no 'top1', so there is nothing to compare with")


# Soft labels


@pytest.mark.slow
def test_soft_labels_of_other_weights(made, adopted, monkeypatch):
    job, load = find("dump_soft_labels"), dump_soft_labels.load_teacher

    def forged(files, dataset):
        teacher = load(files, dataset)
        for parameter in teacher.network.parameters():
            parameter.data *= 1.2
        return teacher

    with monkeypatch.context() as patch:
        patch.setattr(dump_soft_labels, "load_teacher", forged)
        job.outputs[0].unlink()
        run_job(job)
    age(job)
    assert "is not what the teacher says now (" in refusal(adopted(str(job.outputs[0]))[0], job)


@pytest.mark.slow
def test_soft_labels_with_another_header(made, adopted):
    first, second = [job for job in jobs("kd") if job.step == "dump_soft_labels"]
    age(second)
    record = read(second)
    shutil.copyfile(first.outputs[0], second.outputs[0])
    edit_record(second, lambda r: r.update(unsealed(read(first)), code=OLD_DIGEST, views=record["views"]))
    text = refusal(adopted(str(second.outputs[0]))[0], second)
    assert "a dump would begin with another header now: other views, samples, classes, precision or columns" in text


# Students


@pytest.mark.slow
def test_students_without_recorded_losses(made, adopted):
    job = find("run_stage", experiment="kd")
    age(job)
    edit_record(job, lambda record: record.pop("first_losses"))
    (line,) = [line for line in adopted(str(job.outputs[0]))[0] if line.startswith("refused")]
    assert line.endswith(
        f"{record_path(job.outputs[0])}: holds no losses of the first iterations, as records of older edpipes do not, "
        "so that training them again shows nothing"
    )


@pytest.mark.slow
def test_a_student_of_another_seed(made, adopted):
    raw = params_with_ctkd()
    raw["experiments"]["kd"]["seeds"] = [0, 1]
    write_params(raw)
    first, second = [job for job in jobs("kd") if job.step == "run_stage"]
    run_job(second)
    for one, other in zip(first.outputs, second.outputs, strict=True):
        shutil.copyfile(one, other)
    age(second)
    (line, _), _ = adopted(str(second.outputs[0]))
    assert f"{record_path(second.outputs[0])}: is of seed 0, in the place of seed 1; make it again with" in line
    edit_record(second, lambda record: record.update(seed=1))
    text = refusal(adopted(str(second.outputs[0]), other_machine=True)[0], second)
    assert ": the loss of iteration " in text
    assert "--other-machine" not in text


def shift_losses(job, factor):
    edit_record(job, lambda record: record.update(first_losses=[loss * factor for loss in record["first_losses"]]))


@pytest.mark.slow
def test_losses_must_be_equal_unless_another_machine_made_them(made, adopted):
    job = find("run_stage", experiment="kd")
    age(job)
    shift_losses(job, 1 + 1e-6)
    text = refusal(adopted(str(job.outputs[0]))[0], job)
    assert ", a relative difference of 1e-06; if another type of machine, or other numbers of threads" in text
    assert text.endswith("trained it, call with --other-machine, which allows 0.0001")
    assert not adopted(str(job.outputs[0]), other_machine=True)[1]
    assert read(job)["adopted"]["max_relative_difference"] == pytest.approx(1e-6, rel=1e-3)
    assert read(job)["adopted"]["compared_iterations"] == 3


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "is_adopted"), [(1 + 1e-6, True), (1 + 1e-3, False)])
def test_losses_of_other_libraries_may_differ_a_little(made, adopted, factor, is_adopted):
    job = find("run_stage", experiment="kd")
    age(job)
    edit_record(job, lambda record: record["versions"].update(torch="1.0"))
    shift_losses(job, factor)
    lines, error = adopted(str(job.outputs[0]))
    assert bool(error) != is_adopted
    if is_adopted:
        found = read(job)
        assert found["versions"]["torch"] == found["adopted"]["versions_then"]["torch"] == "1.0"
        assert found["adopted"]["versions_when_shown"] == library_versions()
    else:
        assert "--other-machine" not in refusal(lines, job)


@pytest.mark.slow
def test_a_student_whose_weights_do_not_fit(made, adopted):
    job = find("run_stage", experiment="kd")
    age(job)
    change_weights(job, lambda tensor: tensor.flatten() if tensor.ndim > 1 else tensor)
    text = refusal(adopted(str(job.outputs[0]))[0], job)
    assert "its weights do not fit the student that the present code builds (" in text


@pytest.mark.slow
def test_a_student_that_saw_other_samples(made, adopted):
    job = find("run_stage", experiment="kd")
    age(job)
    edit_record(job, lambda record: record.update(taught_digest=OLD_DIGEST))
    assert f"its taught_digest is '{OLD_DIGEST}', made again it is '" in refusal(adopted(str(job.outputs[0]))[0], job)


# Trajectories


@pytest.mark.slow
def test_trajectories_of_another_start(made, adopted, monkeypatch):
    job = find("record_trajectory")
    edit_record(job, lambda record: record.update(code=OTHER_TOKENS))

    def other_start(seed, knobs, shared):
        return start(seed + 1, knobs, shared)

    start = trajectories.scratch_start
    monkeypatch.setattr(trajectories, "scratch_start", other_start)
    text = refusal(adopted(str(job.outputs[0]))[0], job)
    assert re.search(r": epoch 0, sample \d+: what the teacher says when it is trained again is not what", text)
    assert refusal(adopted(str(job.outputs[0]), other_machine=True)[0], job)
    monkeypatch.setattr(trajectories, "scratch_start", start)
    assert not adopted(str(job.outputs[0]))[1]
    assert read(job)["adopted"]["rows_of_other_bits"] == 0


@pytest.mark.slow
def test_trajectories_with_another_header(made, adopted, monkeypatch):
    job = find("record_trajectory")
    age(job)
    header = trajectories.recording_header
    monkeypatch.setattr(trajectories, "recording_header", lambda *args: header("another", *args[1:]))
    assert "a recording would begin with another header now: other views" in refusal(
        adopted(str(job.outputs[0]))[0], job
    )


# The command


@pytest.mark.slow
def test_wrong_words(made, adopted):
    assert adopted()[1].startswith("adopt: nothing named; name experiments, or paths of artifacts")
    assert adopted("kf")[1].startswith("adopt: 'kf' is no experiment or study of params.yaml, and no artifact of one; ")
    assert "no artifact of one" in adopted("artifacts/datasets/other.h5")[1]
    with pytest.raises(ParamsError):
        adopt.run(["kf"], dry_run=False, other_machine=False)


@pytest.mark.slow
def test_a_refusal_ends_with_a_mendable_mistake(made):
    age(find("run_stage", experiment="kd"))
    edit_record(find("run_stage", experiment="kd"), lambda record: record.pop("first_losses"))
    with pytest.raises(MismatchError, match=r"^1 of 7 artifacts cannot be adopted; "):
        adopt.run(["kd"], dry_run=True, other_machine=False)


def test_the_largest_relative_difference(tmp_path):
    claim = Claim(Job("run_stage", {}, NoKnobs(), {}, (tmp_path / "a.safetensors",)), {}, tmp_path, True)
    assert students.compare_losses(claim, [1.0, 2.0, 0.0], [1.0, 2.0001, 0.0]) == pytest.approx(1e-4 / 2.0001)
    assert np.isclose(students.TOLERANCE, 1e-4)
