"""Items are what a student of the pipeline sees, in every process; whatever does not belong together is refused."""

import pickle
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_world import CPU, EXACT, NINE, SHIFTS, make_world
from torch.utils.data import DataLoader, RandomSampler

from edpipe import EdpipeError, SoftLabelDataset
from edpipe.datasets.dataset_file import open_dataset
from edpipe.errors import CorruptFileError, MissingRowsError, OtherDatasetError, PixelDriftError, UnverifiedError
from edpipe.params.soft_labels import Mixing, StorageKnobs, ViewSpace, ViewUse
from edpipe.params.stage import StageKnobs
from edpipe.storage.records import read_record, write_record
from edpipe.training.stage.inputs import open_stage
from edpipe.views.batches import ViewBatches
from edpipe.views.pixels import normalise

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
SEED, BATCH, EPOCHS = 3, 32, 2.5
UINT8 = StorageKnobs(precision="uint8")
DRAWN = ViewSpace(augment=SHIFTS, seed=7)
MIXED = ViewSpace(augment=SHIFTS, mixing=Mixing(mixup=0.5, cutmix=0.5, probability=0.8))
KINDS = {
    "all views": (NINE, ViewUse(per_file=9), EXACT),
    "drawn, in cycles, three files": (DRAWN, ViewUse(number=5, per_file=2, choice="cycle"), UINT8),
    "mixed": (MIXED, ViewUse(number=4), UINT8),
    "sampled": (NINE, ViewUse(per_file=9), StorageKnobs(precision="sampled", draws=8, temperature=4.0, max_kl=None)),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"), per_class=8)


@pytest.fixture(scope="module")
def stores(world):
    """A teacher for each kind of soft labels."""
    found = {}
    for number, (kind, knobs) in enumerate(KINDS.items()):
        teacher = world.teacher(name=f"teacher{number}")
        found[kind] = teacher, world.store(teacher, *knobs)
    return found


def opened(world, stores, kind="all views", seed=SEED):
    return SoftLabelDataset(world.index(stores[kind][0]), world.dataset, seed)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_those_of_the_pipeline(world, stores, kind):
    teacher, paths = stores[kind]
    space, use, _ = KINDS[kind]
    knobs, files = world.stage([teacher], paths, space, use, budget=StageKnobs(epochs=EPOCHS, learning_rate=0.1))
    task = open_stage(SEED, knobs, files, CPU)
    data = opened(world, stores, kind)
    loader = DataLoader(data, batch_sampler=data.sampler(BATCH, epochs=EPOCHS), collate_fn=data.collate)
    total, stop = round(EPOCHS * len(data)), 0
    for images, labels, logits, *other in loader:
        start, stop = stop, stop + len(images)
        wanted = task.batch(start, stop)
        assert torch.equal(images, wanted.images)
        assert images.stride() == wanted.images.stride()
        assert torch.equal(labels, wanted.labels)
        assert torch.equal(logits, wanted.targets[0].logits)
        assert len(other) == (0 if wanted.other is None else 2)
        assert all(torch.equal(*pair) for pair in zip(other, wanted.other or (), strict=True))
    assert stop == total


def test_an_item_is_a_view_a_label_and_the_logits_of_that_view(world, stores):
    data, dataset = opened(world, stores), open_dataset(world.dataset)
    image, label, logits = data[5]
    assert (image.shape, image.dtype) == ((1, 8, 8), torch.float32)
    assert (label.shape, label.dtype) == ((), torch.int64)
    assert (logits.shape, logits.dtype) == ((10,), torch.float32)
    assert data.class_ids[label] == dataset.labels[data.sample_ids[5]]
    assert data.classes == dataset.class_names
    assert (data.num_views, data.temperature, data.mean, data.std) == (9, None, dataset.mean, dataset.std)
    assert opened(world, stores, "sampled").temperature == 4.0


def equal(one, other):
    return len(one) == len(other) and all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_the_epoch_chooses_the_views_and_a_pair_names_its_own(world, stores):
    data = opened(world, stores)
    first = [data[i] for i in range(len(data))]
    data.set_epoch(1)
    second = [data[i] for i in range(len(data))]
    assert not all(equal(*pair) for pair in zip(first, second, strict=True))
    assert all(equal(data[0, i], item) for i, item in enumerate(first))
    assert all(equal(data[1, i], item) for i, item in enumerate(second))
    assert not all(equal(opened(world, stores, seed=4)[0, i], item) for i, item in enumerate(first))


def test_a_torch_dataset_ends_with_its_last_sample(world, stores):
    data = opened(world, stores)
    assert sum(1 for _ in data) == len(data) == 80


@pytest.mark.parametrize("collated", [True, False])
def test_any_sampler_gives_items_by_position(world, stores, collated):
    data = opened(world, stores, "mixed")
    order = RandomSampler(data, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(data, 16, sampler=order, **({"collate_fn": data.collate} if collated else {}))
    order.generator.manual_seed(0)
    batches = list(loader)
    order.generator.manual_seed(0)
    wanted = [torch.stack(column) for column in zip(*(data[i] for i in order), strict=True)]
    assert equal([torch.cat(column) for column in zip(*batches, strict=True)], wanted)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_give_the_same_batches_and_follow_the_epoch(world, stores, method):
    data = opened(world, stores)
    settings = {"batch_size": 16, "collate_fn": data.collate}
    workers = DataLoader(data, **settings, num_workers=1, multiprocessing_context=method, persistent_workers=True)
    for epoch in (0, 1):
        data.set_epoch(epoch)
        pairs = list(zip(workers, DataLoader(data, **settings), strict=True))
        assert len(pairs) == 5
        assert all(equal(*pair) for pair in pairs)


def test_a_pickled_dataset_opens_the_same_files(world, stores):
    data = opened(world, stores)
    data.set_epoch(2)
    again = pickle.loads(pickle.dumps(data))
    assert equal(again[7], data[7])
    assert len(pickle.dumps(data)) < 10_000


def test_a_pickled_dataset_refuses_another_dataset_in_its_place(world, stores, tmp_path):
    shutil.copy(world.dataset, tmp_path / "dataset.h5")
    data = SoftLabelDataset(world.index(stores["all views"][0]), tmp_path / "dataset.h5")
    pickled = pickle.dumps(data)
    shutil.copy(make_world(tmp_path / "other", per_class=4).dataset, tmp_path / "dataset.h5")
    line = re.escape(f"{tmp_path / 'dataset.h5'}: was ") + "[0-9a-f]{16} when it was opened, is [0-9a-f]{16} now; start"
    with pytest.raises(OtherDatasetError, match=line):
        pickle.loads(pickled)


def test_specialists_speak_of_their_own_classes(world):
    teacher = world.teacher("middle")
    world.store(teacher)
    data, dataset = SoftLabelDataset(world.index(teacher), world.dataset), open_dataset(world.dataset)
    assert data.class_ids == (5, 6, 7, 8, 9)
    assert data.classes == tuple("56789")
    assert data.sample_ids.tolist() == dataset.sample_ids("train", data.class_ids).tolist()
    _, labels, logits = next(iter(DataLoader(data, len(data))))
    assert (labels + 5).tolist() == dataset.labels[data.sample_ids].tolist()
    assert logits.shape == (len(data), 5)
    test = data.held_out("test")
    assert torch.stack([label for _, label in test]).unique().tolist() == [0, 1, 2, 3, 4]


def test_held_out_images_are_the_plain_ones(world, stores):
    data, dataset = opened(world, stores), open_dataset(world.dataset)
    held_out = data.held_out("val")
    ids = dataset.sample_ids("val")
    plain = ViewBatches(dataset, data._store.batches.spec, CPU).plain(ids)
    images, labels = next(iter(DataLoader(held_out, len(held_out), collate_fn=data.collate)))
    assert torch.equal(images, normalise(plain, dataset.mean, dataset.std))
    assert labels.tolist() == dataset.labels[ids].tolist()
    with pytest.raises(ValueError, match="split must be one of"):
        data.held_out("dev")


def test_a_training_is_resumed_at_a_batch(world, stores):
    data = opened(world, stores)
    whole = list(data.sampler(BATCH, epochs=2))
    assert [len(batch) for batch in whole] == [32] * 5
    assert list(data.sampler(BATCH, images=160, start=3)) == whole[3:]
    assert (len(data.sampler(BATCH, epochs=2)), len(data.sampler(BATCH, epochs=2, start=5))) == (5, 0)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"batch_size": 1, "epochs": 1}, "batch_size must be at least 2, got 1"),
        ({"batch_size": 8}, "give epochs (above 0, up to 100,000) or images (2 to 10**12), not both; got epochs=None,"),
        ({"batch_size": 8, "epochs": 1, "images": 1}, "not both; got epochs=1, images=1"),
        ({"batch_size": 8, "epochs": 0}, "got epochs=0, images=None"),
        ({"batch_size": 8, "images": -1}, "got epochs=None, images=-1"),
        ({"batch_size": 8, "epochs": 1, "start": 11}, "start must be a batch from 0 to 10, got 11"),
    ],
)
def test_a_sampler_out_of_range_is_refused(world, stores, settings, line):
    with pytest.raises(ValueError, match=re.escape(line)):
        opened(world, stores).sampler(**settings)


@pytest.mark.parametrize(
    ("indices", "error", "line"),
    [
        ([80], IndexError, "index 80: positions are 0 to 79, epochs 0 and later; give a position, or a pair"),
        ([-1], IndexError, "index -1: "),
        ([(0, 1), (-1, 3)], IndexError, "index (-1, 3): "),
        ([0.5], TypeError, "indices must all be whole numbers, or all pairs (epoch, position), got [0.5]"),
        ([1, (0, 1)], TypeError, "got [1, (0, 1)]"),
        ([(0, 1, 2)], TypeError, "got [(0, 1, 2)]"),
    ],
)
@pytest.mark.parametrize("held_out", [False, True])
def test_other_indices_are_refused(world, stores, indices, error, line, held_out):
    data = opened(world, stores).held_out("train") if held_out else opened(world, stores)
    with pytest.raises(error, match=re.escape(line)):
        data.__getitems__(indices)


def test_numbers_out_of_range_are_refused(world, stores):
    with pytest.raises(ValueError, match=re.escape("seed must be from 0 to 2**56 - 1, got -1")):
        opened(world, stores, seed=-1)
    with pytest.raises(ValueError, match="epoch must be 0 or later, got -1"):
        opened(world, stores).set_epoch(-1)


@pytest.fixture
def copied(world, stores, tmp_path):
    """Index and files of a copy that a test may spoil."""
    index = world.index(stores["drawn, in cycles, three files"][0])
    shutil.copytree(index.with_suffix(""), tmp_path / "all")
    return shutil.copy(index, tmp_path / "all.json")


def rewrite(index, **changes):
    write_record(index, read_record(index) | changes)


def refused(index, dataset, error, line):
    with pytest.raises(error, match=re.escape(line)) as caught:
        SoftLabelDataset(index, dataset)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, EdpipeError)


def test_what_is_no_index_is_refused(world, copied):
    line = f"{copied.with_suffix('')}: must be the index of soft labels, such as artifacts/soft_labels/"
    refused(copied.with_suffix(""), world.dataset, EdpipeError, line)
    refused(copied.with_name("none.json"), world.dataset, CorruptFileError, "none.json: not a readable record")
    record = copied.with_suffix("") / "views_0-1.json"
    refused(record, world.dataset, CorruptFileError, f"{record}: the record lacks 'files'")


@pytest.mark.parametrize("files", ["views_0-1.h5", ["../all/views_0-1.h5"], [3], [".."]])
def test_an_index_leads_to_no_other_folder(world, copied, files):
    rewrite(copied, files=files)
    refused(copied, world.dataset, CorruptFileError, f"{copied}: 'files' must be names of files in its folder, got")


def test_files_that_were_not_verified_are_refused(world, copied):
    rewrite(copied, inputs=read_record(copied)["inputs"] | {"soft_labels": ["0" * 16]})
    refused(copied, world.dataset, UnverifiedError, f"{copied}: speaks of soft labels ['{'0' * 16}'], at hand are")


def test_an_index_of_another_teacher_is_refused(world, copied):
    rewrite(copied, teacher="somebody")
    refused(copied, world.dataset, EdpipeError, "was made with teacher 'teacher1', asked for is 'somebody'")
    rewrite(copied, teacher="teacher1", inputs=read_record(copied)["inputs"] | {"teacher": "0" * 16})
    refused(copied, world.dataset, EdpipeError, f"asked for is '{'0' * 16}'")


def test_an_altered_row_is_refused(world, copied):
    path = copied.with_suffix("") / "views_2-3.h5"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    refused(copied, world.dataset, CorruptFileError, str(path))


def test_pixels_that_are_made_otherwise_here_are_refused(world, copied, monkeypatch):
    monkeypatch.setattr(ViewBatches, "canary", lambda *_: "0" * 16)
    refused(copied, world.dataset, PixelDriftError, "was made with pixel canary")


def test_another_dataset_is_refused(copied, tmp_path):
    other = make_world(tmp_path / "other", per_class=4)
    refused(copied, other.dataset, EdpipeError, "its images are not those of the dataset (content keys differ)")


def test_a_dataset_with_more_training_samples_is_refused(world, stores, monkeypatch):
    dataset = open_dataset(world.dataset)
    more = replace(dataset, splits=np.zeros_like(dataset.splits))
    monkeypatch.setattr("edpipe.api.soft_label_dataset.open_dataset", lambda _: more)
    index = world.index(stores["all views"][0])
    line = f"holds 80 samples, {world.dataset} has {dataset.num_samples} training samples of its classes; dump it again"
    refused(index, world.dataset, MissingRowsError, line)


def test_an_exhaustive_store_without_some_views_is_refused(world, tmp_path):
    teacher = world.teacher(name="halved")
    world.store(teacher, use=ViewUse(per_file=5))
    index = world.index(teacher)
    (index.with_suffix("") / "views_5-8.h5").unlink()
    record = read_record(index)
    record["inputs"]["soft_labels"].pop()
    rewrite(index, files=record["files"][:1], inputs=record["inputs"])
    refused(index, world.dataset, EdpipeError, "holds 5 views of each image, there are 9; dump and verify them with")
