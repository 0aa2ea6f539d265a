"""Every class belongs to exactly one subset; a partition file is refused unless it is whole and fits its dataset."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edpipe.datasets.dataset_file import SPLITS, DatasetHeader, open_dataset
from edpipe.datasets.dataset_writer import StoredImage, write_dataset
from edpipe.datasets.partition import class_bounds, make_partition
from edpipe.datasets.partition_file import read_partition
from edpipe.errors import CorruptFileError, MismatchError, ParamsError
from edpipe.params.partition import PartitionKnobs
from edpipe.steps.partition_dataset import partition_dataset

CLASS_NAMES = ("ant", "bee", "cat", "dog", "elk", "fox")
DIGEST = "0123456789abcdef"


def knobs(**values):
    return PartitionKnobs(**({"subsets": ("low", "mid", "top")} | values))


def partition_of(**values):
    return make_partition(knobs(**values), CLASS_NAMES, DIGEST)


@st.composite
def ratios(draw):
    """A number of classes and a ratio that gives each subset at least one of them."""
    ratio = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=5)))
    return sum(ratio) + draw(st.integers(0, 60)), ratio


# bounds


@given(ratios())
def test_bounds_cover_all_classes_in_shares_that_differ_from_the_ratio_by_less_than_one_class(case):
    num_classes, ratio = case
    bounds = class_bounds(num_classes, ratio)
    assert (bounds[0], bounds[-1]) == (0, num_classes)
    for number, share in zip(np.diff(bounds), ratio, strict=True):
        assert number >= 1
        assert abs(number - num_classes * share / sum(ratio)) < 1


def test_bounds_of_the_papers_datasets():
    assert class_bounds(10, (1, 1, 1)) == (0, 3, 6, 10)
    assert class_bounds(100, (3, 3, 4)) == (0, 30, 60, 100)
    assert class_bounds(101, (1, 1, 1)) == (0, 33, 67, 101)


@pytest.mark.parametrize(("num_classes", "ratio"), [(2, (1, 1, 1)), (10, (1, 50)), (0, (1,))])
def test_bounds_that_leave_a_subset_empty_are_refused(num_classes, ratio):
    with pytest.raises(ValueError, match=rf"leaves a subset without a class: {num_classes} classes give bounds"):
        class_bounds(num_classes, ratio)


@pytest.mark.parametrize("ratio", [(), (1, 0), (1, -1)])
def test_ratio_must_be_positive(ratio):
    with pytest.raises(ValueError, match="ratio must be whole numbers of at least 1, got"):
        class_bounds(10, ratio)


# dealing out


@given(ratios(), st.none() | st.integers(0, 99))
def test_every_class_belongs_to_exactly_one_subset(case, seed):
    num_classes, ratio = case
    subsets = tuple(f"s{k}" for k in range(len(ratio)))
    names = tuple(f"class {c}" for c in range(num_classes))
    partition = make_partition(knobs(subsets=subsets, ratio=ratio, class_order_seed=seed), names, DIGEST)
    assert sorted(c for ids in partition.class_ids.values() for c in ids) == list(range(num_classes))
    assert [len(partition.class_ids[name]) for name in subsets] == np.diff(class_bounds(num_classes, ratio)).tolist()
    assert all(list(ids) == sorted(ids) for ids in partition.class_ids.values())
    assert partition.classes_of(subsets) == partition.classes_of(("all",)) == tuple(range(num_classes))


def test_without_a_ratio_subsets_are_equal_and_in_the_datasets_order():
    assert partition_of().class_ids == {"low": (0, 1), "mid": (2, 3), "top": (4, 5)}


def test_seed_shuffles_the_classes_and_nothing_else_does():
    shuffled = [partition_of(class_order_seed=seed) for seed in range(8)]
    assert shuffled[3] == partition_of(class_order_seed=3)
    assert len({partition.digest for partition in shuffled}) > 4


def test_classes_may_be_named_or_numbered():
    partition = partition_of(classes={"low": ("fox", 0), "mid": ("dog", "bee"), "top": (2, "elk")})
    assert partition.class_ids == {"low": (0, 5), "mid": (1, 3), "top": (2, 4)}


def test_number_that_is_a_class_name_means_that_class():
    numbered = PartitionKnobs(subsets=("a", "b"), classes={"a": (7,), "b": (0,)})
    assert make_partition(numbered, ("0", "7"), DIGEST).class_ids == {"a": (1,), "b": (0,)}


def test_classes_of_some_subsets_are_ascending():
    partition = partition_of(classes={"low": (5, 0), "mid": (1, 3), "top": (2, 4)})
    assert partition.classes_of(("top", "low")) == (0, 2, 4, 5)
    with pytest.raises(ValueError, match=r"no subset named 'high'; there are \['low', 'mid', 'top'\]"):
        partition.classes_of(("high",))


def test_digest_depends_on_classes_order_of_subsets_and_dataset():
    partitions = [
        partition_of(),
        partition_of(ratio=(1, 1, 4)),
        partition_of(subsets=("mid", "low", "top"), classes={"low": (0, 1), "mid": (2, 3), "top": (4, 5)}),
        make_partition(knobs(), CLASS_NAMES, "f" * 16),
    ]
    assert len({partition.digest for partition in partitions}) == 4
    assert all(len(partition.digest) == 16 for partition in partitions)
    assert partition_of(classes={"low": (1, 0), "mid": (2, 3), "top": (4, 5)}).digest == partitions[0].digest


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"ratio": (1, 1, 40)},
            r"partition: ratio \[1, 1, 40\] leaves a subset without a class: 6 classes give bounds .*use fewer subsets",
        ),
        (
            {"classes": {"low": ("ant", "bee"), "mid": ("cat", "dgo"), "top": ("elk", "fox")}},
            r"partition.classes.mid: no class 'dgo'; did you mean 'dog'\?",
        ),
        (
            {"classes": {"low": (0, 1), "mid": (2, 3), "top": (4, 6)}},
            r"partition.classes.top: no class 6; classes are ant, bee, cat, dog, elk, fox",
        ),
        (
            {"classes": {"low": (0, -1), "mid": (2, 3), "top": (4, 5)}},
            r"partition.classes.low: no class -1; classes are ant",
        ),
        (
            {"classes": {"low": (0, 1), "mid": (2, 3), "top": ("elk", "fox", "bee")}},
            r"partition.classes: class 'bee' is listed more than once; each belongs to one subset",
        ),
        (
            {"classes": {"low": (0, 1), "mid": (2,), "top": (4,)}},
            r"partition.classes: class 'dog' is in no subset \(2 such\); list every class",
        ),
    ],
)
def test_knobs_that_do_not_fit_the_classes_are_refused(values, text):
    with pytest.raises(ParamsError, match=text) as error:
        partition_of(**values)
    assert "\n" not in str(error.value)


def test_long_lists_of_classes_are_cut_in_messages():
    names = tuple(f"class {c}" for c in range(101))
    with pytest.raises(ParamsError, match=r"class 7 … \(101 in all\)"):
        make_partition(knobs(subsets=("a",), classes={"a": ("zzz",)}), names, DIGEST)


# the file


def write_tiny(path, seed=0):
    labels = [c for c in range(6) for _ in range(4)]
    splits = ["train", "train", "val", "test"] * 6
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 1, 4, 4), np.uint8)
    header = DatasetHeader("tiny", CLASS_NAMES, "raw", 4, 1, 4)
    write_dataset(path, header, labels, splits, [str(i) for i in range(24)], (StoredImage(each) for each in pixels))
    return path


@pytest.fixture(scope="module")
def dataset_path(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("dataset") / "tiny.h5")


@pytest.fixture
def path(dataset_path, tmp_path):
    partition_dataset(dataset_path, knobs(ratio=(1, 2, 3)), tmp_path / "thirds.json")
    return tmp_path / "thirds.json"


def test_file_gives_back_the_partition(dataset_path, path):
    dataset = open_dataset(dataset_path)
    expected = make_partition(knobs(ratio=(1, 2, 3)), CLASS_NAMES, dataset.digest)
    assert read_partition(path, dataset) == expected


def test_file_tells_people_names_and_counts(path):
    contents = json.loads(path.read_text())
    assert [subset["name"] for subset in contents["subsets"]] == ["low", "mid", "top"]
    assert contents["subsets"][1]["class_names"] == ["bee", "cat"]
    assert contents["subsets"][1]["samples"] == {"train": 4, "val": 2, "test": 2}
    assert tuple(contents["subsets"][0]["samples"]) == tuple(sorted(SPLITS))


def test_two_equal_runs_write_equal_bytes(dataset_path, path, tmp_path):
    partition_dataset(dataset_path, knobs(ratio=(1, 2, 3)), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_partition_of_another_dataset_is_refused(path, tmp_path):
    other = open_dataset(write_tiny(tmp_path / "other.h5", seed=1))
    with pytest.raises(MismatchError, match=r"thirds.json: was made from dataset .*other.h5.*snakemake") as error:
        read_partition(path, other)
    assert other.digest in str(error.value)


def move_a_class(contents):
    contents["subsets"][2]["class_ids"].append(contents["subsets"][1]["class_ids"].pop())


ALTERATIONS = {
    "class moved": move_a_class,
    "subset renamed": lambda contents: contents["subsets"][0].update(name="lower"),
    "order changed": lambda contents: contents["subsets"].reverse(),
    "count changed": lambda contents: contents["subsets"][0]["samples"].update(train=99),
    "digest changed": lambda contents: contents.update(digest="0" * 16),
    "dataset changed": lambda contents: contents["inputs"].update(dataset="0" * 16),
    "file digest dropped": lambda contents: contents.pop("file_digest"),
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_altered_file_is_refused(dataset_path, path, name):
    contents = json.loads(path.read_text())
    ALTERATIONS[name](contents)
    path.write_text(json.dumps(contents))
    with pytest.raises(
        CorruptFileError, match=r"altered(, or| since written).*; change params.yaml instead, then make it again"
    ):
        read_partition(path, open_dataset(dataset_path))


@pytest.mark.parametrize(("key", "value"), [("format", "edpipe-dataset"), ("format_version", 2)])
def test_file_of_another_format_or_version_is_refused(dataset_path, path, key, value):
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(CorruptFileError, match="not a partition file of version 1; make it again with `snakemake"):
        read_partition(path, open_dataset(dataset_path))


@pytest.mark.parametrize("share", [0, 0.3, 0.7, 0.999])
def test_truncated_file_is_refused(dataset_path, path, share):
    text = path.read_text().rstrip()
    path.write_text(text[: int(len(text) * share)])
    with pytest.raises(CorruptFileError, match="not a readable record"):
        read_partition(path, open_dataset(dataset_path))


def test_sound_file_without_its_parts_is_refused(dataset_path, path):
    from edpipe.storage.digests import digest_json

    contents = json.loads(path.read_text())
    del contents["file_digest"], contents["inputs"]
    path.write_text(json.dumps(contents | {"file_digest": digest_json(contents)}))
    with pytest.raises(CorruptFileError, match=r"not a whole partition file \(KeyError\('inputs'\)\)"):
        read_partition(path, open_dataset(dataset_path))


class CountedNames(tuple):
    """Names of classes that count how often all of them are gone through."""

    searches = 0

    def index(self, *words):
        CountedNames.searches += 1
        return super().index(*words)

    def __contains__(self, name):
        CountedNames.searches += 1
        return super().__contains__(name)


def test_listed_classes_are_looked_up_without_a_search_for_each():
    names = CountedNames(f"class {number}" for number in range(50))
    listed = {"low": names[:10], "mid": names[40:], "top": tuple(range(10, 40))}
    found = make_partition(knobs(classes=listed), names, DIGEST)
    assert found.class_ids == {"low": tuple(range(10)), "mid": tuple(range(40, 50)), "top": tuple(range(10, 40))}
    assert CountedNames.searches == 0


def test_of_two_classes_of_one_name_the_first_is_meant():
    listed = {"low": ("ant",), "mid": (1,), "top": ("bee",)}
    assert make_partition(knobs(classes=listed), ("ant", "ant", "bee"), DIGEST).class_ids["low"] == (0,)
