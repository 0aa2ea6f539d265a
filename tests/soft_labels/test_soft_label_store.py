"""Several files over ranges of views are read as one."""

import multiprocessing
import os
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from soft_label_examples import (
    CLASSES,
    IDS,
    KEYS,
    PROVENANCE,
    STORAGE,
    draw,
    make_header,
    path_of,
    read_all,
    small_blocks,
    write,
)
from watching import TIMEOUT_S

from edpipe.errors import CorruptFileError, MissingRowsError, UnverifiedError
from edpipe.soft_labels.encoding.precisions import row_bytes
from edpipe.soft_labels.file.reader import open_soft_labels
from edpipe.soft_labels.file.store import check_verified, open_store
from edpipe.storage.records import write_record
from edpipe.views.spec import ViewRange, view_ranges

NUM_VIEWS = 7


@pytest.fixture(autouse=True)
def _several_blocks():
    with small_blocks():
        yield


def write_store(folder, precision="uint8", per_file=3, num_views=NUM_VIEWS, with_maps=False):
    """Paths of the files, by ascending views."""
    headers = [make_header(precision, views, with_maps) for views in view_ranges(num_views, per_file)]
    return [write(path_of(folder, header.views), header) for header in headers]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Of each precision, the same seven views in one file and in three."""
    with small_blocks():
        folder = tmp_path_factory.mktemp("stores")
        return {
            (name, per_file): open_store(write_store(folder / f"{name}{per_file}", name, per_file))
            for name in STORAGE
            for per_file in (3, 7)
        }


@pytest.mark.slow
@pytest.mark.parametrize("precision", STORAGE)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_several_files_are_read_as_one(stores, precision, data):
    several, one = stores[precision, 3], stores[precision, 7]
    assert (len(several.files), len(one.files)) == (3, 1)
    rows = data.draw(st.lists(st.tuples(st.sampled_from(IDS.tolist()), st.integers(0, NUM_VIEWS - 1)), max_size=30))
    ids, views = (np.array([row[axis] for row in rows], dtype=np.int64) for axis in (0, 1))
    found = several.logits(ids, views)
    assert np.array_equal(found, one.logits(ids, views))
    assert np.array_equal(found, one.files[0].logits(ids, views))
    positions = several.positions(ids, views)
    assert np.array_equal(positions, one.positions(ids, views))
    assert positions.tolist() == [view * len(IDS) + IDS.tolist().index(sample) for sample, view in rows]


def test_several_files_are_told_of_as_one(stores):
    for name, storage in STORAGE.items():
        for per_file in (3, 7):
            store = stores[name, per_file]
            assert (store.num_views, store.num_forwards) == (NUM_VIEWS, 49)
            assert store.sample_ids.tolist() == IDS.tolist()
            assert store.class_ids.tolist() == CLASSES.tolist()
            assert store.precision == make_header(name).precision
            assert store.num_bytes == 49 * row_bytes(store.precision)
            assert store.provenance == PROVENANCE
            assert store.files[0].header.storage == storage
            assert store.digests == [file.digest for file in store.files]
            assert len(set(store.digests)) == len(store.files)
            assert store.kl_bound(2.0) == max(file.kl_bound(2.0) for file in store.files)
        several, one = (np.array(list(stores[name, n].files[-1].seal.statistics.values())) for n in (3, 7))
        assert (several <= one + 1e-12).all()
        assert stores[name, 3].kl_bound(4.0) == stores[name, 7].kl_bound(4.0)


def test_attention_maps_of_several_files_are_read_as_one(tmp_path):
    store = open_store(write_store(tmp_path, per_file=3, with_maps=True))
    views = np.array([6, 0, 3, 5, 2, 4, 1])
    for level in (1, 2):
        found = store.attention(level, IDS, views)
        holders = {v: file for file in store.files for v in range(file.views.first, file.views.stop)}
        for row, view in enumerate(views):
            single = holders[view].attention(level, IDS[row : row + 1], views[row : row + 1])
            assert np.array_equal(found[row : row + 1], single)


@given(order=st.permutations(range(3)))
@settings(max_examples=6, deadline=None)
def test_paths_may_come_in_any_order(stores, order):
    paths = [file.path for file in stores["uint4", 3].files]
    store = open_store([paths[place] for place in order], lambda views: PROVENANCE, KEYS, CLASSES)
    assert [file.path for file in store.files] == paths
    assert np.array_equal(read_all(store), read_all(stores["uint4", 3]))


@pytest.mark.parametrize("per_file", [3, 7])
@pytest.mark.parametrize("sample", [4, 19, -1])
def test_a_sample_that_is_not_there_is_refused(stores, per_file, sample):
    store = stores["uint8", per_file]
    for read in (store.logits, store.positions):
        with pytest.raises(MissingRowsError, match=f": holds no soft labels of sample {sample}; dump it again with"):
            read(np.array([3, sample]), np.array([6, 0]))


@pytest.mark.parametrize("view", [7, -1, 10**9])
def test_a_view_that_is_not_there_is_refused(stores, view):
    store = stores["uint8", 3]
    for read in (store.logits, store.positions):
        with pytest.raises(MissingRowsError) as caught:
            read(np.array([3, 3]), np.array([0, view]))
        assert str(caught.value) == (
            f"{store.files[0].path.parent}: holds no soft labels of view {view}, it has 7 views; raise views.number"
        )


@pytest.mark.parametrize("precision", STORAGE)
def test_a_pickled_store_maps_the_same_files_again(stores, precision):
    store = stores[precision, 3]
    pickled = pickle.dumps(store)
    assert len(pickled) < 2000
    again = pickle.loads(pickled)
    assert again.digests == store.digests
    assert np.array_equal(read_all(again), read_all(store))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forked_children_read_the_same_rows_at_the_same_time(stores):
    expected = read_all(stores["uint4", 3])

    def look():
        for _ in range(20):
            assert np.array_equal(read_all(stores["uint4", 3]), expected)

    children = [multiprocessing.get_context("fork").Process(target=look) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(TIMEOUT_S)
    assert [child.exitcode for child in children] == [0, 0, 0]


def test_each_file_is_held_against_what_its_views_should_be(stores):
    forward_pass = []

    def expected(views):
        forward_pass.append(views)
        return PROVENANCE

    open_store([file.path for file in stores["uint8", 3].files], expected)
    assert forward_pass == [ViewRange(0, 3), ViewRange(3, 6), ViewRange(6, 7)]


def test_more_views_add_files_and_leave_the_others_as_they_are(tmp_path):
    short = write_store(tmp_path / "short", per_file=2, num_views=4)
    long = write_store(tmp_path / "long", per_file=2, num_views=6)
    assert [path.read_bytes() for path in short] == [path.read_bytes() for path in long[:2]]


def test_a_store_that_its_index_speaks_of_is_verified(stores, tmp_path):
    index, store = tmp_path / "primary.json", stores["uint8", 3]
    write_record(index, {"inputs": {"soft_labels": store.digests}})
    check_verified(store, index)


@pytest.mark.parametrize("change", [lambda d: d[:2], lambda d: d[::-1], lambda d: [*d, d[0]], lambda d: None])
def test_an_index_must_speak_of_all_files_in_their_order(stores, tmp_path, change):
    index, store = tmp_path / "primary.json", stores["uint8", 3]
    verified = change(store.digests)
    write_record(index, {"inputs": {"soft_labels": verified}})
    with pytest.raises(UnverifiedError, match=f"^{index}: speaks of soft labels {re.escape(str(verified))}, at hand"):
        check_verified(store, index)


def test_one_bad_file_among_good_ones_is_refused_by_name(tmp_path):
    paths = write_store(tmp_path, "float16", per_file=3)
    data = bytearray(paths[1].read_bytes())
    start, _ = _place(paths[1])
    data[start + 5] ^= 1
    paths[1].write_bytes(data)
    with pytest.raises(CorruptFileError, match=f"^{paths[1]}: view 3, rows from 0: altered since written; "):
        open_store(paths)
    assert read_all(open_soft_labels(paths[0])).shape == (3, 7, 5)


def _place(path):
    """Where the rows of a file of floats lie."""
    labels = open_soft_labels(path)
    data, rows = path.read_bytes(), labels.parts["logits"].tobytes()
    return data.index(rows), rows


def test_draws_of_several_files_are_those_of_one(stores):
    """The number of a view decides its draws, not its place in a file."""
    several, one = stores["sampled", 3], stores["sampled", 7]
    logits = draw(make_header("sampled", ViewRange(0, NUM_VIEWS)))
    for view in range(NUM_VIEWS):
        drawn = one.precision.encode(logits[view], IDS, view)["index"]
        for store in (several, one):
            file = next(file for file in store.files if file.views.first <= view < file.views.stop)
            assert np.array_equal(file.gather(IDS, np.full(7, view))["index"], drawn)
