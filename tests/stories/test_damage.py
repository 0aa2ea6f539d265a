"""Damage of every kind of artifact: `edpipe verify` names it, and no step uses it.

Times of the last change are kept throughout, so that nothing but the content can tell.
"""

import json
import os
import random
import re
import shutil
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from examples import rewrite_result
from project import as_yaml
from school import params

from edpipe.cli.main import EXIT_MENDABLE, main
from edpipe.errors import CorruptFileError, EdpipeError
from edpipe.params.load import load_params
from edpipe.pipeline.jobs import graph, paths
from edpipe.pipeline.state.checked_artifacts import CheckedArtifacts
from edpipe.pipeline.state.judgement import inspect, judged
from edpipe.pipeline.state.recorded import Records
from edpipe.results.comparison.study_table import STUDY_FORMAT_VERSION
from edpipe.storage.digests import digest_file
from edpipe.storage.records import read_record, record_path, write_record

pytestmark = pytest.mark.slow
EXPERIMENTS = ("ed", "kd", "ctkd")
DATASET = Path("artifacts/datasets/digits.h5")
INPUT_OF = {
    "partition_dataset": "run_stage",
    "train_teacher": "dump_soft_labels",
    "verify_soft_labels": "run_stage",
    "evaluate_teacher": "evaluate",
    "record_trajectory": "run_stage",
    "run_stage": "evaluate",
    "evaluate": "result",
    "result": "report",
}
"""For the step whose JSON a later step reads, that step."""


def jobs():
    loaded = load_params()
    return [*graph.jobs_of(loaded, EXPERIMENTS), *graph.studies_named(loaded, ())]


def first(step, words=()):
    """The first job of a step, or the one whose command has these words."""
    return next(job for job in jobs() if job.step == step and all(word in job.command for word in words))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which all steps have run, of two experiments and a study."""
    folder = tmp_path_factory.mktemp("finished")
    raw = params()
    raw["studies"] = {"both": {"base": "kd", "experiments": ["ed", "kd"]}}
    raw["experiments"]["kd"]["stages"] = {"only": {"images": 192, "learning_rate": 0.05}}  # as many as ed's three
    raw["teachers"]["scratch"] = {**raw["teachers"]["general"]}
    only = {"only": {"epochs": raw["teachers"]["scratch"]["fitting"]["epochs"], "learning_rate": 0.05}}
    method = {"name": "ctkd", "scratch": "scratch", "attention_weight": 0}
    raw["experiments"]["ctkd"] = {**raw["experiments"]["kd"], "method": method, "stages": only}
    (folder / "params.yaml").write_text(as_yaml(raw), encoding="utf-8")
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDPIPE_THREADS", "1")
        patch.setenv("EDPIPE_DEVICE", "cpu")
        patch.delenv("DVC_STAGE", raising=False)
        patch.chdir(folder)
        for job in jobs():
            assert main(job.command.split()[1:]) == 0, job.command
        yield folder


@pytest.fixture
def folder(finished, monkeypatch):
    """The folder; what a test alters is put back."""
    monkeypatch.chdir(finished)
    kept = {path: (path.read_bytes(), path.stat()) for path in Path().rglob("*") if path.is_file()}
    yield finished
    for path, (data, status) in kept.items():
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def put(path, data):
    """Other bytes under an old time."""
    status = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def damage_of(job):
    """What verify says of one artifact, without running it over the others."""
    return inspect(job, Records(), CheckedArtifacts(reads_all=True)).damage


def refusal(capsys, job):
    """The line that a step ends with; it leaves its outputs as they are."""
    before = [path.read_bytes() for path in job.outputs]
    capsys.readouterr()
    assert main(job.command.split()[1:]) == EXIT_MENDABLE, job.command
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("edpipe: ")]
    assert [path.read_bytes() for path in job.outputs] == before
    return line


def verified(capsys, *words):
    capsys.readouterr()
    rc = main(["verify", *words])
    captured = capsys.readouterr()
    return rc, captured.out.splitlines(), captured.err


def leaves(value, place=()):
    """Places of all numbers and texts."""
    if isinstance(value, dict):
        return [leaf for name, part in value.items() for leaf in leaves(part, (*place, name))]
    if isinstance(value, list):
        return [leaf for number, part in enumerate(value) for leaf in leaves(part, (*place, number))]
    return [] if value is None or isinstance(value, bool) else [place]


def edited(contents, place):
    """The contents with the value at a place a little different."""
    contents = json.loads(json.dumps(contents))
    part = contents
    for name in place[:-1]:
        part = part[name]
    value = part[place[-1]]
    part[place[-1]] = f"{value}x" if isinstance(value, str) else value + 1
    return contents


def test_what_is_whole_passes(folder, capsys):
    rc, lines, err = verified(capsys)
    assert rc == 0, (lines, err)
    assert {line.split()[0] for line in lines if line.startswith(("cached", "stale", "waits", "damaged"))} == {"cached"}
    assert "cached   results/study_both.json" in lines


@pytest.mark.parametrize("step", sorted({*INPUT_OF, "pack_dataset", "dump_soft_labels", "study"}))
def test_an_edit_of_any_value_of_a_json_is_found_and_refused(folder, capsys, step):
    job = first(step)
    path = record_path(job.outputs[0])
    contents, rng = json.loads(path.read_text(encoding="utf-8")), random.Random(step)
    places = leaves(contents)
    for place in rng.sample(places, min(len(places), 40)):
        put(path, json.dumps(edited(contents, place), indent=1, sort_keys=True, ensure_ascii=False).encode())
        with pytest.raises(CorruptFileError, match=r"altered since written"):
            read_record(path)
        assert "altered since written" in damage_of(job), place
    rc, lines, _ = verified(capsys)
    assert rc == EXIT_MENDABLE
    assert any(line.startswith(f"damaged  {job.outputs[0]}: {path}: altered since written") for line in lines)
    if step in INPUT_OF:
        reader = next(j for j in jobs() if j.step == INPUT_OF[step] and path in j.all_inputs)
        assert re.search(rf"{path}: (altered since written|not a [a-z ]+ of version)", refusal(capsys, reader))


BINARY = ("pack_dataset", "train_teacher", "dump_soft_labels", "record_trajectory", "run_stage")


@pytest.mark.parametrize("step", BINARY)
def test_any_flipped_bit_is_found(folder, step):
    job = first(step)
    path, rng = job.outputs[0], random.Random(step)
    data = path.read_bytes()
    assert not damage_of(job)
    for place in [0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(60))]:
        put(path, data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :])
        assert damage_of(job), place


@pytest.mark.parametrize("step", [*BINARY, "partition_dataset", "verify_soft_labels", "evaluate_teacher", "evaluate"])
def test_a_cut_file_is_found(folder, step):
    job = first(step)
    data = job.outputs[0].read_bytes()
    for share in (0.0, 0.5, 0.999):
        put(job.outputs[0], data[: int(len(data) * share)])
        assert damage_of(job), share


@pytest.mark.parametrize("step", ["partition_dataset", "verify_soft_labels", "evaluate", "result", "report", "study"])
def test_any_flipped_bit_of_a_text_is_found(folder, step):
    job, rng = first(step), random.Random(step)
    for path in job.outputs:
        data = path.read_bytes()
        for place in [0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(20))]:
            put(path, data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :])
            found = inspect(job, Records(), CheckedArtifacts(reads_all=True))
            assert found.damage or found.reasons, (path, place)
        put(path, data)


def test_what_was_made_from_other_weights_than_the_present_ones_is_named(folder, capsys):
    job = first("train_teacher", ("general",))
    path = job.outputs[0]
    data, before = path.read_bytes(), read_record(record_path(path))["weights_digest"]
    put(path, data[:-1] + bytes([data[-1] ^ 1]))
    rc, lines, _ = verified(capsys)
    assert rc == EXIT_MENDABLE
    told = f"damaged  {path}: {path}: content has digest {digest_file(path)}, its record says {before}"
    assert any(line.startswith(told) for line in lines)
    said = f"teacher is another one now ({before} → {digest_file(path)})"
    for step in ("dump_soft_labels", "verify_soft_labels", "evaluate_teacher"):
        assert f"stale    {first(step, ('general',)).outputs[0]}: {said}" in lines
    student = first("run_stage", ("kd",)).outputs[0]
    assert f"stale    {student}: {said.replace('teacher is', 'teachers are')}" in lines


def blank():
    """All images but the sixteen that are looked at when the file is opened are black; the time is kept."""
    status = DATASET.stat()
    with h5py.File(DATASET, "r+") as file:
        num = len(file["images"])
        looked_at = {int(i) for i in np.linspace(0, num - 1, 16).astype(np.int64)}
        for row in set(range(num)) - looked_at:
            file["images"][row] = 0
    os.utime(DATASET, ns=(status.st_atime_ns, status.st_mtime_ns))
    return num - len(looked_at)


def test_blanked_pixels_are_found_and_not_used(folder, capsys):
    num = blank()
    rc, lines, err = verified(capsys)
    assert rc == EXIT_MENDABLE
    (line,) = [line for line in lines if line.startswith(f"damaged  {DATASET}")]
    assert "is not the image that was packed, and " in line
    assert f" {num - 1:,} more: altered since" in line
    (line,) = [line for line in lines if line.startswith(f"damaged: {DATASET}: ")]
    assert " artifacts were made from it: artifacts/partitions/digits/" in line
    assert line.endswith(f"more; make it again with `snakemake --force {DATASET}`")
    assert "do not fit" in err
    for step in ("train_teacher", "dump_soft_labels", "evaluate_teacher", "run_stage", "evaluate"):
        job = first(step)
        shutil.rmtree(job.outputs[0].parent / ".resume", ignore_errors=True)
        kept = [(path, path.read_bytes(), path.stat()) for path in job.outputs]
        for path in job.outputs if step == "dump_soft_labels" else ():
            path.unlink()  # else it is whole and taken over
        try:
            line = refusal_of_unmade(capsys, job)
        finally:
            for path, data, status in kept:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert "is not the image that was packed" in line
        assert line.endswith(f"make it again with `snakemake --force {DATASET}`")


def refusal_of_unmade(capsys, job):
    capsys.readouterr()
    assert main(job.command.split()[1:]) == EXIT_MENDABLE, job.command
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("edpipe: ")]
    return line


def test_what_a_run_remembers_as_sound_is_read_again_once_it_looks_otherwise(folder):
    job, checked = first("result"), CheckedArtifacts()
    for path in job.outputs:
        time.sleep(0.05)  # what is changed in the same tick of the clock is not remembered
        assert [one.fits for one in judged([job], checked)] == [True]
        assert checked.find(job.outputs) is not None
        data = path.read_bytes()
        put(path, data.replace(b"0", b"1", 1))
        assert [one.is_unfit for one in judged([job], checked)] == [True], path
        assert checked.find(job.outputs) is None
        put(path, data)


def test_a_quick_look_says_that_it_is_no_proof(folder, capsys):
    paths.CHECKED.unlink(missing_ok=True)
    rc, lines, _ = verified(capsys, "--quick")
    assert rc == 0, [line for line in lines if not line.startswith("cached")]
    assert any("--quick reads records, and of all else compares size and times" in line for line in lines)
    (unread,) = [line for line in lines if "were not read since they were made or changed" in line]
    assert str(DATASET) in unread
    assert verified(capsys)[0] == 0
    rc, lines, _ = verified(capsys, "ed", "--quick")
    assert rc == 0, [line for line in lines if not line.startswith("cached")]
    assert not any("were not read since" in line for line in lines)
    blank()
    (unread,) = [line for line in verified(capsys, "--quick")[1] if "were not read since" in line]
    assert unread.endswith(f": {DATASET}")


SIBLINGS = [
    ("train_teacher", ("specialists", "primary"), ("specialists", "middle")),
    ("dump_soft_labels", ("specialists", "primary"), ("specialists", "middle")),
    ("verify_soft_labels", ("specialists", "primary"), ("specialists", "middle")),
    ("evaluate_teacher", ("specialists", "primary"), ("specialists", "middle")),
    ("run_stage", ("ed", "primary"), ("ed", "middle")),
    ("evaluate", ("ed",), ("kd",)),
    ("result", ("ed",), ("kd",)),
    ("report", ("ed",), ("kd",)),
]


@pytest.mark.parametrize(("step", "one", "other"), SIBLINGS, ids=[step for step, _, _ in SIBLINGS])
def test_siblings_that_changed_places_with_their_records_are_found(folder, capsys, step, one, other):
    pair = [first(step, words) for words in (one, other)]
    for here, there in zip(*(job.outputs for job in pair), strict=True):
        data = here.read_bytes(), there.read_bytes()
        put(here, data[1])
        put(there, data[0])
    rc, lines, _ = verified(capsys)
    assert rc == EXIT_MENDABLE
    for job in pair:
        assert any(line.startswith((f"damaged  {job.outputs[0]}: ", f"stale    {job.outputs[0]}: ")) for line in lines)


@pytest.mark.parametrize("step", BINARY)
def test_content_without_its_record_is_found(folder, step):
    job = first(step)
    record_path(job.outputs[0]).unlink()
    assert f"{record_path(job.outputs[0])}: not a readable record" in damage_of(job)


def reseal(job, **changes):
    """The JSON with these keys changed and its seal made to fit, as a forger would do it."""
    path = record_path(job.outputs[0])
    write_record(path, {name: value for name, value in (read_record(path) | changes).items() if value is not ...})
    return path


def test_a_forged_study_is_computed_again(folder):
    job = first("study")
    path, contents = job.outputs[0], read_record(job.outputs[0])
    rows = [row | {"student_parameters": 1} for row in contents["results"]]
    reseal(job, results=rows)
    assert damage_of(job).startswith(
        f"{path}: results.0.student_parameters is 1, computed again from its results it is"
    )
    for name, told in (("comparisons", "KeyError('comparisons')"), ("base", "KeyError('base')")):
        reseal(job, results=contents["results"], **{name: ...})
        assert damage_of(job) == (f"{path}: not a whole study ({told}); make it again with `snakemake --force {path}`")
        reseal(job, **{name: contents[name]})
    assert not damage_of(job)
    reseal(job, format_version=1)
    assert damage_of(job).startswith(f"{path}: not a study of version {STUDY_FORMAT_VERSION}; make it again with")


def test_a_forged_result_is_computed_again_from_its_evaluations(folder):
    job = first("result")
    contents = read_record(job.outputs[0])
    contents["data"]["class_names"][0] = "another"
    rewrite_result(job.outputs[0], contents)
    assert damage_of(job).startswith(
        f"{job.outputs[0]}: data.class_names.0 is 'another', computed again from its evaluations it is '"
    )


@pytest.mark.parametrize(("step", "output"), [("result", 1), ("result", 2), ("study", 1), ("study", 2)])
def test_a_table_is_derived_again(folder, capsys, step, output):
    job = first(step)
    path = job.outputs[output]
    put(path, path.read_bytes().replace(b"1", b"2", 1))
    assert damage_of(job) == (
        f"{path}: is not what is made from {job.outputs[0]}; make it again with `snakemake --force {job.outputs[0]}`"
    )


def test_a_page_of_another_result_is_stale(folder, capsys):
    page = first("report").outputs[0]
    put(page, page.read_bytes().replace(b'name="edpipe-result" content="', b'name="edpipe-result" content="0', 1))
    lines = verified(capsys)[1]
    (line,) = [line for line in lines if str(page) in line]
    assert line.startswith(f"stale    {page}: ")


def test_every_refusal_is_an_error_that_users_can_mend(folder):
    for job in jobs():
        path = record_path(job.outputs[0])
        if path in job.outputs:
            put(path, path.read_bytes().replace(b'"file_digest"', b'"other"'))
            with pytest.raises(EdpipeError, match=r"holds no digest of its content \('file_digest'\)"):
                read_record(path)
