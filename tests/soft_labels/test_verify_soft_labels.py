"""Verification: it passes what the teacher said, in any batches, and names a row that it did not say."""

import json
import re
from dataclasses import replace
from itertools import pairwise

import h5py
import numpy as np
import pytest
import torch
from small_world import CPU, EXACT, NINE, SHIFTS, every_row, make_world

from edpipe.datasets.dataset_file import open_dataset
from edpipe.errors import (
    AlteredRowsError,
    IncompleteStoreError,
    MismatchError,
    OtherTeacherError,
    OtherViewsError,
    PixelDriftError,
    VerificationError,
)
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import (
    HintKnobs,
    Mixing,
    PadCrop,
    ResizedCrop,
    StorageKnobs,
    StudentViews,
    ViewSpace,
    ViewUse,
)
from edpipe.soft_labels import teacher_outputs
from edpipe.soft_labels.encoding.fidelity import NOISE_KL
from edpipe.soft_labels.encoding.softmax import row_kl
from edpipe.soft_labels.file.reader import open_soft_labels
from edpipe.soft_labels.file.writer import create_soft_labels
from edpipe.soft_labels.teacher_outputs import load_teacher, teacher_forward
from edpipe.soft_labels.verification import verify_file
from edpipe.steps.verify_soft_labels import verify_soft_labels
from edpipe.storage.records import library_versions, read_record
from edpipe.views import spec
from edpipe.views.batches import ViewBatches
from edpipe.views.spec import ViewSpec

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
torch.set_num_threads(1)
DRAWN = ViewSpace(augment=SHIFTS, seed=3)
SIX = ViewUse(number=6, per_file=2)
PRECISIONS = {
    "float32": EXACT,
    "float16": StorageKnobs(precision="float16"),
    "uint8": StorageKnobs(precision="uint8"),
    "uint4": StorageKnobs(precision="uint4", max_kl=None),
    "top_k": StorageKnobs(precision="top_k", top_k=6, max_kl=None),
    "sampled": StorageKnobs(precision="sampled", draws=20, temperature=4.0, max_kl=None),
    "maps": StorageKnobs(precision="uint8", attention=True),
    "hint": StorageKnobs(precision="uint8", attention=True, hint=HintKnobs(feature_stage=2, side=3)),
}
SPACES = {
    "exhaustive": (NINE, ViewUse(per_file=4)),
    "drawn": (DRAWN, SIX),
    "mixup": (ViewSpace(augment=SHIFTS, mixing=Mixing(mixup=1.0), seed=1), SIX),
    "both": (ViewSpace(augment=SHIFTS, mixing=Mixing(mixup=0.4, cutmix=1.0, probability=0.7)), SIX),
    "boxes": (ViewSpace(augment=ResizedCrop(kind="resized_crop")), SIX),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"), per_class=6)


@pytest.fixture(scope="module")
def teacher(world):
    return world.teacher()


def verify(world, files, paths, use):
    verify_soft_labels(files, paths, use, world.index(files))
    return read_record(world.index(files))


def refused(error, verify_it):
    with pytest.raises(error) as caught:
        verify_it()
    text = str(caught.value)
    assert "\n" not in text
    return text


# What passes


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_fresh_dump_of_any_precision_passes(world, teacher, precision):
    paths = world.dump(teacher, storage=PRECISIONS[precision])
    record = verify(world, teacher, paths, ViewUse(per_file=9))
    assert record["verified_rows"] == min(1000, 9 * len(open_soft_labels(paths[0]).sample_ids))


@pytest.mark.parametrize("space", SPACES)
def test_a_fresh_dump_of_any_views_passes(world, teacher, space):
    space, use = SPACES[space]
    paths = world.dump(teacher, space, use)
    assert len(paths) == 3
    record = verify(world, teacher, paths, use)
    assert record["files"] == [path.name for path in paths]
    assert record["num_views"] == (9 if space.exhaustive else 6)


def test_a_specialists_dump_passes(world):
    files = world.teacher("middle")
    record = verify(world, files, world.dump(files), ViewUse(per_file=9))
    assert record["inputs"]["partition"] != ""


def test_files_may_be_given_in_any_order(world, teacher):
    paths = world.dump(teacher, DRAWN, SIX)
    assert verify(world, teacher, paths[::-1], SIX) == verify(world, teacher, paths, SIX)


def test_the_index_says_what_students_need_and_is_the_same_wherever_it_is_made(world, teacher):
    paths = world.dump(teacher, DRAWN, SIX, PRECISIONS["uint8"])
    record = verify(world, teacher, paths, SIX)
    first = world.index(teacher).read_bytes()
    verify(world, teacher, paths, SIX)
    assert world.index(teacher).read_bytes() == first
    files = [open_soft_labels(path) for path in paths]
    assert record["step"] == "verify_soft_labels"
    assert record["inputs"] == {
        "dataset": open_dataset(world.dataset).digest,
        "partition": "",
        "teacher": read_record(teacher.weights_path.with_suffix(".json"))["weights_digest"],
        "soft_labels": [labels.digest for labels in files],
    }
    assert record["teacher_forwards"] == sum(labels.num_forwards for labels in files)
    assert record["versions"] == library_versions()
    assert list(floats_of(record)) == []
    assert str(world.root) not in first.decode()


def floats_of(value):
    """Measured numbers, which another machine would round otherwise."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from floats_of(part)
    elif isinstance(value, float):
        yield value


# What does not pass


def forge(world, files, paths, change, storage=EXACT):
    """The files once more, sound and of the right provenance, but with rows changed by `change(rows, ids, views)`."""
    for path in paths:
        labels = open_soft_labels(path)
        ids, views = every_row(labels)
        rows = change(labels.logits(ids, views), ids, views)
        with create_soft_labels(path, replace(labels.header, storage=storage), "forged") as writer:
            for block in writer.missing:
                start = (block.view - labels.views.first) * len(labels.sample_ids)
                writer.write(block, np.ascontiguousarray(rows[start + block.start : start + block.stop]))


def check_named(world, files, text):
    """The row that the line names is one that the teacher did not say."""
    path, _, rest = text.partition(": ")
    words = rest.split()
    sample, view = int(words[1].rstrip(",")), int(words[3])
    labels = open_soft_labels(type(world.root)(path))
    assert sample in labels.sample_ids
    assert labels.views.first <= view < labels.views.stop
    assert " is not what the teacher says now (" in text
    assert text.endswith(f"dump it again with `snakemake --force {path}`")
    return labels, sample, view


def shifted_by_one_sample(rows, ids, views):
    num = len(np.unique(views))
    return np.roll(rows.reshape(num, -1, rows.shape[1]), 1, axis=1).reshape(rows.shape)


def shifted_by_one_view(rows, ids, views):
    num = len(np.unique(views))
    return np.roll(rows.reshape(num, -1, rows.shape[1]), 1, axis=0).reshape(rows.shape)


def classes_swapped(rows, ids, views):
    return rows[:, [1, 0, *range(2, rows.shape[1])]]


def scaled(rows, ids, views):
    return rows * np.float32(1.1)


def one_view_of_zeros(rows, ids, views):
    return np.where((views == views.max())[:, None], np.float32(0), rows)


@pytest.mark.parametrize(
    "change", [shifted_by_one_sample, shifted_by_one_view, classes_swapped, scaled, one_view_of_zeros]
)
@pytest.mark.parametrize("precision", ["float32", "uint8"])
def test_rows_that_the_teacher_did_not_say_are_named(world, teacher, change, precision):
    paths = world.dump(teacher, storage=PRECISIONS[precision])
    world.index(teacher).write_text("old")
    forge(world, teacher, paths, change, PRECISIONS[precision])
    text = refused(VerificationError, lambda: verify(world, teacher, paths, ViewUse(per_file=9)))
    check_named(world, teacher, text)
    assert not world.index(teacher).exists()


def test_rows_of_a_differently_drawn_teacher_are_named(world, teacher):
    other = world.teacher(seed=1, name="other")
    said = open_soft_labels(world.dump(other)[0])
    paths = world.dump(teacher)
    forge(world, teacher, paths, lambda rows, ids, views: said.logits(ids, views))
    text = refused(VerificationError, lambda: verify(world, teacher, paths, ViewUse(per_file=9)))
    labels = check_named(world, teacher, text)[0]
    assert f"{9 * len(labels.sample_ids)} rows: {9 * len(labels.sample_ids)} bad" in text
    assert "at most 100.00% of all" in text


@pytest.mark.parametrize("precision", sorted(PRECISIONS.keys() - {"maps", "hint"}))
def test_rows_of_another_teacher_stored_in_any_precision_are_bad(world, teacher, precision):
    storage = PRECISIONS[precision]
    other = open_soft_labels(world.dump(world.teacher(seed=1, name="other"))[0])
    paths = world.dump(teacher, storage=storage)
    forge(world, teacher, paths, lambda rows, ids, views: other.logits(ids, views), storage)
    text = refused(VerificationError, lambda: verify(world, teacher, paths, ViewUse(per_file=9)))
    labels = check_named(world, teacher, text)[0]
    # Nearly all, not the few that lie outside a bound made for the worst of all possible rows.
    assert int(re.search(r"rows: (\d+) bad", text)[1]) > 0.9 * labels.num_forwards


def test_a_single_wrong_row_is_named_if_it_is_looked_at(world, teacher):
    paths = world.dump(teacher)
    labels = open_soft_labels(paths[0])
    wrong = (int(labels.sample_ids[17]), 4)

    def change(rows, ids, views):
        rows[(ids == wrong[0]) & (views == wrong[1])] += np.arange(10, dtype=np.float32)
        return rows

    forge(world, teacher, paths, change)
    text = refused(VerificationError, lambda: verify(world, teacher, paths, ViewUse(per_file=9)))
    assert check_named(world, teacher, text)[1:] == wrong
    assert " 1 bad (" in text


def rolled(values):
    return np.roll(values, 1, axis=2)


def of_the_sample_before(values):
    return np.roll(values, 1, axis=0)


@pytest.mark.parametrize("storage", ["uint8", "sampled"])
@pytest.mark.parametrize(
    ("name", "change"),
    [("attention/2", rolled), ("hint", rolled), ("hint", of_the_sample_before), ("hint", lambda values: values * 1.1)],
)
def test_what_lies_beside_the_logits_and_is_not_the_teachers_is_named(world, teacher, storage, name, change):
    storage = PRECISIONS[storage].model_copy(update={"attention": True, "hint": HintKnobs(feature_stage=2, side=3)})
    [path] = world.dump(teacher, storage=storage)
    labels = open_soft_labels(path)
    parts = {name: labels.flat(name).copy() for name in labels.header.columns()}
    ids, views = every_row(labels)
    exact = load_and_ask(world, teacher, ids, views)[0]
    num = len(labels.sample_ids)
    with create_soft_labels(path, labels.header, "forged") as writer:
        for block in writer.missing:
            rows = slice(block.view * num + block.start, block.view * num + block.stop)
            features = {column: parts[column][rows].astype(np.float32) for column in labels.header.features}
            writer.write(block, exact[rows], features | {name: change(features[name])})
    check_named(
        world, teacher, refused(VerificationError, lambda: verify(world, teacher, (path,), ViewUse(per_file=9)))
    )


@pytest.mark.parametrize("shape", [(32, 3, 2), (31, 3, 3)])
def test_hints_of_another_shape_than_the_teachers_are_refused(world, teacher, shape):
    [path] = world.dump(teacher, storage=PRECISIONS["hint"])
    labels = open_soft_labels(path)
    exact = load_and_ask(world, teacher, *every_row(labels))[0]
    header = replace(
        labels.header, storage=StorageKnobs(hint=HintKnobs(feature_stage=2, side=3)), features={"hint": shape}
    )
    num = len(labels.sample_ids)
    with create_soft_labels(path, header, "forged") as writer:
        for block in writer.missing:
            rows = exact[block.view * num + block.start : block.view * num + block.stop]
            writer.write(block, rows, {"hint": np.zeros((len(rows), *shape), np.float32)})
    text = refused(VerificationError, lambda: verify(world, teacher, (path,), ViewUse(per_file=9)))
    assert text == (
        f"{path}: holds rows of {{'hint': {shape}}} beside the logits, the teacher gives {{'hint': (32, 3, 3)}}; "
        f"dump it again with `snakemake --force {path}`"
    )


def test_a_flipped_byte_of_a_hint_is_noticed(world, teacher):
    [path] = world.dump(teacher, storage=PRECISIONS["hint"])
    with h5py.File(path) as file:
        place = file["hint"].id.get_offset() + 1234
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    text = refused(AlteredRowsError, lambda: verify(world, teacher, (path,), ViewUse(per_file=9)))
    assert text.startswith(f"{path}: view 0, rows from 0: altered since written; ")


def load_and_ask(world, files, ids, views, attention=False, space=NINE, device=CPU):
    """What the teacher says of these rows, in batches of the given order."""
    dataset = open_dataset(world.dataset)
    teacher = load_teacher(files, dataset)
    labels_spec = ViewSpec.from_knobs(
        StudentViews(space=space, number=None if space.exhaustive else 6, choice="random"), dataset.image_size
    )
    batches = ViewBatches(dataset, labels_spec, device, (dataset.sample_ids("train", teacher.class_ids),))
    with teacher_forward(teacher, batches, attention) as forward_pass:
        return forward_pass.outputs(ids, views)


def test_other_samples_are_looked_at_in_each_file(world, teacher, monkeypatch):
    paths = world.dump(teacher, use=ViewUse(per_file=3))
    outputs, looked_at = teacher_outputs.TeacherForward.outputs, []

    def watched(self, ids, views):
        looked_at.append(set(zip(ids.tolist(), (views - views.min() // 3 * 3).tolist(), strict=True)))
        return outputs(self, ids, views)

    monkeypatch.setattr(teacher_outputs.TeacherForward, "outputs", watched)
    for path in paths:
        verify_file(teacher, path, 30, 0)
    assert len(looked_at) == 3
    assert all(len(a & b) < 15 for a, b in pairwise(looked_at))


# What belongs to something else


def test_soft_labels_of_other_weights_are_refused(world, teacher):
    paths = world.dump(teacher)
    try:
        world.teacher(seed=5)
        text = refused(OtherTeacherError, lambda: verify(world, teacher, paths, ViewUse(per_file=9)))
    finally:
        world.teacher()
    assert text.startswith(f"{paths[0]}: was made with teacher digest '")


def test_a_teacher_of_another_dataset_is_refused(world, teacher, tmp_path):
    other = make_world(tmp_path, per_class=7)
    paths = world.dump(teacher)
    files = replace(teacher, dataset_path=other.dataset)
    text = refused(
        MismatchError, lambda: verify_soft_labels(files, paths, ViewUse(per_file=9), tmp_path / "index.json")
    )
    assert text.startswith(f"{teacher.weights_path}: this teacher was made from dataset '")


def test_views_that_this_edpipe_makes_otherwise_are_refused(world, teacher, monkeypatch):
    paths = world.dump(teacher)
    monkeypatch.setitem(spec.VIEW_RULES, "pad_crop", 99)
    text = refused(OtherViewsError, lambda: verify(world, teacher, paths, ViewUse(per_file=9)))
    assert text.startswith(f"{paths[0]}: this edpipe makes no views of the spec '")
    assert '"view_rule":1}' in text


def test_pixels_that_this_machine_makes_otherwise_are_refused(world, teacher, monkeypatch):
    paths = world.dump(teacher)
    canary = ViewBatches.canary
    monkeypatch.setattr(ViewBatches, "canary", lambda *a: canary(*a)[::-1])
    text = refused(PixelDriftError, lambda: verify(world, teacher, paths, ViewUse(per_file=9)))
    assert "was made with pixel canary '" in text


@pytest.mark.parametrize("left_out", [0, 1])
def test_a_store_with_a_hole_is_refused(world, teacher, left_out):
    paths = list(world.dump(teacher, DRAWN, SIX))
    del paths[left_out]
    text = refused(IncompleteStoreError, lambda: verify(world, teacher, tuple(paths), SIX))
    assert f"view {2 * left_out} is missing" in text


# One file by itself


def test_one_file_is_verified_by_itself_with_any_rows(world, teacher):
    paths = world.dump(teacher, DRAWN, SIX)
    for rows, seed in ((1, 0), (7, 1), (10**6, 2)):
        found = verify_file(teacher, paths[2], rows, seed)
        assert found.num_rows == min(rows, open_soft_labels(paths[2]).num_forwards)
        assert (found.num_bad_rows, found.max_kl) == (0, pytest.approx(0, abs=1e-6))


# How much the same teacher differs from itself


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_teacher_in_other_batches_is_far_under_the_noise_allowed(
    world, precision, monkeypatch, record_property
):
    files = world.teacher(name=precision, recipe=RecipeKnobs(precision=precision))
    labels = open_soft_labels(world.dump(files)[0])
    ids, views = every_row(labels)
    noise, stored = [], labels.logits(ids, views)
    for batch in (1, 7, 100, 540):
        monkeypatch.setattr(teacher_outputs, "DUMP_BATCH", batch)
        order = np.random.default_rng(batch).permutation(len(ids))
        exact = load_and_ask(world, files, ids[order], views[order])[0]
        noise.append(row_kl(exact, stored[order], 4.0).max())
    print(f"largest KL of {precision} in other batches: {max(noise):.2g} nats")
    assert max(noise) < NOISE_KL / 4


def test_a_crop_with_flip_is_verified_as_well(world, teacher):
    space = ViewSpace(augment=PadCrop(kind="pad_crop", padding=1, flip=True), exhaustive=True)
    use = ViewUse(per_file=9)
    record = verify(world, teacher, world.dump(teacher, space, use), use)
    assert record["num_views"] == 18
    assert json.loads(open_soft_labels(world.index(teacher).with_suffix("") / "views_9-17.h5").provenance.view_spec)
