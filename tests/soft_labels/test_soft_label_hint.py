"""Hints in soft-label files: features of one stage beside the logits, kept, checked and refused as the logits are."""

import hashlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from soft_label_examples import (
    HINT,
    HINT_SHAPE,
    IDS,
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

from edpipe.errors import AlteredHeaderError, AlteredRowsError, IncompleteStoreError, MissingRowsError, TeacherError
from edpipe.params.soft_labels import HintKnobs
from edpipe.soft_labels.file.format import HintShape, lay_out
from edpipe.soft_labels.file.reader import open_soft_labels
from edpipe.soft_labels.file.store import open_store
from edpipe.soft_labels.file.writer import create_soft_labels
from edpipe.views.spec import ViewRange, view_ranges

AGAIN = "; dump it again with `snakemake --force {}`"
NOTHING = np.empty(0, dtype=np.int64)
GOLDEN = {
    ("float32", False): "caa6a5d1d44d2fbf",
    ("float32", True): "1c959e1712c5e909",
    ("float16", False): "bebbc6904c4c422d",
    ("float16", True): "12aa10f1ad7c1ed6",
    ("uint8", False): "99e11054481a360d",
    ("uint8", True): "e1c7fafed0e2d887",
    ("uint4", False): "80646947e49db420",
    ("uint4", True): "3afbad95852537af",
    ("top_k", False): "ff2b1cb5c511b09c",
    ("top_k", True): "de4a17db4a0cc946",
    ("sampled", False): "c4e3bda3ea37ef4b",
    ("sampled", True): "a6805a1681ea7512",
}
"""sha256 of files without hints as edpipe wrote them at commit b8a0315, which knew of none; by precision, with maps."""


@pytest.fixture(autouse=True)
def _several_blocks():
    with small_blocks():
        yield


@pytest.fixture(params=STORAGE)
def precision(request):
    return request.param


def hinted(precision="uint8", views=ViewRange(0, 3), **changes):  # noqa: B008  (frozen)
    return make_header(precision, views, with_hint=True, **changes)


# Round trip


@pytest.mark.parametrize("with_maps", [False, True])
def test_a_hint_is_found_by_sample_and_view(tmp_path, precision, with_maps):
    header = hinted(precision, with_maps=with_maps)
    labels = open_soft_labels(write(path_of(tmp_path), header))
    values = draw_beside(header)["hint"]
    found = labels.hint(np.array([18, 3]), np.array([0, 2]))
    assert found.dtype == np.float32
    assert np.array_equal(found, np.stack([values[0, 6], values[2, 0]]))
    assert labels.hint(NOTHING, NOTHING).shape == (0, *HINT_SHAPE)
    found[:] = 0
    assert np.array_equal(labels.hint(IDS, np.zeros_like(IDS)), values[0])


def test_the_header_tells_what_a_hint_is(tmp_path, precision):
    labels = open_soft_labels(write(path_of(tmp_path), hinted(precision, with_maps=True)))
    assert labels.header.hint_shape == HintShape(feature_stage=2, side=4, channels=3, height=4, width=2)
    assert labels.header.storage.hint == HINT
    assert labels.header.attention_sizes == ((4, 4), (2, 3))


def test_a_hint_leaves_logits_and_maps_as_they_are(tmp_path, precision):
    plain, with_hint = (
        open_soft_labels(write(path_of(tmp_path / str(flag)), make_header(precision, with_maps=True, with_hint=flag)))
        for flag in (False, True)
    )
    assert np.array_equal(read_all(plain), read_all(with_hint))
    views = np.ones_like(IDS)
    assert np.array_equal(plain.attention(2, IDS, views), with_hint.attention(2, IDS, views))
    assert plain.digest != with_hint.digest


@pytest.mark.slow
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.none() | st.integers(4, 9), st.integers(1, 99))
@settings(max_examples=20, deadline=None)
def test_hints_of_any_shape_come_back(tmp_path_factory, channels, height, width, side, level):
    storage = STORAGE["uint4"].model_copy(update={"hint": HintKnobs(feature_stage=level, side=side)})
    header = make_header(storage=storage, features={"hint": (channels, height, width)})
    labels = open_soft_labels(write(path_of(tmp_path_factory.mktemp("any")), header))
    assert labels.header.hint_shape == HintShape(level, side, channels, height, width)
    for view in range(3):
        assert np.array_equal(labels.hint(IDS, np.full_like(IDS, view)), draw_beside(header)["hint"][view])


@pytest.mark.parametrize("with_maps", [False, True])
def test_files_of_averaged_hints_are_byte_for_byte_those_of_before_whole_ones(tmp_path, with_maps):
    header = hinted(with_maps=with_maps)
    parts = parts_of(header, ((np.arange(105).reshape(3, 7, 5) * 37 % 64) / 8).astype(np.float32))
    path = craft(tmp_path / "a.h5", header, parts, seal_of(header, parts))
    expected = {False: "2bd4bcfaeeacb379", True: "8cd50fe388611d91"}  # by edpipe at commit 983db94
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] == expected[with_maps]


@pytest.mark.parametrize("with_maps", [False, True])
def test_files_without_hints_are_byte_for_byte_what_they_always_were(tmp_path, precision, with_maps):
    header = make_header(precision, with_maps=with_maps)
    parts = parts_of(header, ((np.arange(105).reshape(3, 7, 5) * 37 % 64) / 8).astype(np.float32))
    path = craft(tmp_path / "a.h5", header, parts, seal_of(header, parts))
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] == GOLDEN[precision, with_maps]
    labels = open_soft_labels(path)
    assert labels.header.hint_shape is None
    assert labels.header.storage == header.storage


def test_equal_hints_give_equal_bytes(tmp_path, precision):
    first, second = (write(path_of(tmp_path / name), hinted(precision)) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_files_of_other_hints_have_other_digests(tmp_path):
    header = hinted()
    other = draw_beside(header)
    other["hint"][2, 6, 2, 3, 1] += 1
    deeper = header.storage.model_copy(update={"hint": HintKnobs(feature_stage=3, side=4)})
    cases = [(header, None), (header, other), (hinted(storage=deeper), None)]
    paths = [write(path_of(tmp_path / str(i)), case, features=features) for i, (case, features) in enumerate(cases)]
    assert len({open_soft_labels(path).digest for path in paths}) == len(cases)


# Several files


def test_hints_of_several_files_are_read_as_one(tmp_path):
    headers = [hinted(views=views) for views in view_ranges(7, 3)]
    store = open_store([write(path_of(tmp_path, header.views), header) for header in headers])
    assert store.hint_shape == HintShape(2, 4, *HINT_SHAPE)
    views = np.array([6, 0, 3, 5, 2, 4, 1])
    values = np.concatenate([draw_beside(header)["hint"] for header in headers])
    found = store.hint(IDS, views)
    assert found.dtype == np.float32
    assert np.array_equal(found, values[views, np.arange(7)])
    assert store.hint(NOTHING, NOTHING).shape == (0, *HINT_SHAPE)


@pytest.mark.parametrize(
    "second",
    [
        {"with_hint": False},
        {"storage": STORAGE["uint8"].model_copy(update={"hint": HintKnobs(feature_stage=1, side=4)})},
        {"features": {"hint": (3, 4, 3)}},
    ],
)
def test_files_of_other_hints_are_not_one_store(tmp_path, second):
    headers = [hinted(views=ViewRange(0, 3)), make_header(views=ViewRange(3, 5), **{"with_hint": True} | second)]
    paths = [write(path_of(tmp_path, header.views), header) for header in headers]
    with pytest.raises(IncompleteStoreError, match="has another precision, provenance, samples or classes than"):
        open_store(paths)


# What is not there


def test_a_hint_that_is_not_there_is_refused(tmp_path):
    path = write(path_of(tmp_path), make_header(with_maps=True))
    said = f"{path}: holds no hint; dump it with storage.hint.feature_stage"
    for opened in (open_soft_labels(path), open_store([path])):
        with pytest.raises(MissingRowsError) as caught:
            opened.hint(IDS, np.zeros_like(IDS))
        assert str(caught.value) == said


@pytest.mark.parametrize(("sample", "view", "said"), [(4, 0, "sample 4"), (3, 3, "view 3, it has 0-2")])
def test_a_row_that_is_not_there_is_refused(tmp_path, sample, view, said):
    path = write(path_of(tmp_path), hinted())
    with pytest.raises(MissingRowsError) as caught:
        open_soft_labels(path).hint(np.array([3, sample]), np.array([0, view]))
    assert str(caught.value) == f"{path}: holds no soft labels of {said}" + AGAIN.format(path)


# What cannot be stored


@pytest.mark.parametrize(
    ("name", "helps"),
    [("hint", "remove storage.hint"), ("attention/2", "set storage.attention: false")],
)
@pytest.mark.parametrize(
    ("value", "shown"),
    [(65_520.0, "6.55e+04"), (-1e6, "1e+06"), (np.inf, "inf"), (np.nan, "nan")],
)
def test_numbers_that_float16_does_not_hold_are_refused_by_sample_and_view(tmp_path, name, helps, value, shown):
    header = hinted(with_maps=True)
    features = draw_beside(header)
    features[name][1, 4].flat[-1] = value
    path = path_of(tmp_path)
    with pytest.raises(TeacherError) as caught:
        write(path, header, features=features)
    assert not path.exists()
    assert str(caught.value) == (
        f"old/primary: gives {name} up to {shown} for sample 12, view 1; float16 holds finite numbers up to 65,504; "
        f"train the teacher again, or {helps}"
    )


def test_the_largest_number_of_float16_is_kept(tmp_path):
    header = hinted()
    features = draw_beside(header)
    features["hint"][1, 4, 2, 3, 1] = 65_504
    labels = open_soft_labels(write(path_of(tmp_path), header, features=features))
    assert labels.hint(np.array([12]), np.array([1])).max() == 65_504


# Interruption


def interrupted(path, header, num_blocks):
    logits, features = draw(header), draw_beside(header)
    with suppress(KeyboardInterrupt), create_soft_labels(path, header, "code") as writer:
        for block in writer.missing[:num_blocks]:
            rows = (block.view, slice(block.start, block.stop))
            writer.write(block, logits[rows], {name: values[rows] for name, values in features.items()})
        raise KeyboardInterrupt


@pytest.mark.parametrize("num_blocks", [0, 1, 5, 9])
def test_an_interrupted_dump_goes_on_and_ends_with_the_same_bytes(tmp_path, num_blocks):
    header = hinted(with_maps=True)
    expected = write(path_of(tmp_path / "a"), header).read_bytes()
    path = path_of(tmp_path)
    interrupted(path, header, num_blocks)
    with suppress(KeyboardInterrupt), create_soft_labels(path, header, "code") as writer:
        assert (writer.num_kept, len(writer.missing)) == (num_blocks, 9 - num_blocks)
        raise KeyboardInterrupt
    assert write(path, header).read_bytes() == expected


def test_a_dump_of_another_hint_takes_over_nothing(tmp_path):
    path = path_of(tmp_path)
    interrupted(path, hinted(), 7)
    deeper = STORAGE["uint8"].model_copy(update={"hint": HintKnobs(feature_stage=3, side=4)})
    with create_soft_labels(path, hinted(storage=deeper), "code") as writer:
        assert writer.num_kept == 0
        for block in writer.missing:
            rows = slice(block.start, block.stop)
            writer.write(block, draw(hinted())[0, rows], {"hint": draw_beside(hinted())["hint"][0, rows]})


# Damage and forgery


@pytest.mark.parametrize("place", [(0, 0, 0, 0, 0), (1, 3, 1, 2, 1), (2, 6, 2, 3, 1)])
def test_a_flipped_bit_is_noticed(tmp_path, place):
    header = hinted()
    path = write(path_of(tmp_path), header)
    start, _ = lay_out(header, None).large["hint"]
    data = bytearray(path.read_bytes())
    data[start + 2 * int(np.ravel_multi_index(place, (3, 7, *HINT_SHAPE)))] ^= 1
    path.write_bytes(data)
    with pytest.raises(AlteredRowsError) as caught:
        open_soft_labels(path)
    assert str(caught.value) == (
        f"{path}: view {place[0]}, rows from {place[1] // 3 * 3}: altered since written" + AGAIN.format(path)
    )


def crafted(path, **changes):
    """A file whose digests fit, of a header that says something else than a dump could."""
    header = hinted(**changes)
    parts = parts_of(header)
    return craft(path, header, parts, seal_of(header, parts))


def test_rows_that_can_be_no_whole_hint_are_refused(tmp_path):
    whole = STORAGE["uint8"].model_copy(update={"hint": HintKnobs(feature_stage=2)})
    path = crafted(tmp_path / "a.h5", storage=whole, features={"hint": (3, 4)})
    with pytest.raises(AlteredHeaderError) as caught:
        open_soft_labels(path)
    assert str(caught.value) == (
        f"{path}: 'hint' has rows of shape (3, 4), not (channel, height, width)" + AGAIN.format(path)
    )


@pytest.mark.parametrize("shape", [(3, 5, 2), (3, 4, 5), (3, 4), (1, 3, 4, 2), (3, 0, 2)])
def test_rows_that_can_be_no_hint_are_refused(tmp_path, shape):
    path = crafted(tmp_path / "a.h5", features={"hint": shape})
    with pytest.raises(AlteredHeaderError) as caught:
        open_soft_labels(path)
    assert str(caught.value) == (
        f"{path}: 'hint' has rows of shape {shape}, not (channel, height, width) of side 4 at most" + AGAIN.format(path)
    )


@pytest.mark.parametrize("shape", [(4,), (3, 4, 4), (0, 4)])
def test_rows_that_can_be_no_attention_map_are_refused(tmp_path, shape):
    path = crafted(tmp_path / "a.h5", features={"attention/1": shape, "hint": HINT_SHAPE})
    with pytest.raises(AlteredHeaderError) as caught:
        open_soft_labels(path)
    assert str(caught.value) == (
        f"{path}: 'attention/1' has rows of shape {shape}, not (height, width)" + AGAIN.format(path)
    )


def test_a_hint_that_its_header_does_not_speak_of_is_refused(tmp_path):
    path = crafted(tmp_path / "a.h5", storage=STORAGE["uint8"])
    with pytest.raises(AlteredHeaderError, match=r"bytes \d+ to \d+ are neither header nor rows; dump it again"):
        open_soft_labels(path)


def test_a_header_that_speaks_of_a_hint_which_is_not_there_is_refused(tmp_path):
    path = crafted(tmp_path / "a.h5", features={})
    with pytest.raises(AlteredHeaderError, match=r"not a whole soft-label file \(.*hint.*\); dump it again"):
        open_soft_labels(path)
