"""The soft-label file: what is written is what is read, by sample and view, in every precision."""

import json
import multiprocessing
import os
import pickle
from dataclasses import fields, replace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from soft_label_examples import (
    BLOCK,
    CLASSES,
    IDS,
    KEYS,
    LABELS,
    MAP_SIZES,
    PROVENANCE,
    STORAGE,
    craft,
    draw,
    draw_beside,
    make_header,
    parts_of,
    path_of,
    read_all,
    seal_of,
    small_blocks,
    write,
)
from watching import TIMEOUT_S

import edpipe.soft_labels.file.format as format_
from edpipe.errors import CorruptFileError, EdpipeError, MissingRowsError, TeacherError
from edpipe.soft_labels.encoding.precisions import row_bytes
from edpipe.soft_labels.encoding.softmax import row_kl
from edpipe.soft_labels.file import reader
from edpipe.soft_labels.file.format import USER_BLOCK_BYTES, Header, lay_out
from edpipe.soft_labels.file.reader import open_soft_labels
from edpipe.soft_labels.file.writer import create_soft_labels
from edpipe.storage.hdf5 import ALIGNMENT
from edpipe.views.spec import ViewRange

CERTIFIED = [name for name in STORAGE if name != "sampled"]


@pytest.fixture(autouse=True)
def _several_blocks():
    with small_blocks():
        yield


@pytest.fixture(params=STORAGE)
def precision(request):
    return request.param


def rows_of(header, logits):
    """What should come back."""
    views = range(header.views.first, header.views.stop)
    encode, decode = header.precision.encode, header.precision.decode
    return np.stack([decode(encode(x, header.sample_ids, view)) for view, x in zip(views, logits, strict=True)])


def test_what_is_written_is_read(tmp_path, precision):
    header = make_header(precision)
    labels = open_soft_labels(write(path_of(tmp_path), header), PROVENANCE, KEYS, CLASSES)
    assert labels.provenance == PROVENANCE
    assert labels.header.storage == header.storage
    assert (labels.views, labels.num_forwards) == (ViewRange(0, 3), 21)
    assert labels.sample_ids.tolist() == IDS.tolist()
    assert labels.class_ids.tolist() == CLASSES.tolist()
    assert labels.header.labels.tolist() == LABELS.tolist()
    assert labels.header.sample_keys.tolist() == KEYS[IDS].tolist()
    found = read_all(labels)
    assert found.dtype == np.float32
    assert np.array_equal(found, rows_of(header, draw(header)))


def test_float32_rows_are_the_teachers_own(tmp_path):
    header = make_header("float32")
    logits = draw(header, scale=1e4)
    labels = open_soft_labels(write(path_of(tmp_path), header, logits))
    assert np.array_equal(read_all(labels), logits)
    assert labels.kl_bound(4.0) == 0


def test_crafted_files_are_what_a_dump_writes(tmp_path, precision):
    header = make_header(precision, with_maps=True)
    path = write(path_of(tmp_path), header)
    parts, labels = parts_of(header), open_soft_labels(path)
    assert np.array_equal(labels.seal.block_digest, seal_of(header, parts).block_digest)
    assert np.array_equal(labels.seal.agreement, seal_of(header, parts).agreement)
    assert craft(tmp_path / "crafted.h5", header, parts, labels.seal).read_bytes() == path.read_bytes()


@pytest.mark.slow
@given(data=st.data(), name=st.sampled_from(list(STORAGE)))
@settings(max_examples=15, deadline=None)
def test_files_of_any_shape_come_back(tmp_path_factory, data, name):
    num_classes, num_samples = data.draw(st.integers(3, 70)), data.draw(st.integers(1, 40))
    views = ViewRange(data.draw(st.integers(0, 90_000)), 0)
    views = ViewRange(views.first, views.first + data.draw(st.integers(1, 3)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    sizes = data.draw(st.sampled_from([(), ((1, 1),), ((3, 5), (2, 2), (1, 7))]))
    header = Header(
        provenance=PROVENANCE,
        storage=STORAGE[name],
        views=views,
        sample_ids=np.sort(rng.choice(10_000, num_samples, replace=False)),
        sample_keys=rng.integers(0, 2**63, num_samples).astype(np.uint64),
        labels=rng.integers(0, num_classes, num_samples).astype(np.int32),
        class_ids=np.arange(num_classes, dtype=np.int32),
        features={f"attention/{level}": size for level, size in enumerate(sizes, start=1)},
    )
    logits = draw(header)
    labels = open_soft_labels(write(path_of(tmp_path_factory.mktemp("any"), views), header, logits))
    assert np.array_equal(read_all(labels), rows_of(header, logits))
    for level, values in enumerate(draw_beside(header).values(), start=1):
        for view in range(views.first, views.stop):
            found = labels.attention(level, header.sample_ids, np.full(num_samples, view))
            assert np.array_equal(found, values[view - views.first])


def test_rows_are_found_by_sample_and_view(tmp_path, precision):
    header = make_header(precision, ViewRange(4, 7))
    expected = rows_of(header, draw(header))
    labels = open_soft_labels(write(path_of(tmp_path, header.views), header))
    found = labels.logits(np.array([12, 3, 3, 18]), np.array([6, 4, 5, 6]))
    assert np.array_equal(found, np.stack([expected[2, 4], expected[0, 0], expected[1, 0], expected[2, 6]]))


def test_no_rows_are_no_rows(tmp_path, precision):
    labels = open_soft_labels(write(path_of(tmp_path), make_header(precision, with_maps=True)))
    nothing = np.empty(0, dtype=np.int64)
    assert labels.logits(nothing, nothing).shape == (0, 5)
    assert labels.attention(1, nothing, nothing).shape == (0, 4, 4)


def test_gathered_rows_are_the_callers_own(tmp_path, precision):
    labels = open_soft_labels(write(path_of(tmp_path), make_header(precision)))
    before = read_all(labels)
    for part in labels.gather(IDS, np.zeros(7, dtype=np.int64)).values():
        part[:] = 0
    labels.logits(IDS, np.zeros(7, dtype=np.int64))[:] = 0
    assert np.array_equal(read_all(labels), before)
    assert not any(part.flags.writeable for part in labels.parts.values())


def test_attention_maps_are_found_by_level_sample_and_view(tmp_path, precision):
    header = make_header(precision, with_maps=True)
    labels = open_soft_labels(write(path_of(tmp_path), header))
    for level, (size, values) in enumerate(zip(MAP_SIZES, draw_beside(header).values(), strict=True), start=1):
        found = labels.attention(level, np.array([18, 3]), np.array([0, 2]))
        assert found.dtype == np.float32
        assert found.shape == (2, *size)
        assert np.array_equal(found, np.stack([values[0, 6], values[2, 0]]))


@pytest.mark.parametrize("sample", [4, 19, 10_000, -1])
def test_a_sample_that_is_not_there_is_refused(tmp_path, sample):
    path = write(path_of(tmp_path), make_header(with_maps=True))
    labels = open_soft_labels(path)
    for read in (labels.logits, labels.gather, lambda *rows: labels.attention(1, *rows)):
        with pytest.raises(MissingRowsError) as caught:
            read(np.array([3, sample]), np.array([0, 0]))
        assert str(caught.value) == (
            f"{path}: holds no soft labels of sample {sample}; dump it again with `snakemake --force {path}`"
        )


@pytest.mark.parametrize("view", [0, 3, 7, -1, 2**40])
def test_a_view_that_is_not_there_is_refused(tmp_path, view):
    header = make_header(views=ViewRange(4, 7))
    path = write(path_of(tmp_path, header.views), header)
    with pytest.raises(MissingRowsError) as caught:
        open_soft_labels(path).logits(np.array([3, 3]), np.array([4, view]))
    assert str(caught.value) == (
        f"{path}: holds no soft labels of view {view}, it has 4-6; dump it again with `snakemake --force {path}`"
    )


@pytest.mark.parametrize("level", [0, 3])
def test_maps_that_are_not_there_are_refused(tmp_path, level):
    path = write(path_of(tmp_path), make_header(with_maps=True))
    with pytest.raises(MissingRowsError) as caught:
        open_soft_labels(path).attention(level, IDS, np.zeros(7, dtype=np.int64))
    assert str(caught.value) == f"{path}: holds no attention/{level}; dump it with storage.attention: true"


@pytest.mark.slow
@given(seed=st.integers(0, 999), scale=st.floats(0.1, 100), name=st.sampled_from(CERTIFIED), tau=st.floats(0.5, 20))
@settings(max_examples=25, deadline=None)
def test_the_certified_error_is_never_exceeded(tmp_path_factory, seed, scale, name, tau):
    header = make_header(name)
    logits = draw(header, seed, scale)
    labels = open_soft_labels(write(path_of(tmp_path_factory.mktemp("kl")), header, logits))
    kl = row_kl(logits.reshape(-1, 5), read_all(labels).reshape(-1, 5), tau)
    assert kl.max() <= labels.kl_bound(tau) * (1 + 1e-9) + 1e-13


@pytest.mark.parametrize("name", CERTIFIED)
def test_the_file_states_its_error(tmp_path, name):
    header = make_header(name)
    logits = draw(header)
    path = write(path_of(tmp_path), header, logits)
    labels = open_soft_labels(path)
    error = read_all(labels).astype(np.float64) - logits
    kl = row_kl(logits.reshape(-1, 5), read_all(labels).reshape(-1, 5), 4.0)
    with h5py.File(path) as file:
        assert file.attrs["max_abs_error"] == np.abs(error).max()
        assert file.attrs["max_error_range"] == np.ptp(error, axis=2).max()
        assert file.attrs["kl_bound"] == labels.kl_bound(4.0) == np.ptp(error, axis=2).max() ** 2 / 128
        assert file.attrs["measured_max_kl"] == pytest.approx(kl.max(), rel=1e-9, abs=1e-16)
        assert file.attrs["measured_mean_kl"] == pytest.approx(kl.mean(), rel=1e-9, abs=1e-16)


def test_sampled_files_certify_nothing(tmp_path):
    labels = open_soft_labels(write(path_of(tmp_path), make_header("sampled")))
    assert set(labels.seal.statistics.values()) == {np.inf}
    assert labels.kl_bound(4.0) == np.inf


def test_the_file_counts_how_often_the_teacher_is_right(tmp_path, precision):
    header = make_header(precision)
    labels = open_soft_labels(write(path_of(tmp_path), header))
    hits = CLASSES[rows_of(header, draw(header)).argmax(axis=2)] == LABELS
    expected = [[row[start : start + BLOCK].sum() for start in range(0, 7, BLOCK)] for row in hits]
    assert labels.seal.agreement.tolist() == expected
    assert 0 < labels.seal.agreement.sum() < hits.size


def test_equal_logits_give_equal_bytes(tmp_path, precision):
    header = make_header(precision, with_maps=True)
    first, second = (write(path_of(tmp_path / name), header) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert open_soft_labels(first).digest == open_soft_labels(second).digest


def test_files_that_differ_in_anything_have_other_digests(tmp_path):
    header = make_header("float32", with_maps=True)
    logits, features = draw(header), draw_beside(header)
    other_logits, other_beside = logits.copy(), {name: values.copy() for name, values in features.items()}
    other_logits[2, 6, 4] = np.nextafter(other_logits[2, 6, 4], np.float32(np.inf))
    other_beside["attention/2"][2, 6, 1, 2] += 1
    others = [replace(header, provenance=replace(PROVENANCE, **{f.name: "other"})) for f in fields(PROVENANCE)]
    others += [
        replace(header, views=ViewRange(1, 4)),
        replace(header, sample_keys=KEYS[IDS] + np.uint64(1)),
        replace(header, labels=np.roll(LABELS, 1)),
        replace(header, class_ids=CLASSES + np.int32(1), labels=LABELS + np.int32(1)),
        replace(header, sample_ids=IDS + 1),
    ]
    cases = [(header, logits, features), (header, other_logits, features), (header, logits, other_beside)]
    cases += [(other, logits, features) for other in others]
    paths = [write(path_of(tmp_path / str(number)), *case) for number, case in enumerate(cases)]
    assert len({open_soft_labels(path).digest for path in paths}) == len(cases)


def test_the_budget_is_not_part_of_the_file(tmp_path):
    header = make_header("uint8")
    tighter = replace(header, storage=header.storage.model_copy(update={"max_kl": 1.0}))
    first, second = write(path_of(tmp_path / "a"), header), write(path_of(tmp_path / "b"), tighter)
    assert first.read_bytes() == second.read_bytes()


def test_large_columns_are_contiguous_plain_and_aligned(tmp_path, precision):
    header = make_header(precision, with_maps=True)
    path = write(path_of(tmp_path), header)
    with h5py.File(path) as file:
        for name, column in header.columns().items():
            assert file[name].dtype == column.dtype
            assert (file[name].chunks, file[name].compression) == (None, None)
            if file[name].nbytes >= ALIGNMENT:
                assert file[name].id.get_offset() % ALIGNMENT == 0


def test_the_user_block_tells_where_the_header_lies(tmp_path, precision):
    header = make_header(precision, with_maps=True)
    path = write(path_of(tmp_path), header)
    block = path.read_bytes()[:USER_BLOCK_BYTES]
    head, end = json.JSONDecoder().raw_decode(block.decode("ascii"))
    assert set(block[end + 1 :]) == {ord(" ")}
    image = lay_out(header, open_soft_labels(path).seal)
    assert head["extents"] == [list(extent) for extent in image.extents(USER_BLOCK_BYTES)]
    rows = 21 * (row_bytes(header.precision) + 2 * (16 + 6))
    assert head["bytes"] == path.stat().st_size
    assert USER_BLOCK_BYTES + sum(b - a for a, b in head["extents"]) + rows == head["bytes"]


def test_a_pickled_file_maps_the_same_file_again(tmp_path, precision):
    path = write(path_of(tmp_path), make_header(precision))
    labels = open_soft_labels(path, PROVENANCE)
    pickled = pickle.dumps(labels)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)
    assert (again.path, again.digest) == (labels.path, labels.digest)
    assert np.array_equal(read_all(again), read_all(labels))
    path.unlink()
    with pytest.raises(CorruptFileError, match="no such file"):
        pickle.loads(pickled)


def test_an_open_file_is_readable_after_its_name_is_gone(tmp_path):
    path = write(path_of(tmp_path), make_header())
    labels = open_soft_labels(path)
    before = read_all(labels)
    path.unlink()
    assert np.array_equal(read_all(labels), before)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_reads_the_same_rows(tmp_path, precision):
    labels = open_soft_labels(write(path_of(tmp_path), make_header(precision)))
    expected = read_all(labels)

    def look():
        assert np.array_equal(read_all(labels), expected)

    children = [multiprocessing.get_context("fork").Process(target=look) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(TIMEOUT_S)
    assert [child.exitcode for child in children] == [0, 0]
    look()


# --- what cannot be stored -----------------------------------------------------------------------------------------


def failure(path, header, logits, features=None):
    """What is said of a teacher's numbers; no file is made."""
    with pytest.raises(TeacherError) as caught:
        write(path, header, logits, features)
    assert not path.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_no_number_is_refused(tmp_path, precision, value):
    header = make_header(precision)
    logits = draw(header)
    logits[1, 3, 0] = value
    assert failure(path_of(tmp_path), header, logits) == (
        "old/primary: gives a logit that is not finite for sample 11, view 1; train or fetch the teacher again"
    )


def test_a_logit_that_does_not_fit_is_refused(tmp_path):
    header = make_header("float16")
    logits = draw(header)
    logits[0, 0, 0] = 1e6
    for name in ("float16", "top_k"):
        said = failure(path_of(tmp_path), make_header(name), logits)
        assert said == "old/primary: a logit of 1e+06 does not fit float16; use precision: float32"
    logits[0, 0] = -1e6
    for name in ("uint8", "uint4"):
        assert failure(path_of(tmp_path), make_header(name), logits) == (
            "old/primary: smallest logit must be at most 65504 in size to fit float16, got -1e+06; "
            "use precision: float32"
        )


def test_an_error_over_the_budget_is_refused(tmp_path):
    header = make_header("uint8")
    header = replace(header, storage=header.storage.model_copy(update={"max_kl": 1e-4}))
    path = path_of(tmp_path)
    said = failure(path, header, draw(header, scale=300))
    assert said.startswith(f"{path}: storing these logits may cost ")
    assert said.endswith(
        " nats of KL at temperature 4, storage.max_kl allows 0.0001; choose a finer precision or a larger max_kl"
    )


def test_a_failure_leaves_the_file_of_before(tmp_path):
    header = make_header()
    path = write(path_of(tmp_path), header)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="interrupted"), create_soft_labels(path, header, "other code"):
        raise RuntimeError("interrupted")
    assert path.read_bytes() == before


def test_a_finished_dump_leaves_nothing_else(tmp_path):
    path = write(path_of(tmp_path), make_header())
    assert [entry.name for entry in tmp_path.iterdir()] == ["primary"]
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_in_the_way_is_not_removed(tmp_path):
    path = path_of(tmp_path)
    path.mkdir(parents=True)
    with pytest.raises(EdpipeError, match=f"^{path}: cannot be written: "):
        write(path, make_header())
    assert path.is_dir()


def test_a_block_has_4096_rows():
    with small_blocks(4096):
        ids = np.arange(4097)
        header = make_header(sample_ids=ids, sample_keys=ids.astype(np.uint64), labels=np.full(4097, 2, dtype=np.int32))
        assert header.num_blocks == 2
        assert lay_out(header, None).large.keys() == {"logits", "scale", "zero"}
    assert format_.BLOCK_ROWS == BLOCK


def test_a_file_that_is_replaced_while_it_is_opened_stays_the_one_that_was_checked(tmp_path, monkeypatch):
    first, second = (path_of(tmp_path / name) for name in "ab")
    header = make_header("float32")
    with small_blocks():
        write(first, header)
        write(second, replace(header, provenance=replace(header.provenance, teacher_digest="f" * 16)), 2 * draw(header))
        expected = open_soft_labels(first)
        rows = expected.logits(IDS, np.zeros(len(IDS), dtype=np.int64))
        check_head = reader.check_head

        def check_and_replace(path, mapped):
            found = check_head(path, mapped)
            os.replace(second, first)
            return found

        monkeypatch.setattr(reader, "check_head", check_and_replace)
        labels = open_soft_labels(first)
    assert labels.digest == expected.digest
    assert labels.provenance == expected.provenance
    assert np.array_equal(labels.logits(IDS, np.zeros(len(IDS), dtype=np.int64)), rows)
