"""One teacher's soft labels from another project, as docs/sharing.md says: no teacher is trained or asked again."""

import shutil

import pytest
import yaml
from dvc_stories import PARAMS, end_of, stages_of, start
from s3_server import BUCKET

pytest.importorskip("dvc_s3")
pytest.importorskip("snakemake")
pytestmark = pytest.mark.slow

TEACHER = "digits/whole"
PARTS = [f"artifacts/{part}/{TEACHER}" for part in ("teachers", "soft_labels", "teacher_evaluations")]
STAGES = [
    "train_teacher@digits-whole-all",
    "dump_soft_labels@digits-whole-all-0-1",
    "verify_soft_labels@digits-whole-all",
    "evaluate_teacher@digits-whole-all",
]
DATA = ("artifacts/datasets/digits.h5", "artifacts/partitions/digits/thirds.json")
STUDENT_OF_KD = sorted([*stages_of("kd", "only"), *end_of("kd")])


def start_taking(root, has_stand_in=True):
    """Another project with the same data, teacher and soft labels in params.yaml, and other experiments."""
    folder = start(root, "copy", has_stand_in)
    (folder.root / "params.yaml").write_text(PARAMS.replace("tracked: [ce, kd, ed]", "tracked: [kd]"))
    folder.call("edpipe", "tracked_jobs")
    folder.git_commit()
    return folder


@pytest.fixture
def taking(tmp_path):
    return start_taking(tmp_path / "other")


def publish(folder, store):
    """Only what is published is pushed, to the store."""
    folder.call("dvc", "remote", "add", "--default", "store", f"s3://{BUCKET}/soft_labels")
    folder.call("dvc", "remote", "modify", "store", "endpointurl", store.address)
    folder.git_commit()
    folder.call("dvc", "push", *STAGES)
    shutil.rmtree(folder.root / ".dvc/cache")


@pytest.fixture
def published(repository, s3_store):
    publish(repository, s3_store)
    return repository


def test_soft_labels_that_were_got_are_used(published, taking, s3_store):
    assert len(s3_store.keys) == 6, "two files of the teacher, two of its soft labels, their index, its evaluation"
    assert len(taking.snakemake(*DATA)) == 2
    for path in PARTS:
        taking.call("dvc", "get", str(published.root), path, "--out", path)
    assert taking.snakemake() == STUDENT_OF_KD
    assert taking.dvc_repro() == []
    taking.call("dvc", "push")
    assert taking.snakemake() == []


def test_imported_soft_labels_name_where_they_are_from(published, taking):
    taking.snakemake(*DATA)
    for path in PARTS:
        place = taking.root / path.replace("artifacts", "imported")
        place.parent.mkdir(parents=True)
        taking.call("dvc", "import", str(published.root), path, "--out", str(place.relative_to(taking.root)))
    taking.call("cp", "-r", "imported/.", "artifacts/")
    assert taking.snakemake() == STUDENT_OF_KD
    assert taking.dvc_repro() == []
    commit = published.call("git", "rev-parse", "HEAD").strip()
    for path in PARTS:
        (source,) = yaml.safe_load((taking.root / f"{path.replace('artifacts', 'imported')}.dvc").read_text())["deps"]
        assert source["repo"] == {"url": str(published.root), "rev_lock": commit}
        assert source["path"] == path


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("max_per_class: 12", "max_per_class: 11"),
        ("learning_rate: 0.1 }\n    min_top1: 0\n  spec", "learning_rate: 0.3 }\n    min_top1: 0\n  spec"),
    ],
)
def test_soft_labels_of_other_data_or_another_teacher_are_not(published, taking, before, after):
    taking.edit(before, after)
    taking.snakemake(*DATA)
    for path in PARTS:
        taking.call("dvc", "get", str(published.root), path, "--out", path)
    made = taking.snakemake()
    assert "train_teacher --dataset digits --teacher whole --subset all" in made
    assert "dump_soft_labels --dataset digits --teacher whole --subset all --views 0-1" in made


def test_real_soft_labels_are_used(tmp_path, s3_store):
    source, taking = start(tmp_path / "source", "copy", has_stand_in=False), start_taking(tmp_path / "other", False)
    source.edit("tracked: [ce, kd, ed]", "tracked: [kd]")
    source.call("snakemake", "--cores", "2")
    publish(source, s3_store)
    taking.call("snakemake", "--cores", "2", *DATA)
    for path in PARTS:
        taking.call("dvc", "get", str(source.root), path, "--out", path)
    output = taking.call("snakemake", "--cores", "2")
    ran = [line.split()[2].rstrip(":") for line in output.splitlines() if " done    " in line]
    assert [rule for rule in ran if rule != "all"] == ["run_stage", "evaluate", "result", "report"]
    for name in ("1_only.safetensors", "1_only.json"):
        path = f"artifacts/students/kd/seed0/{name}"
        assert (taking.root / path).read_bytes() == (source.root / path).read_bytes(), "the very same student"
