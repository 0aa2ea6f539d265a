"""`edpipe import-soft-labels`: files in torchdistill's layout become soft labels if the teacher confirms them."""

import copy
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from project import as_yaml, tiny_params
from small_world import World, every_row

from edpipe.cli.main import main
from edpipe.datasets.dataset_file import open_dataset
from edpipe.pipeline.jobs import paths
from edpipe.soft_labels.file.reader import open_soft_labels
from edpipe.storage.records import read_record, record_path

pytestmark = pytest.mark.slow
torch.set_num_threads(1)
DATASET = paths.dataset_path("digits")
FILE = paths.soft_labels_path("digits", "general", "all", "0-0")
PLAIN = {"augment": {"kind": "pad_crop", "padding": 0, "flip": False}, "exhaustive": True}
WORDS = ("--dataset=digits", "--teacher=general", "--samples=samples.txt", "--classes=classes.txt")


def write_params(space=PLAIN, storage="float32", **more):
    params = copy.deepcopy(tiny_params())
    labels = params["soft_labels"]["digits"]
    labels["space"], labels["storage"] = space, {"precision": storage, **more}
    labels["views"] = {"number": None if space.get("exhaustive") else 2, "per_file": 1}
    Path("params.yaml").write_text(as_yaml(params))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a teacher, the outputs that it gives, in torchdistill's layout, and the two lists."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("EDPIPE_THREADS", "1"), ("EDPIPE_DEVICE", "cpu"), ("EDPIPE_DVC", "0")):
            patch.setenv(name, value)
        patch.chdir(root)
        write_params()
        assert main(["pack_dataset", "--dataset=digits"]) == 0
        World(root / "built", root / DATASET, root / "none").teacher("all")
        shutil.copytree(root / "built" / "teachers", root / "artifacts" / "teachers" / "digits")
        words = ["--dataset=digits", "--teacher=general", "--subset=all", "--views=0-0"]
        assert main(["dump_soft_labels", *words]) == 0
        write_cache(open_soft_labels(FILE))
        shutil.copytree(FILE.parent, "expected")
        shutil.rmtree(root / "artifacts" / "soft_labels")
        yield root


def write_cache(labels):
    """As torchdistill does it: indexes are those of its own list of images, columns those of its own classes."""
    rng, dataset = np.random.default_rng(0), open_dataset(DATASET)
    rows = labels.logits(*every_row(labels))
    columns, order = rng.permutation(10), rng.permutation(dataset.num_samples)
    place = {int(sample_id): row for row, sample_id in enumerate(labels.sample_ids)}
    Path("samples.txt").write_text("\n".join(dataset.sources[k].decode() for k in order))
    Path("classes.txt").write_text("\n".join(dataset.class_names[c] for c in columns))
    for index, sample_id in enumerate(order):
        if int(sample_id) in place:
            digits = f"{index:04d}"
            path = Path("cache") / digits[-4:] / f"{digits}.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            outputs = torch.from_numpy(rows[place[int(sample_id)]][columns].copy())
            torch.save({"teacher_outputs": outputs, "extracted_outputs": {}}, path)


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    for name, value in (("EDPIPE_THREADS", "1"), ("EDPIPE_DEVICE", "cpu"), ("EDPIPE_DVC", "0")):
        monkeypatch.setenv(name, value)
    return tmp_path / "project"


def refused(capsys, *words):
    capsys.readouterr()
    assert main(["import-soft-labels", *words]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("edpipe: ")]
    assert len(said) == 1
    assert not FILE.exists()
    return said[0].removeprefix("edpipe: ")


@pytest.mark.parametrize("storage", ["float32", "uint8"])
def test_imported_rows_are_those_that_a_dump_stores_and_are_marked(project, storage):
    write_params(storage=storage)
    assert main(["import-soft-labels", "torchdistill", "cache", *WORDS]) == 0
    labels, expected = open_soft_labels(FILE), open_soft_labels(Path("expected") / FILE.name)
    rows, known = (one.logits(*every_row(one)) for one in (labels, expected))
    assert labels.provenance == expected.provenance
    if storage == "float32":
        assert labels.digest == expected.digest
        assert rows.tobytes() == known.tobytes()
    else:
        assert np.abs(rows - known).max() < 0.1
    imported = read_record(record_path(FILE))["imported"]
    assert (imported["program"], imported["compared_rows"]) == ("torchdistill", len(rows))
    assert imported["max_difference"] == pytest.approx(np.abs(rows - known).max(), abs=1e-5)


def test_the_pipeline_takes_them_and_verifies_them_again(project):
    assert main(["import-soft-labels", "torchdistill", "cache", *WORDS, "--rows", "7"]) == 0
    assert read_record(record_path(FILE))["imported"]["compared_rows"] == 7
    assert main(["verify_soft_labels", "--dataset=digits", "--teacher=general", "--subset=all"]) == 0


def test_files_by_plain_index_are_found_too(project):
    for path in list(Path("cache").rglob("*.pt")):
        path.rename(Path("cache") / f"{int(path.stem)}.pt")
    assert main(["import-soft-labels", "torchdistill", "cache", *WORDS]) == 0


@pytest.mark.parametrize("listed", ["samples", "classes"])
def test_another_order_is_refused_by_the_teacher(project, capsys, listed):
    lines = Path(f"{listed}.txt").read_text().splitlines()
    Path(f"{listed}.txt").write_text("\n".join(reversed(lines)))
    if listed == "samples":  # so that each index has a file
        some = next(Path("cache").rglob("*.pt"))
        for index in range(len(lines)):
            path = Path("cache") / f"{index:04d}" / f"{index:04d}.pt"
            path.parent.mkdir(exist_ok=True)
            if not path.exists():
                shutil.copy(some, path)
    line = refused(capsys, "torchdistill", "cache", *WORDS)
    assert line.startswith("cache: these are not outputs of teacher general for the images as they are: sample ")
    assert line.endswith("or call `snakemake` to store them anew")
    Path(f"{listed}.txt").write_text("\n".join(lines))
    if listed == "classes":
        assert main(["import-soft-labels", "torchdistill", "cache", *WORDS]) == 0, "nothing of the refused rows is kept"
    else:
        assert main(["dump_soft_labels", "--dataset=digits", "--teacher=general", "--subset=all", "--views=0-0"]) == 0
    assert open_soft_labels(FILE).digest == open_soft_labels(Path("expected") / FILE.name).digest


@pytest.mark.parametrize(("program", "why"), [("tinyvit", "NumPy's generator"), ("fkd", "drawn and rounded")])
def test_rows_of_views_that_cannot_be_replayed_are_refused(project, capsys, program, why):
    line = refused(capsys, program, "cache", "--dataset=digits", "--teacher=general")
    assert line.startswith(f"import-soft-labels: {program}: its rows are the largest probabilities on ")
    assert why in line
    assert line.endswith("no view of edpipe is the same, and a student would see other pixels than the teacher did; "
                         "call `snakemake` to store the teacher's logits anew")  # fmt: skip


def test_without_the_lists_nothing_is_guessed(project, capsys):
    line = refused(capsys, "torchdistill", "cache", *WORDS[:3])
    assert line == (
        "import-soft-labels: torchdistill's files do not say what their indexes and outputs are; give --samples and "
        "--classes"
    )


def test_augmented_views_are_refused(project, capsys):
    write_params({"augment": {"kind": "pad_crop", "padding": 1, "flip": False}})
    line = refused(capsys, "torchdistill", "cache", *WORDS)
    assert line.startswith("soft_labels.digits.space: its views are augmented, but torchdistill's outputs count as ")
    assert "use space {augment: {kind: pad_crop, padding: 0, flip: false}, exhaustive: true}" in line


def test_attention_maps_are_refused(project, capsys):
    write_params(attention=True)
    line = refused(capsys, "torchdistill", "cache", *WORDS)
    assert line.startswith("soft_labels.digits.storage: asks for attention maps or a hint, which are not imported; ")


def first_file():
    return sorted(Path("cache").rglob("*.pt"))[0]


DAMAGES = {
    "missing": (lambda path: path.unlink(), "cannot be read ("),
    "damaged": (lambda path: path.write_bytes(b"no zip"), "cannot be read ("),
    "code": (lambda path: torch.save(Path, path), "cannot be read (Weights only load failed"),
    "others": (lambda path: torch.save({"other": 1}, path), "holds no tensor 'teacher_outputs', must hold 10 logits"),
    "fewer": (lambda path: torch.save({"teacher_outputs": torch.zeros(9)}, path), "holds a tensor of shape (9,), must"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_file_that_is_not_what_it_must_be_is_named(project, capsys, name):
    path, (damage, text) = first_file(), DAMAGES[name]
    damage(path)
    assert refused(capsys, "torchdistill", "cache", *WORDS).startswith(f"{path}: {text}")


LISTS = {
    "samples": (
        r"samples: '[^']+' of digits is not listed \(\d+ such\); list the images in the order of torchdistill's .*"
    ),
    "classes": (r"classes: '[^']+' of digits is not listed; list them in the order of the outputs"),
}


@pytest.mark.parametrize("listed", LISTS)
def test_lists_that_lack_something_or_have_it_twice_are_refused(project, capsys, listed):
    path = Path(f"{listed}.txt")
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[: len(lines) // 2]))
    assert re.fullmatch(LISTS[listed], refused(capsys, "torchdistill", "cache", *WORDS))
    path.write_text("\n".join([*lines, lines[0]]))
    line = refused(capsys, "torchdistill", "cache", *WORDS)
    assert line == f"{listed}: '{lines[0]}' is listed more than once; each belongs to one place"
    path.unlink()
    assert refused(capsys, "torchdistill", "cache", *WORDS).startswith(f"{path}: cannot be read (")
