"""Dump, verification and a stage, one after the other, on every kind of views and storage; what a stage refuses."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_world import CPU, EXACT, NINE, SHIFTS, every_row, make_world
from soft_label_examples import small_blocks

from edpipe.datasets.dataset_file import open_dataset
from edpipe.errors import (
    AlteredRowsError,
    CorruptFileError,
    EdpipeError,
    IncompleteStoreError,
    MissingFileError,
    NetworkError,
    OtherTeacherError,
    OtherTemperatureError,
    OtherViewsError,
    ParamsError,
    TeacherError,
    UnverifiedError,
)
from edpipe.losses.stage_terms import batch_loss
from edpipe.models.forward import forward
from edpipe.models.splitting.attention_maps import attention_map
from edpipe.models.splitting.taps import pooled
from edpipe.models.zoo.build import build_network
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import (
    ColourJitter,
    HintKnobs,
    Mixing,
    PadCrop,
    RandAugment,
    ResizedCrop,
    StorageKnobs,
    StudentViews,
    ViewSpace,
    ViewUse,
)
from edpipe.soft_labels.file.format import HintShape
from edpipe.soft_labels.file.store import open_store
from edpipe.soft_labels.file.writer import SoftLabelWriter
from edpipe.steps.run_stage import run_stage
from edpipe.storage.records import read_record, record_path, write_record
from edpipe.storage.weights import read_weights, write_weights
from edpipe.training.stage import inputs
from edpipe.training.stage.student import build_student
from edpipe.views.batches import ViewBatches
from edpipe.views.pixels import normalise
from edpipe.views.spec import ViewSpec

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
FOUR = ViewUse(number=4, per_file=3)
MIXED = ViewSpace(augment=SHIFTS, mixing=Mixing(mixup=1.0, cutmix=1.0, probability=0.8), seed=4)
SAMPLED = StorageKnobs(precision="sampled", draws=20, temperature=4.0, max_kl=None)
COLOURS = PadCrop(
    kind="pad_crop", padding=1, jitter=ColourJitter(hue=0.1), rand_augment=RandAugment(num_ops=1, magnitude=5)
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"), per_class=6)


@pytest.fixture(scope="module")
def teacher(world):
    return world.teacher()


def taught(world, teacher, space=NINE, use=ViewUse(per_file=9), storage=EXACT, **plan):  # noqa: B008  (frozen)
    """Everything, from the dump to the student; its knobs, files and record."""
    knobs, files = world.stage([teacher], world.store(teacher, space, use, storage), space, use, **plan)
    run_stage("t", 0, knobs, files)
    _, record = read_weights(files.out)
    assert np.isfinite(record["final_loss"])
    return knobs, files, record


def refused(error, knobs, files):
    files = replace(files, out=files.out.with_name("refused.safetensors"))
    with pytest.raises(error) as caught:
        run_stage("t", 0, knobs, files)
    assert not files.out.exists()
    text = str(caught.value)
    assert "\n" not in text
    return text


# Every kind of storage


STORAGES = {
    "float16": StorageKnobs(precision="float16"),
    "uint8": StorageKnobs(precision="uint8"),
    "uint4": StorageKnobs(precision="uint4", max_kl=None),
    "top_k": StorageKnobs(precision="top_k", top_k=3, max_kl=None),
    "maps": StorageKnobs(precision="uint8", attention=True),
    "hint": StorageKnobs(precision="uint8", hint=HintKnobs(feature_stage=2, side=3)),
}


@pytest.mark.parametrize("storage", STORAGES)
def test_a_stage_is_taught_what_is_stored_and_its_record_says_how_exact_that_is(world, teacher, storage):
    knobs, files, record = taught(world, teacher, storage=STORAGES[storage])
    store = open_store(files.soft_labels)
    [use] = record["inputs"]["soft_labels"]
    assert use["digests"] == store.digests
    assert use["kl_bound"] == store.kl_bound(4.0) > 0
    assert use["teacher_forwards"] == store.num_forwards
    task = inputs.open_stage(0, knobs, files, CPU)
    ids, views = every_row(store.files[0])
    assert np.array_equal(task.teachers[0].labels.logits(ids, views).numpy(), store.logits(ids, views))


def test_sampled_targets_teach_at_their_own_temperature(world, teacher):
    knobs, files, record = taught(world, teacher, storage=SAMPLED)
    assert record["inputs"]["soft_labels"][0]["kl_bound"] is None
    task = inputs.open_stage(0, knobs, files, CPU)
    ids, views = every_row(open_store(files.soft_labels).files[0])
    shares = torch.softmax(task.teachers[0].labels.logits(ids, views) / 4.0, dim=1)
    draws = shares * 20
    torch.testing.assert_close(draws, draws.round(), atol=1e-4, rtol=0)
    assert torch.allclose(shares.sum(dim=1), torch.ones(len(ids)))
    live = open_store(world.dump(teacher)).logits(ids, views)
    expected = torch.softmax(torch.from_numpy(live) / 4.0, dim=1)
    assert (shares.mean(dim=0) - expected.mean(dim=0)).abs().max() < 0.02


def test_sampled_targets_at_another_temperature_are_refused(world, teacher):
    paths = world.store(teacher, storage=SAMPLED)
    folder = world.index(teacher).with_suffix("")
    assert refused(OtherTemperatureError, *world.stage([teacher], paths, temperature=2.0)) == (
        f"{folder}: sampled at temperature 4, this stage teaches at 2; use the same in "
        "soft_labels.digits.storage.temperature and in the method"
    )


def test_top_k_of_as_many_classes_as_there_are_is_refused(world, teacher):
    with pytest.raises(ParamsError) as caught:
        world.dump(teacher, storage=StorageKnobs(precision="top_k", top_k=10, max_kl=None))
    assert str(caught.value) == (
        "soft_labels.digits.storage: top_k 10 leaves nothing out of 10 classes; use precision: float16"
    )


def test_stored_attention_maps_are_those_of_the_teachers_stages(world, teacher):
    [path] = world.dump(teacher, storage=STORAGES["maps"])
    labels = open_store((path,)).files[0]
    dataset = open_dataset(world.dataset)
    weights, record = read_weights(teacher.weights_path)
    network = build_network("resnet8", 10, 1, 0).to(memory_format=torch.channels_last).eval()
    network.load_state_dict(weights)
    outputs = {}
    for name in ("layer1", "layer2", "layer3"):
        keep = lambda module, inputs, output, name=name: outputs.__setitem__(name, output)  # noqa: E731
        getattr(network, name).register_forward_hook(keep)
    batches = ViewBatches(dataset, ViewSpec(SHIFTS, 9, True, 0, 8), CPU)
    ids = labels.sample_ids
    for view in (0, 5):
        views = np.full(len(ids), view)
        with torch.inference_mode():
            network(normalise(batches.views(ids, views), tuple(record["mean"]), tuple(record["std"])))
        for level, features in enumerate(outputs.values(), start=1):
            expected = attention_map(features).numpy().astype(np.float16).astype(np.float32)
            assert np.array_equal(labels.attention(level, ids, views), expected)
    assert labels.header.attention_sizes == ((8, 8), (4, 4), (2, 2))


@pytest.mark.parametrize(("level", "side", "shape"), [(1, 3, (16, 3, 3)), (2, 2, (32, 2, 2)), (3, 4, (64, 2, 2))])
def test_stored_hints_are_the_pooled_features_of_the_teachers_stage(world, teacher, level, side, shape):
    [path] = world.dump(teacher, storage=StorageKnobs(precision="uint4", max_kl=None, hint=hint(level, side)))
    store = open_store((path,))
    assert store.hint_shape == HintShape(level, side, *shape)
    weights, record = read_weights(teacher.weights_path)
    network = build_network("resnet8", 10, 1, 0).to(memory_format=torch.channels_last).eval()
    network.load_state_dict(weights)
    outputs = []
    getattr(network, f"layer{level}").register_forward_hook(lambda module, inputs, output: outputs.append(output))
    batches = ViewBatches(open_dataset(world.dataset), ViewSpec(SHIFTS, 9, True, 0, 8), CPU)
    for view in (0, 5):
        views = np.full(len(store.sample_ids), view)
        images = batches.views(store.sample_ids, views)
        with torch.inference_mode():
            network(normalise(images, tuple(record["mean"]), tuple(record["std"])))
        expected = pooled(outputs.pop(), side).numpy().astype(np.float16).astype(np.float32)
        assert np.array_equal(store.hint(store.sample_ids, views), expected)


def hint(level, side):
    return HintKnobs(feature_stage=level, side=side)


def test_a_hint_of_a_stage_that_the_teacher_does_not_have_is_refused(world, teacher):
    [path] = world.dump(teacher, storage=StorageKnobs(precision="float16"))
    before = path.read_bytes()
    with pytest.raises(NetworkError) as caught:
        world.dump(teacher, storage=StorageKnobs(hint=hint(4, 2)))
    assert str(caught.value) == (
        "model 'resnet8': has 3 feature stages (sample, channel, height, width), storage.hint.feature_stage 4 is none "
        "of them; give 1 to 3, remove storage.hint, or use another model"
    )
    assert path.read_bytes() == before


def test_a_teacher_whose_features_are_too_large_for_float16_is_refused(world):
    files = world.teacher(name="loud")
    weights, record = read_weights(files.weights_path)
    bias = max(name for name in weights if name.startswith("layer2.") and name.endswith(".bias"))
    weights[bias] += 1e6
    write_weights(files.weights_path, weights, {k: v for k, v in record.items() if k != "weights_digest"})
    with pytest.raises(TeacherError) as caught:
        world.dump(files, storage=StorageKnobs(precision="float32", max_kl=None, hint=hint(2, 2)))
    said = str(caught.value)
    assert re.fullmatch(
        r"loud/all: gives hint up to \S+ for sample \d+, view 0; float16 holds finite numbers up to 65,504; "
        "train the teacher again, or remove storage.hint",
        said,
    ), said


# Every kind of views


SPACES = {
    "drawn": ViewSpace(augment=SHIFTS),
    "boxes": ViewSpace(augment=ResizedCrop(kind="resized_crop")),
    "mixup": ViewSpace(augment=SHIFTS, mixing=Mixing(mixup=0.3)),
    "cutmix": ViewSpace(augment=SHIFTS, mixing=Mixing(cutmix=1.0)),
    "mixed boxes": ViewSpace(augment=ResizedCrop(kind="resized_crop"), mixing=Mixing(mixup=0.3, cutmix=1.0)),
}


@pytest.mark.parametrize("space", SPACES)
def test_views_of_any_kind_are_dumped_verified_and_taught(world, teacher, space):
    _, files, record = taught(world, teacher, SPACES[space], FOUR)
    assert [path.name for path in files.soft_labels] == ["views_0-2.h5", "views_3-3.h5"]
    assert record["knobs"]["views"]["number"] == 4


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
@pytest.mark.parametrize("augment", [ResizedCrop(kind="resized_crop"), COLOURS], ids=["boxes", "colours"])
def test_coloured_images_are_dumped_verified_and_taught(tmp_path, encoding, augment):
    knobs = {"stored_side": 20} if encoding == "jpeg" else {}
    world = make_world(tmp_path, "folder", per_class=10, encoding=encoding, **knobs)
    space = ViewSpace(augment=augment, mixing=Mixing(cutmix=1.0, probability=0.5))
    taught(
        world,
        world.teacher(),
        space,
        FOUR,
        StorageKnobs(precision="uint8", attention=True, hint=HintKnobs(feature_stage=3, side=2)),
    )


def test_more_views_leave_full_files_as_they_are(world, teacher):
    space = SPACES["drawn"]
    first = [path.read_bytes() for path in world.dump(teacher, space, ViewUse(number=5, per_file=2))]
    more = [path.read_bytes() for path in world.dump(teacher, space, ViewUse(number=8, per_file=2))]
    assert more[:2] == first[:2]
    assert len(more) == 4


# An interrupted dump


def test_an_interrupted_dump_says_what_is_left_and_ends_with_the_same_bytes(world, teacher, monkeypatch, capsys):
    with small_blocks(16):
        [path] = world.dump(teacher)
        expected = path.read_bytes(), record_path(path).read_bytes()
        path.unlink()
        monkeypatch.setattr(SoftLabelWriter, "write", stop_after(20))
        with pytest.raises(KeyboardInterrupt):
            world.dump(teacher)
        monkeypatch.undo()
        assert not path.exists()
        damage_a_block(path)
        capsys.readouterr()
        world.dump(teacher)
        said = capsys.readouterr().err
        assert f"{path}: 19 blocks were finished before, 17 are left\n" in said
        assert f"{path}: 1 blocks are damaged and are made again\n" in said
        assert (path.read_bytes(), record_path(path).read_bytes()) == expected


def test_a_whole_file_is_not_dumped_again_but_its_record_is_mended(world, teacher, monkeypatch, capsys):
    [path] = world.dump(teacher)
    expected, inode = record_path(path).read_bytes(), path.stat().st_ino
    monkeypatch.setattr(SoftLabelWriter, "write", stop_after(0))
    world.dump(teacher)
    assert "is there already" in capsys.readouterr().err
    assert (record_path(path).read_bytes(), path.stat().st_ino) == (expected, inode)
    # Anything that may have made another file is reason to ask again.
    for change in ({"code": "other"}, {"versions": {}}, {"digest": "other"}):
        record_path(path).write_text(json.dumps(json.loads(expected) | change))
        with pytest.raises(KeyboardInterrupt):
            world.dump(teacher)
    record_path(path).write_bytes(expected)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(KeyboardInterrupt):
        world.dump(teacher)


def stop_after(number):
    """`SoftLabelWriter.write`, which goes well so many times."""
    write, written = SoftLabelWriter.write, []

    def stopping(*arguments):
        if len(written) == number:
            raise KeyboardInterrupt
        written.append(None)
        write(*arguments)

    return stopping


def damage_a_block(path):
    """Alters the first block's rows where they wait."""
    [partial] = (path.parent.parent / ".resume").glob("*/partial.h5")
    data = bytearray(partial.read_bytes())
    data[4096 + next(i for i, byte in enumerate(data[4096:]) if byte)] ^= 1
    partial.write_bytes(data)


def test_a_dump_over_budget_is_refused_at_its_first_block_which_is_kept(world, teacher, capsys):
    strict = StorageKnobs(precision="uint4", max_kl=1e-6)
    with pytest.raises(TeacherError, match="max_kl allows 1e-06; choose a finer precision or a larger max_kl"):
        world.dump(teacher, storage=strict)
    capsys.readouterr()
    world.dump(teacher, storage=strict.model_copy(update={"max_kl": 1.0}))
    assert "1 blocks were finished before, 8 are left" in capsys.readouterr().err


# Mixed views


def mixed_task(world, teacher, **plan):
    knobs, files = world.stage([teacher], world.store(teacher, MIXED, FOUR), MIXED, FOUR, **plan)
    return inputs.open_stage(0, knobs, files, CPU)


def test_a_mixed_views_task_loss_uses_both_labels_by_their_shares(world, teacher):
    task = mixed_task(world, teacher, label_smoothing=0.1)
    ids = task.dataset.sample_ids("train")
    views = np.arange(len(ids)) % 4
    logits = torch.randn(len(ids), 10, generator=torch.Generator().manual_seed(0))
    mix = task.batches.mix(ids, views)
    labels = task.dataset.labels.astype(np.int64)
    own, other = (F.one_hot(torch.from_numpy(labels[rows]), 10) for rows in (ids, mix.partner_ids))
    share = torch.from_numpy(mix.own_share)[:, None]
    soft = 0.9 * (share * own + (1 - share) * other) + 0.1 / 10
    expected = -(soft * F.log_softmax(logits, dim=1)).sum(dim=1)
    plan = task.knobs.plan.model_copy(update={"task_weight": 1.0, "distill_weight": 0.0})
    torch.testing.assert_close(batch_loss(plan, logits, task.batch_of(ids, views)), expected)
    is_mixed = mix.partner_ids != ids
    assert 0.5 < is_mixed.mean() < 1
    assert (labels[ids] != labels[mix.partner_ids])[is_mixed].mean() > 0.5


def test_a_process_without_samples_has_a_batch_and_no_loss(world, teacher):
    task = mixed_task(world, teacher)
    student, _ = build_student(0, *world.stage([teacher], (), MIXED, FOUR), task)
    assert task.loss(student, task.batch(3, 3)).shape == (0,)


def test_a_mixed_views_targets_are_the_teachers_on_the_mixed_pixels(world, teacher):
    task = mixed_task(world, teacher)
    ids = task.dataset.sample_ids("train")
    weights, record = read_weights(teacher.weights_path)
    network = build_network("resnet8", 10, 1, 0).to(memory_format=torch.channels_last).eval()
    network.load_state_dict(weights)
    plain = ViewBatches(task.dataset, ViewSpec(SHIFTS, 4, False, 4, 8), CPU)
    for view in range(4):
        views = np.full(len(ids), view)
        mix = task.batches.mix(ids, views)
        pixels = task.batches.views(ids, views)
        own, partner = plain.views(ids, views), plain.views(mix.partner_ids, views)
        share = torch.from_numpy(mix.own_share).reshape(-1, 1, 1, 1)
        # The mean over pixels goes by the share in mixup; in cutmix each pixel is one's or the other's.
        is_cut = ((pixels == own) | (pixels == partner)).flatten(1).all(dim=1)
        blend = share * own + (1 - share) * partner
        assert ((pixels - blend).abs().amax(dim=(1, 2, 3)) <= 0.5 + 1e-3)[~is_cut].all()
        assert (~is_cut).any()
        with torch.inference_mode():
            said = forward(network, normalise(pixels, tuple(record["mean"]), tuple(record["std"])), RecipeKnobs())
        assert torch.equal(task.teachers[0].labels.logits(ids, views), said)


def test_specialists_partners_are_of_their_own_subset(world):
    teachers = [world.teacher("primary"), world.teacher("middle", seed=1)]
    paths = [path for teacher in teachers for path in world.store(teacher, MIXED, FOUR)]
    plan = {
        "number": 2,
        "num_stages": 2,
        "blocks": 2,
        "num_blocks": 2,
        "taught": ("primary", "middle"),
        "known": ("primary", "middle"),
    }
    knobs, files = world.stage(teachers, paths, MIXED, FOUR, **plan)
    task = inputs.open_stage(0, knobs, files, CPU)
    ids = task.dataset.sample_ids("train")
    for view in range(4):
        partners = task.batches.mix(ids, np.full(len(ids), view)).partner_ids
        labels = task.dataset.labels
        assert ((labels[ids] < 5) == (labels[partners] < 5)).all()
    run_stage("t", 0, knobs, files)


def test_mixed_views_are_taught_without_a_teacher_as_well(world):
    knobs, files = world.stage([], [], MIXED, out="alone", temperature=1.0, task_weight=1.0)
    run_stage("t", 0, knobs, files)
    assert read_record(record_path(files.out))["inputs"]["soft_labels"] == []


# What a stage refuses


@pytest.fixture
def stage(world, teacher):
    """Knobs and files of a stage that would run."""
    use = ViewUse(per_file=3)
    return world.stage([teacher], world.store(teacher, use=use), use=use)


def test_files_that_were_not_verified_are_refused(world, teacher, stage):
    knobs, files = stage
    [index] = files.indexes
    verified = read_record(index)["inputs"]["soft_labels"]
    paths = world.dump(teacher, use=ViewUse(per_file=3), storage=StorageKnobs(precision="float16"))
    found = open_store(paths).digests
    assert refused(UnverifiedError, knobs, files) == (
        f"{index}: speaks of soft labels {verified}, at hand are {found}; verify them with `snakemake --force {index}`"
    )


def test_a_missing_index_is_refused(stage):
    knobs, files = stage
    [index] = files.indexes
    index.unlink()
    assert refused(CorruptFileError, knobs, files).startswith(f"{index}: not a readable record (")


@pytest.mark.parametrize("content", ["{}", "[]", '{"inputs": {}}', '{"inputs": 3}', '{"inputs": {"soft_labels": 3}}'])
def test_an_index_that_is_none_is_refused(stage, content):
    knobs, files = stage
    [index] = files.indexes
    index.write_text(content, encoding="utf-8")
    assert refused(EdpipeError, knobs, files).startswith(f"{index}: ")


def test_a_missing_file_of_soft_labels_is_refused(stage):
    knobs, files = stage
    files.soft_labels[1].unlink()
    assert refused(MissingFileError, knobs, files).startswith(f"{files.soft_labels[1]}: no such file; ")
    fewer = replace(files, soft_labels=files.soft_labels[::2])
    assert refused(IncompleteStoreError, knobs, fewer).startswith(f"{files.soft_labels[2]}: view 3 is missing; ")
    none = replace(files, soft_labels=())
    assert refused(IncompleteStoreError, knobs, none).startswith("soft labels: no file of them is given; ")


def test_a_file_given_twice_is_refused(stage):
    knobs, files = stage
    copy = files.soft_labels[0].with_name("copy.h5")
    shutil.copyfile(files.soft_labels[0], copy)
    twice = replace(files, soft_labels=(*files.soft_labels, copy))
    assert "view 0 is in two files" in refused(IncompleteStoreError, knobs, twice)
    copy.unlink()


def test_an_altered_row_is_refused(stage):
    knobs, files = stage
    data = bytearray(files.soft_labels[2].read_bytes())
    store = open_store(files.soft_labels)
    offset = data.index(store.files[2].parts["logits"].tobytes()[:400])
    data[offset + 5] ^= 1
    files.soft_labels[2].write_bytes(data)
    text = refused(AlteredRowsError, knobs, files)
    assert text.startswith(f"{files.soft_labels[2]}: view 6, rows from 0: altered since written; ")


def test_soft_labels_of_a_teacher_that_was_trained_again_are_refused(stage, tmp_path):
    knobs, files = stage
    record = tmp_path / "teacher.json"
    write_record(record, read_record(files.teachers[0]) | {"weights_digest": "f" * 16})
    text = refused(OtherTeacherError, knobs, replace(files, teachers=(record,)))
    assert text.startswith(f"{files.soft_labels[0]}: was made with teacher digest '")


@pytest.mark.parametrize(
    "change",
    [
        {"space": ViewSpace(augment=SHIFTS), "number": 9},
        {"space": ViewSpace(augment=SHIFTS, seed=1), "number": 2},
        {"space": ViewSpace(augment=PadCrop(kind="pad_crop", padding=1, flip=True), exhaustive=True)},
        {"space": ViewSpace(augment=PadCrop(kind="pad_crop", padding=2, flip=False), exhaustive=True)},
        {"space": MIXED, "number": 9},
    ],
    ids=["drawn", "seed", "flip", "padding", "mixed"],
)
def test_soft_labels_of_other_views_are_refused(stage, change):
    knobs, files = stage
    views = StudentViews.model_validate({"choice": "random", "number": None} | change)
    text = refused(OtherViewsError, replace(knobs, views=views), files)
    assert text.startswith(f"{files.soft_labels[0]}: was made with view spec '")


@pytest.mark.parametrize("number", [3, 5])
def test_soft_labels_of_fewer_or_more_views_are_refused_before_training(world, teacher, number):
    space = SPACES["drawn"]
    knobs, files = world.stage([teacher], world.store(teacher, space, FOUR), space, FOUR)
    views = knobs.views.model_copy(update={"number": number})
    folder = world.index(teacher).with_suffix("")
    assert refused(OtherViewsError, replace(knobs, views=views), files) == (
        f"{folder}: holds 4 views of each image, students are to see {number}; dump and verify those of "
        "soft_labels.digits.views with `snakemake`"
    )


def test_a_class_that_no_teacher_knows_is_refused(world):
    primary = world.teacher("primary")
    plan = {
        "number": 2,
        "num_stages": 2,
        "blocks": 2,
        "num_blocks": 2,
        "taught": ("primary", "middle"),
        "known": ("primary", "middle"),
    }
    text = refused(EdpipeError, *world.stage([primary], world.store(primary), **plan))
    assert "no soft labels for classes ['5', '6', '7', '8', '9']; dump a teacher that knows them" in text
