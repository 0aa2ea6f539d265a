"""A partition made from a teacher's verified soft labels: what is read, what is recorded, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from soft_label_examples import make_header, write

from edpipe.datasets.dataset_file import DatasetHeader, open_dataset
from edpipe.datasets.dataset_writer import StoredImage, write_dataset
from edpipe.datasets.partition import make_partition
from edpipe.datasets.partition_file import read_partition
from edpipe.errors import (
    CorruptFileError,
    MissingRowsError,
    OtherClassesError,
    OtherDatasetError,
    OtherImagesError,
    OtherPartitionError,
    OtherTeacherError,
    OtherTemperatureError,
    OtherViewsError,
    ParamsError,
    UnverifiedError,
)
from edpipe.params.partition import PartitionKnobs
from edpipe.params.soft_labels import PadCrop, StorageKnobs, ViewSpace, every_view
from edpipe.pipeline.state.recorded import Records, recorded_origin
from edpipe.soft_labels.confusion_inputs import ConfusionFiles
from edpipe.soft_labels.file.format import Provenance
from edpipe.soft_labels.file.store import open_store
from edpipe.steps.partition_by_confusion import partition_by_confusion
from edpipe.storage.records import write_record
from edpipe.views.spec import ViewRange, ViewSpec

NAMES = ("ant", "bee", "cat", "dog", "elk", "fox")
SPACE = ViewSpace(augment=PadCrop(kind="pad_crop", padding=1, flip=False), exhaustive=True)
TWINS = {0: 3, 3: 0, 1: 4, 4: 1, 2: 5, 5: 2}
"""Which class each is taken for in the first view."""


def knobs(**values):
    confusion = {"teacher": "general", "together": True} | values.pop("confusion", {})
    return PartitionKnobs.model_validate({"subsets": ["low", "mid", "top"], "confusion": confusion} | values)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Six classes of four training images; and two that no teacher was asked about."""
    path = tmp_path_factory.mktemp("dataset") / "tiny.h5"
    pixels = np.random.default_rng(0).integers(0, 256, (36, 1, 4, 4), np.uint8)
    header = DatasetHeader("tiny", NAMES, "raw", 4, 1, 4)
    splits = ["test", "train", "train", "train", "val", "train"] * 6
    labels = [c for c in range(6) for _ in range(6)]
    write_dataset(path, header, labels, splits, [str(i) for i in range(36)], (StoredImage(each) for each in pixels))
    return open_dataset(path)


def provenance_of(dataset):
    spec = ViewSpec.from_knobs(every_view(SPACE), dataset.image_size).canonical()
    return Provenance("general", "all", "a" * 16, dataset.digest, "", spec, "d" * 16)


def answers_of(folder, dataset, twins=TWINS, precision="float32", **changes):
    """Files of views 0-1 and 2-2, their index and the teacher's record; only the first view is confused by `twins`."""
    ids = dataset.sample_ids("train")
    values = {
        "provenance": provenance_of(dataset),
        "sample_ids": ids,
        "sample_keys": dataset.sample_keys[ids],
        "labels": dataset.labels[ids],
        "class_ids": np.arange(6, dtype=np.int32),
    } | changes
    headers = [make_header(precision, ViewRange(*views), **values) for views in ((0, 2), (2, 3))]
    paths = []
    for header in headers:
        logits = np.zeros((header.views.num_views, len(header.sample_ids), len(header.class_ids)), np.float32)
        rows = np.arange(len(header.sample_ids))
        for view in range(len(logits)):
            logits[view, rows, header.local_labels] = 4
            is_first = header.views.first + view == 0
            taken = [twins[int(c)] if is_first else (int(c) + 1) % 6 for c in header.labels]
            known = np.isin(taken, header.class_ids)
            logits[view, rows[known], np.searchsorted(header.class_ids, np.array(taken)[known])] = 3
        paths.append(write(folder / "all" / f"views_{header.views}.h5", header, logits))
    return verified(folder, paths)


def verified(folder, paths):
    write_record(folder / "all.json", {"inputs": {"soft_labels": open_store(paths).digests}})
    write_record(folder / "teacher.json", {"weights_digest": "a" * 16})
    return ConfusionFiles(folder / "all.json", tuple(paths), folder / "teacher.json", SPACE)


@pytest.fixture
def answers(tmp_path, dataset):
    return answers_of(tmp_path, dataset)


def run(dataset, answers, out, **values):
    partition_by_confusion(dataset.path, knobs(**values), answers, out)
    return read_partition(out, dataset)


# what is made


def test_classes_that_are_confused_in_the_first_view_share_a_subset(tmp_path, dataset, answers, capsys):
    found = run(dataset, answers, tmp_path / "p.json")
    assert sorted(found.class_ids.values()) == [(0, 3), (1, 4), (2, 5)]
    assert "p.json: low 2, mid 2, top 2 classes; " in capsys.readouterr().err


def test_kept_apart_no_subset_holds_two_that_are_confused(tmp_path, dataset, answers):
    found = run(dataset, answers, tmp_path / "p.json", subsets=["low", "top"], confusion={"together": False})
    assert all(TWINS[c] not in ids for ids in found.class_ids.values() for c in ids)


def test_ratio_gives_the_sizes(tmp_path, dataset, answers):
    found = run(dataset, answers, tmp_path / "p.json", ratio=[1, 3, 2])
    assert [len(ids) for ids in found.class_ids.values()] == [1, 3, 2]


def test_chunks_make_no_difference(tmp_path, dataset, answers, monkeypatch):
    whole = run(dataset, answers, tmp_path / "p.json")
    monkeypatch.setattr("edpipe.soft_labels.encoding.softmax.MOST_ROWS", 5)
    assert run(dataset, answers, tmp_path / "q.json") == whole
    assert (tmp_path / "p.json").read_bytes() == (tmp_path / "q.json").read_bytes()


def test_the_record_says_what_the_partition_was_made_from(tmp_path, dataset, answers):
    run(dataset, answers, tmp_path / "p.json")
    contents = json.loads((tmp_path / "p.json").read_text())
    digests = json.loads(answers.index.read_text())["inputs"]["soft_labels"]
    asked = {"teacher": "general", "subset": "all", "digests": digests, "teacher_digest": "a" * 16}
    assert contents["inputs"] == {"dataset": dataset.digest, "soft_labels": [asked]}
    assert contents["knobs"]["partition"]["confusion"] == {"teacher": "general", "together": True}
    assert contents["knobs"]["space"] == SPACE.model_dump(mode="json")
    assert 0.5 < contents["confusion_within"] < 1
    assert len(digests) == 2


def test_edpipe_verify_compares_soft_labels_and_teacher_with_the_record(tmp_path, dataset, answers):
    run(dataset, answers, tmp_path / "p.json")
    origin = recorded_origin(Records().read(tmp_path / "p.json"))
    digests = json.loads(answers.index.read_text())["inputs"]["soft_labels"]
    assert origin.inputs == {"dataset": (dataset.digest,), "soft_labels": tuple(digests), "teachers": ("a" * 16,)}


def test_rows_drawn_at_temperature_1_serve(tmp_path, dataset):
    storage = StorageKnobs(precision="sampled", draws=100, temperature=1.0, max_kl=None)
    found = run(dataset, answers_of(tmp_path, dataset, storage=storage), tmp_path / "p.json")
    assert sorted(found.class_ids.values()) == [(0, 3), (1, 4), (2, 5)]


# what is refused


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"teacher": "other"}, OtherTeacherError, "was made with teacher 'other', asked for is 'general'"),
        ({"teacher_digest": "b" * 16}, OtherTeacherError, f"teacher digest '{'b' * 16}', asked for is '{'a' * 16}'"),
        ({"subset": "primary"}, OtherPartitionError, "was made with subset 'primary', asked for is 'all'"),
        ({"partition_digest": "c" * 16}, OtherPartitionError, f"partition digest '{'c' * 16}', asked for is ''"),
        ({"dataset_digest": "e" * 16}, OtherDatasetError, f"dataset digest '{'e' * 16}', asked for is "),
        ({"view_spec": "{}"}, OtherViewsError, "was made with view spec '{}', asked for is "),
        ({"stream": "[]"}, OtherViewsError, r"was made with stream '\[\]', asked for is ''"),
    ],
)
def test_soft_labels_of_something_else_are_refused(tmp_path, dataset, changes, error, text):
    found = answers_of(tmp_path, dataset, provenance=replace(provenance_of(dataset), **changes))
    with pytest.raises(error, match=rf"views_0-1.h5: .*{text}.*; dump it again with `snakemake --force") as caught:
        run(dataset, found, tmp_path / "p.json")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "p.json").exists()


def test_soft_labels_of_other_views_than_params_ask_for_are_refused(tmp_path, dataset, answers):
    other = ViewSpace(augment=PadCrop(kind="pad_crop", padding=2, flip=False), exhaustive=True)
    with pytest.raises(OtherViewsError, match="was made with view spec"):
        run(dataset, replace(answers, space=other), tmp_path / "p.json")


def test_soft_labels_that_nobody_verified_are_refused(tmp_path, dataset, answers):
    write_record(answers.index, {"inputs": {"soft_labels": ["0" * 16, "1" * 16]}})
    with pytest.raises(UnverifiedError, match=r"all.json: speaks of soft labels \['0{16}', '1{16}'\], at hand are"):
        run(dataset, answers, tmp_path / "p.json")
    answers.index.unlink()
    with pytest.raises(CorruptFileError, match=r"all.json: not a readable record"):
        run(dataset, answers, tmp_path / "p.json")


def test_an_absent_teacher_is_refused(tmp_path, dataset, answers):
    write_record(answers.teacher, {})
    with pytest.raises(CorruptFileError, match=r"teacher.json: the record lacks 'weights_digest'"):
        run(dataset, answers, tmp_path / "p.json")


def test_altered_rows_are_refused(tmp_path, dataset, answers):
    rows = open_store(answers.soft_labels).files[1].parts["logits"].tobytes()
    data = bytearray(answers.soft_labels[1].read_bytes())
    data[data.index(rows)] ^= 1
    answers.soft_labels[1].write_bytes(data)
    with pytest.raises(CorruptFileError, match=r"views_2-2.h5: view 2, rows from 0: altered since written"):
        run(dataset, answers, tmp_path / "p.json")


def test_other_classes_and_images_are_refused(tmp_path, dataset):
    ids = dataset.sample_ids("train", (0, 1, 2, 3, 4))
    values = {"sample_ids": ids, "sample_keys": dataset.sample_keys[ids], "labels": dataset.labels[ids]}
    few = answers_of(tmp_path / "few", dataset, class_ids=np.arange(5, dtype=np.int32), **values)
    with pytest.raises(OtherClassesError, match=r"its columns are classes \[0, 1, 2, 3, 4\], asked for are \[0, 1, 2"):
        run(dataset, few, tmp_path / "p.json")
    keys = dataset.sample_keys[dataset.sample_ids("train")] + np.uint64(1)
    with pytest.raises(OtherImagesError, match="its images are not those of the dataset"):
        run(dataset, answers_of(tmp_path / "keys", dataset, sample_keys=keys), tmp_path / "p.json")
    with pytest.raises(MissingRowsError, match="holds no soft labels of sample"):
        run(dataset, answers_of(tmp_path / "rows", dataset, **values), tmp_path / "p.json")


def test_rows_drawn_at_another_temperature_are_refused(tmp_path, dataset):
    storage = StorageKnobs(precision="sampled", draws=20, temperature=4.0, max_kl=None)
    found = answers_of(tmp_path, dataset, storage=storage)
    with pytest.raises(OtherTemperatureError) as caught:
        run(dataset, found, tmp_path / "p.json")
    assert str(caught.value) == (
        f"{tmp_path}/all: sampled at temperature 4, confusions are counted at 1; use another precision in "
        "soft_labels.tiny.storage, or no partition by confusion"
    )


def test_a_ratio_that_does_not_fit_is_refused_before_anything_is_read(tmp_path, dataset, answers):
    for path in answers.soft_labels:
        path.unlink()
    with pytest.raises(ParamsError, match=r"partition: ratio \[1, 1, 40\] leaves a subset without a class: 6 classes"):
        run(dataset, answers, tmp_path / "p.json", ratio=[1, 1, 40])


def test_knobs_and_order_belong_together(tmp_path, dataset, answers):
    plain = PartitionKnobs(subsets=("low", "top"))
    with pytest.raises(ValueError, match=r"^knobs without confusion; partition_dataset deals these classes out$"):
        partition_by_confusion(dataset.path, plain, answers, tmp_path / "p.json")
    with pytest.raises(ValueError, match="confusion knobs and a class order belong together, got teacher='general'"):
        make_partition(knobs(), NAMES, dataset.digest)
    with pytest.raises(ValueError, match="confusion knobs and a class order belong together, got None and "):
        make_partition(plain, NAMES, dataset.digest, range(6))


@pytest.mark.slow
def test_soft_labels_of_a_real_teacher_serve(tmp_path):
    from small_world import NINE, make_world

    world = make_world(tmp_path)
    files = world.teacher()
    paths = world.store(files)
    answers = ConfusionFiles(world.index(files), paths, files.weights_path.with_suffix(".json"), NINE)
    found = run(open_dataset(world.dataset), answers, tmp_path / "p.json", ratio=[3, 3, 4])
    assert [len(ids) for ids in found.class_ids.values()] == [3, 3, 4]
