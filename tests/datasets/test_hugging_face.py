"""Image sets of the library `datasets`, saved on disk or asked for by name; without the library, one line."""

import subprocess
import sys

import numpy as np
import pytest
from hugging_face_examples import CLASSES, save, split_of
from layouts import class_image

from edpipe.datasets.readers.by_name import read_raw
from edpipe.datasets.splits import assign_splits
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs, HuggingFaceKnobs


def knobs(download=False, **values):
    return DatasetKnobs(reader="huggingface", image_size=8, download=download, huggingface=HuggingFaceKnobs(**values))


def refusal(root, text, **values):
    with pytest.raises(DataError, match=text) as error:
        read_raw(root, knobs(**values))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(root))


datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path_factory):
    """Nothing is asked of the hub, and no progress bars are shown."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def check(raw, expected):
    """`expected`: split and number of images in it, in order."""
    assert [s.split for s in raw.samples] == [split for split, count in expected for _ in range(count)]
    assert len({s.source for s in raw.samples}) == len(raw.samples)
    for row, sample in enumerate(raw.samples):
        assert sample.label == row % 3
        np.testing.assert_array_equal(np.asarray(sample.load()), class_image(row % 3, row))


def test_official_splits_and_classes_are_kept(tmp_path):
    root = save(tmp_path, train=split_of(9), validation=split_of(3, 9), test=split_of(6, 12))
    raw = read_raw(root, knobs())
    assert raw.class_names == CLASSES
    check(raw, [("train", 9), ("val", 3), ("test", 6)])
    assert (raw.samples[0].source, raw.samples[9].source) == ("train/0", "validation/0")


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev"])
def test_without_a_test_split_that_of_validation_is_it(tmp_path, name):
    check(read_raw(save(tmp_path, train=split_of(9), **{name: split_of(3, 9)}), knobs()), [("train", 9), ("test", 3)])


@pytest.mark.parametrize("splits", [{"only": 30}, {"train": 30}, {"everything": 30}])
def test_one_split_alone_is_cut_by_the_seed(tmp_path, splits):
    raw = read_raw(save(tmp_path, **{name: split_of(count) for name, count in splits.items()}), knobs())
    check(raw, [(None, 30)])
    drawn = [s.split for s in assign_splits(raw, knobs()).samples]
    assert [drawn.count(split) for split in ("train", "val", "test")] == [21, 3, 6]


def test_splits_and_columns_may_be_named(tmp_path):
    columns = {"columns": ("photo", "kind")}
    root = save(tmp_path, a=split_of(9, **columns), b=split_of(3, 9, **columns), c=split_of(6, 12, **columns))
    raw = read_raw(root, knobs(train="a", val="b", test="c", image="photo", label="kind"))
    check(raw, [("train", 9), ("val", 3), ("test", 6)])


def test_named_test_split_is_not_taken_for_val_too(tmp_path):
    root = save(tmp_path, train=split_of(9), validation=split_of(3, 9))
    check(read_raw(root, knobs(test="validation")), [("train", 9), ("test", 3)])


@pytest.mark.parametrize(
    ("feature", "write", "names"),
    [("string", lambda n: "zyx"[n], ("x", "y", "z")), ("int64", lambda n: n * 10, ("0", "10", "20"))],
)
def test_plain_values_are_classes_in_their_order(tmp_path, feature, write, names):
    root = save(tmp_path, only=split_of(6, label=(datasets.Value(feature), write)))
    raw = read_raw(root, knobs())
    assert raw.class_names == names
    assert [names[s.label] for s in raw.samples] == [str(write(row % 3)) for row in range(6)]


def test_name_on_the_hub_is_asked_for(tmp_path, monkeypatch):
    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return datasets.DatasetDict(train=split_of(9), test=split_of(3, 9))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    raw = read_raw(tmp_path, knobs(True, name="owner/animals", config="small", revision="v1"))
    check(raw, [("train", 9), ("test", 3)])
    assert asked == [(("owner/animals", "small"), {"revision": "v1", "cache_dir": str(tmp_path)})]


def test_reading_imports_no_torch(tmp_path):
    root = save(tmp_path, only=split_of(12))
    program = (
        "import sys; from pathlib import Path; from edpipe.params.dataset import DatasetKnobs;"
        "from edpipe.steps.pack_dataset import pack_dataset;"
        "knobs = DatasetKnobs(reader='huggingface', image_size=8);"
        "pack_dataset('tiny', knobs, Path(sys.argv[1]), Path(sys.argv[2]));"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", program, root, tmp_path / "tiny.h5"], check=True, capture_output=True)


# what is refused


def test_missing_folder_says_what_to_put_where(tmp_path):
    text = r"cannot be opened as a Hugging Face data set \(.+\); put a folder written by save_to_disk here, or give "
    refusal(tmp_path / "absent", text)


def test_damaged_folder_is_named(tmp_path):
    root = save(tmp_path, only=split_of(6))
    for path in root.glob("*.arrow"):
        path.write_bytes(path.read_bytes()[:100])
    refusal(root, "cannot be opened as a Hugging Face data set")


def test_no_network_is_one_line(tmp_path):
    text = r"owner/animals could not be fetched \(.+\); put a folder written by save_to_disk at .* and remove hugg"
    refusal(tmp_path, text, download=True, name="owner/animals")


def test_name_needs_download(tmp_path):
    refusal(tmp_path, "owner/animals is on the hub and download is false; put a folder .* set download: true$",
            name="owner/animals")  # fmt: skip


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"train": "a"}, r"there is no split a; allowed for huggingface.\{train,val,test\}: train, validation, test$"),
        ({"test": "train"}, "split train is asked for twice; give train, val and test different splits"),
        ({"image": "label"}, "column label holds no images; give huggingface.image one of: image$"),
        ({"label": "kind"}, "there is no column kind; give huggingface.label one of: label$"),
        ({"label": "image"}, "column image holds .*, must hold classes, texts or whole numbers$"),
    ],
)
def test_name_that_is_not_there_is_refused_with_those_that_are(tmp_path, values, text):
    refusal(save(tmp_path, train=split_of(3), validation=split_of(3), test=split_of(3)), text, **values)


def test_val_alone_leaves_nothing_to_test_on(tmp_path):
    root = save(tmp_path, train=split_of(3), validation=split_of(3))
    refusal(root, "huggingface.val is validation and nothing is left to test on; allowed: train", val="validation")


def test_several_columns_of_classes_are_a_choice(tmp_path):
    split = split_of(3).rename_column("label", "fine_label")
    names = datasets.ClassLabel(names=["animal"])
    split = split.add_column("coarse_label", [0, 0, 0], feature=names)
    refusal(save(tmp_path, only=split), "2 columns may be the label; give huggingface.label one of: fine_label, coarse")


def test_no_column_of_images_is_told(tmp_path):
    split = split_of(3).remove_columns("image")
    refusal(save(tmp_path, only=split), "0 columns hold images; give huggingface.image one of: none is there")


def test_no_column_of_labels_is_told(tmp_path):
    split = split_of(3).remove_columns("label")
    refusal(save(tmp_path, only=split), "0 columns may be the label; give huggingface.label one of: image")


def test_split_without_the_column_is_named(tmp_path):
    root = save(tmp_path, train=split_of(3), test=split_of(3).remove_columns("label"))
    refusal(root, "split test has no column label; it has image$")


def test_hidden_labels_are_told(tmp_path):
    hidden = datasets.ClassLabel(names=list(CLASSES)), lambda _: -1
    root = save(tmp_path, train=split_of(9), validation=split_of(3, 9), test=split_of(3, 12, hidden))
    refusal(root, "split test has images without a label; let huggingface.test name another split")
    check(read_raw(root, knobs(test="validation")), [("train", 9), ("test", 3)])


def test_other_classes_in_another_split_are_refused(tmp_path):
    other = datasets.ClassLabel(names=["dog", "cat", "owl"]), int
    refusal(save(tmp_path, train=split_of(3), test=split_of(3, 0, other)), "splits train, test do not have the same cl")


def test_damaged_and_empty_images_are_named(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a"])})
    images = [{"bytes": b"no image", "path": None}, None]
    root = save(tmp_path, only=datasets.Dataset.from_dict({"image": images, "label": [0, 0]}, features))
    damaged, empty = read_raw(root, knobs()).samples
    with pytest.raises(DataError, match=r"set: image 0 of split train cannot be read \(.+\); remove it$"):
        damaged.load()
    with pytest.raises(DataError, match=r"set: image 1 of split train is empty; remove this row$"):
        empty.load()
