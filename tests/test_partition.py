"""Every class belongs to exactly one subset, whatever the knobs; a partition file fits one dataset only."""

import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edpipe.errors import CorruptFileError, MismatchError, ParamsError
from edpipe.params.partition import PartitionKnobs
from edpipe.partition import Partition, class_bounds, make_partition
from edpipe.steps.partition_dataset import partition_dataset
from edpipe.storage.dataset_file import DatasetHeader, open_dataset
from edpipe.storage.dataset_writer import StoredImage, write_dataset
from edpipe.storage.partition_file import read_partition
from edpipe.storage.records import digest_json

NAMES = ("lower", "middle", "higher", "extra")
RATIOS = st.lists(st.integers(1, 9), min_size=1, max_size=4)
CLASS_NAMES = ("cat", "dog", "owl", "pig", "7", "2")


def knobs(**values):
    return PartitionKnobs(**({"subsets": NAMES[:2]} | values))


def names_of(count):
    return [f"class {number}" for number in range(count)]


# ratio


@given(st.integers(1, 200), RATIOS)
def test_bounds_cover_all_classes_in_shares_that_are_off_by_less_than_one(num_classes, ratio):
    assume(num_classes * min(ratio) >= sum(ratio))
    bounds = class_bounds(num_classes, ratio)
    assert (bounds[0], bounds[-1], len(bounds)) == (0, num_classes, len(ratio) + 1)
    for part, start, stop in zip(ratio, bounds, bounds[1:], strict=False):
        assert stop > start
        assert abs((stop - start) - num_classes * part / sum(ratio)) < 1


@given(st.integers(1, 60), RATIOS, st.none() | st.integers(0, 2**32 - 1))
def test_every_class_belongs_to_exactly_one_subset(num_classes, ratio, seed):
    assume(num_classes * min(ratio) >= sum(ratio))
    chosen = knobs(subsets=NAMES[: len(ratio)], ratio=ratio, class_order_seed=seed)
    partition = make_partition(chosen, names_of(num_classes), "d")
    ids = [class_id for name in partition.subsets for class_id in partition.class_ids[name]]
    assert sorted(ids) == list(range(num_classes))
    assert all(list(each) == sorted(each) for each in partition.class_ids.values())
    assert partition.subsets == chosen.subsets
    assert partition.classes_of(["all"]) == partition.classes_of(chosen.subsets) == tuple(range(num_classes))
    assert partition == make_partition(chosen, names_of(num_classes), "d")


def test_without_ratio_the_subsets_are_equal_and_keep_the_order_of_classes():
    partition = make_partition(knobs(subsets=NAMES[:3]), names_of(101), "d")
    assert [partition.class_ids[name] for name in NAMES[:3]] == [
        tuple(range(33)),
        tuple(range(33, 67)),
        tuple(range(67, 101)),
    ]


def test_seed_shuffles_the_classes_and_nothing_else_does():
    # The order of sha256("5/0"), sha256("5/1"), ... never changes: a partition of today is one of tomorrow.
    def ids(seed):
        return make_partition(knobs(class_order_seed=seed), names_of(8), "d").class_ids["lower"]

    assert ids(None) == (0, 1, 2, 3)
    assert len({ids(seed) for seed in range(20)}) > 10
    assert ids(5) == make_partition(knobs(class_order_seed=5), [*"abcdefgh"], "other").class_ids["lower"]


@pytest.mark.parametrize(("num_classes", "ratio"), [(2, (1, 1, 1)), (10, (1, 100)), (0, (1,))])
def test_ratio_that_leaves_a_subset_empty_is_refused(num_classes, ratio):
    text = rf"ratio \[.*\] leaves a subset without a class: {num_classes} classes give bounds \("
    with pytest.raises(ValueError, match=text):
        class_bounds(num_classes, ratio)
    with pytest.raises(ParamsError, match=rf"^partition: {text}.*; use fewer subsets, or a ratio that gives each"):
        make_partition(knobs(subsets=NAMES[: len(ratio)], ratio=ratio), names_of(num_classes), "d")


@pytest.mark.parametrize("ratio", [(), (0, 1), (-1,)])
def test_ratio_below_one_is_refused(ratio):
    with pytest.raises(ValueError, match="ratio must be whole numbers of at least 1, got"):
        class_bounds(10, ratio)


# listed classes


def listed(lower, higher):
    return knobs(subsets=("lower", "higher"), classes={"lower": lower, "higher": higher})


@given(st.permutations(range(6)), st.integers(1, 5), st.lists(st.booleans(), min_size=6, max_size=6))
def test_listed_classes_may_be_names_or_numbers_in_any_order(order, cut, by_name):
    # 2 is left to its name: the last class is called so.
    words = [CLASS_NAMES[c] if name or c in (2, 5) else c for c, name in zip(order, by_name, strict=True)]
    partition = make_partition(listed(words[:cut], words[cut:]), CLASS_NAMES, "d")
    assert partition.class_ids == {"lower": tuple(sorted(order[:cut])), "higher": tuple(sorted(order[cut:]))}


def test_number_that_is_a_class_name_is_that_class():
    partition = make_partition(listed([2, 7], [0, 1, "owl", 3]), CLASS_NAMES, "d")
    assert partition.class_ids["lower"] == (4, 5)


@pytest.mark.parametrize(
    ("lower", "higher", "text"),
    [
        (["cat", "dgo"], [2, 3], r"partition.classes.lower: no class 'dgo'; did you mean 'dog'\?"),
        (["cat"], ["xyzzy"], r"partition.classes.higher: no class 'xyzzy'; classes are cat, dog, owl, pig, 7, 2$"),
        ([6], ["cat"], r"partition.classes.lower: no class 6; "),
        ([-1], ["cat"], r"partition.classes.lower: no class -1; "),
        (["cat", "dog"], ["dog"], "class 'dog' is listed more than once; each belongs to one subset"),
        (["cat", 0], ["dog"], "class 'cat' is listed more than once; each belongs to one subset"),
        (["cat", "dog"], ["owl", "7", "2"], r"class 'pig' is in no subset \(1 such\); list every class"),
        ([], [*CLASS_NAMES], "partition.classes.lower: has no class; give it at least one, or drop the subset"),
    ],
)
def test_listed_classes_that_do_not_fit_are_refused(lower, higher, text):
    with pytest.raises(ParamsError, match=text) as error:
        make_partition(listed(lower, higher), CLASS_NAMES, "d")
    assert "\n" not in str(error.value)


def test_many_classes_are_not_all_listed_in_an_error():
    with pytest.raises(ParamsError, match=r"class 6, class 7 … \(101 in all\)$"):
        make_partition(listed(["?"], [0]), names_of(101), "d")


# Partition


PARTITION = Partition("d", ("b", "a"), {"a": (1, 4), "b": (0, 2, 3)})


def test_classes_of_subsets_are_their_ascending_union():
    assert PARTITION.classes_of(["a", "b"]) == PARTITION.classes_of(["b", "a"]) == (0, 1, 2, 3, 4)
    assert PARTITION.classes_of(["a"]) == PARTITION.classes_of(["a", "a"]) == (1, 4)
    assert PARTITION.classes_of([]) == ()
    with pytest.raises(ValueError, match=r"no subset named 'c'; there are \['b', 'a'\]"):
        PARTITION.classes_of(["a", "c"])


def test_digest_tells_partitions_apart():
    others = [
        Partition("e", PARTITION.subsets, PARTITION.class_ids),
        Partition("d", ("a", "b"), PARTITION.class_ids),
        Partition("d", ("b", "a"), {"a": (1,), "b": (0, 2, 3, 4)}),
    ]
    assert PARTITION.digest == Partition("d", ("b", "a"), dict(reversed(PARTITION.class_ids.items()))).digest
    assert len({PARTITION.digest, *(other.digest for other in others)}) == 4


# the file


def write_tiny(path, class_names=("cat", "dög", "owl")):
    labels = [*range(len(class_names))] * 3
    splits = [split for split in ("train", "val", "test") for _ in class_names]
    images = (StoredImage(np.full((1, 4, 4), row, np.uint8)) for row in range(len(labels)))
    header = DatasetHeader("tiny", class_names, "raw", 4, 1, 4)
    write_dataset(path, header, labels, splits, [str(row) for row in range(len(labels))], images)
    return path


@pytest.fixture
def dataset_path(tmp_path):
    return write_tiny(tmp_path / "tiny.h5")


@pytest.fixture
def path(tmp_path, dataset_path):
    partition_dataset(dataset_path, knobs(), tmp_path / "half.json")
    return tmp_path / "half.json"


def test_partition_file_is_read_as_made(path, dataset_path, tmp_path, capsys):
    dataset = open_dataset(dataset_path)
    partition = read_partition(path, dataset)
    assert partition == make_partition(knobs(), dataset.class_names, dataset.digest)
    partition_dataset(dataset_path, knobs(), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert "lower 1, middle 2 classes" in capsys.readouterr().err


def test_partition_file_tells_people_names_and_numbers(path):
    contents = json.loads(path.read_text(encoding="utf-8"))
    assert contents["subsets"][1] == {
        "name": "middle",
        "class_ids": [1, 2],
        "class_names": ["dög", "owl"],
        "samples": {"train": 2, "val": 2, "test": 2},
    }
    assert contents["step"] == "partition_dataset"


def refused(error, path, dataset_path):
    with pytest.raises(error) as caught:
        read_partition(path, open_dataset(dataset_path))
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


def rewrite(path, change, is_sealed=False):
    contents = json.loads(path.read_text(encoding="utf-8"))
    change(contents)
    if is_sealed:
        contents.pop("file_digest")
        contents["file_digest"] = digest_json(contents)
    path.write_text(json.dumps(contents), encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["subsets"][0].update(class_ids=[2]),
        lambda c: c["subsets"].reverse(),
        lambda c: c["subsets"][0].update(name="first"),
        lambda c: c["subsets"][0]["samples"].update(train=9),
        lambda c: c["inputs"].update(dataset="0" * 16),
        lambda c: c.pop("file_digest"),
        lambda c: c.pop("subsets"),
    ],
)
def test_altered_partition_file_is_refused(path, dataset_path, change):
    rewrite(path, change)
    text = refused(CorruptFileError, path, dataset_path)
    assert "altered since written; change params.yaml instead, then make it again with `snakemake --force" in text


@pytest.mark.parametrize(
    "change", [lambda c: c.pop("format"), lambda c: c.update(format_version=2), lambda c: c.update(format="x")]
)
def test_other_format_or_version_is_refused(path, dataset_path, change):
    rewrite(path, change, is_sealed=True)
    assert "not a partition file of version 1; make it again" in refused(CorruptFileError, path, dataset_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("subsets"),
        lambda c: c.update(subsets=[1]),
        lambda c: c["subsets"][0].update(class_ids=["x"]),
        lambda c: c.pop("inputs"),
    ],
)
def test_partition_file_that_lacks_something_is_refused(path, dataset_path, change):
    rewrite(path, change, is_sealed=True)
    assert "not a whole partition file (" in refused(CorruptFileError, path, dataset_path)


@pytest.mark.parametrize("content", ["", "no JSON", '{"format": "edpipe-part'])
def test_partition_file_that_is_no_json_is_refused(path, dataset_path, content):
    path.write_text(content)
    assert "not a readable record" in refused(CorruptFileError, path, dataset_path)


def test_partition_of_another_dataset_is_refused(path, dataset_path, tmp_path):
    other = write_tiny(tmp_path / "other.h5", ("cat", "dog", "owl"))
    text = refused(MismatchError, path, other)
    assert f"was made from dataset {open_dataset(dataset_path).digest}, but {other} holds dataset " in text
